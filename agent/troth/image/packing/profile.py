# SPDX-License-Identifier: Apache-2.0
"""Profiles and platforms: the data that says what else an image packs, and how large it may be.

Serves ``initramfs`` and ``build``. Python modules and libraries follow from
the code; what does not (kernel modules, libraries opened at run time, size
budgets) is written down in ``initramfs/profiles/*.toml`` and
``initramfs/platforms/*.toml``. It must never decide by what this machine has:
a policy alone chooses.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from troth.documents import stages
from troth.errors import BuildError
from troth.image.packing.module_closure import Wanted
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from troth.documents.policy import Policy


def data_directory() -> Path:
    """The directory ``initramfs/`` of the distribution."""
    return Path(__file__).resolve().parents[2] / "_data" / "initramfs"


@record
class Profile:
    """One profile.

    ``python``: modules to pack besides what imports show; ``libraries``:
    sonames opened at run time; ``where_present``, ``kernel_modules``: by name,
    the former may be missing in a kernel; ``budget_bytes``: what it may add to
    the uncompressed archive; ``extensions``: compiled modules of other packages,
    by their full names; ``programs``: of this machine, by name; ``packages``: other
    packages whose modules may be packed.
    """

    name: str
    python: tuple[str, ...]
    libraries: tuple[str, ...]
    where_present: tuple[str, ...]
    kernel_modules: tuple[str, ...]
    budget_bytes: int
    extensions: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


@record
class Platform:
    """The machine's drivers: ``bus`` for any device, ``disk`` for images with disks.

    ``port``: serial ports, which only the simulated secure processor is behind;
    ``nic``: network devices, for images with a network before the handover.
    """

    name: str
    bus: tuple[str, ...]
    disk: tuple[str, ...]
    port: tuple[str, ...]
    nic: tuple[str, ...]


def _has_disks(policy: Policy) -> bool:
    return bool(policy.volumes)


def _has_keys(policy: Policy) -> bool:
    return bool(policy.encrypted)


def _has_tags(policy: Policy) -> bool:
    return any(volume.integrity != "none" for volume in policy.encrypted)


def _has_gcm(policy: Policy) -> bool:
    return any(volume.integrity == "aes-gcm" for volume in policy.encrypted)


def _may_format(policy: Policy) -> bool:
    """Whether a guest may have to make a file system: where somebody says when."""
    return any(
        volume.file_system
        and (volume.key.startswith(("kbs:", "spiffe:", "random:")) or volume.blank == "format")
        for volume in policy.encrypted
    )


def _has_luks(policy: Policy) -> bool:
    return any(volume.format == "luks2" for volume in policy.encrypted)


def _asks(*schemes: str) -> Callable[[Policy], bool]:
    """Whether a key comes from one of ``schemes``."""
    return lambda policy: any(volume.key.startswith(schemes) for volume in policy.encrypted)


def _takes_instance(policy: Policy) -> bool:
    return policy.instance is not None


def _needs_network(policy: Policy) -> bool:
    return policy.network is not None


def _has_overlay(policy: Policy) -> bool:
    return policy.overlay != "none"


def _quotes(policy: Policy) -> bool:
    return policy.attest.quote


def _is_simulated(policy: Policy) -> bool:
    return policy.snp == "simulated"


def _demands_snp(policy: Policy) -> bool:
    return policy.snp == "required"


def _has_snp(policy: Policy) -> bool:
    return policy.snp != "none"


#: (profile, whether a policy needs it), in loading order of their kernel modules.
PROFILES: tuple[tuple[str, Callable[[Policy], bool]], ...] = (
    ("base", lambda _policy: True),
    ("verity", _has_disks),
    ("overlay", _has_overlay),
    ("volumes", _has_keys),
    ("volumes-tags", _has_tags),
    ("volumes-gcm", _has_gcm),
    ("volumes-format", _may_format),
    ("volumes-luks2", _has_luks),
    ("keys-broker", _asks("kbs:", "spiffe:")),
    ("keys-spiffe", _asks("spiffe:")),
    ("keys-snp", _asks("snp:")),
    ("keys-random", _asks("random:")),
    ("keys-file", _asks("file:")),
    ("instance", _takes_instance),
    ("network", _needs_network),
    ("agent", stages.has_agent),
    ("snp", _has_snp),
    ("quote", _quotes),
    ("sev-guest", _demands_snp),
    ("simulated", _is_simulated),
)


def profiles_of(policy: Policy, *, data: Path | None = None) -> tuple[Profile, ...]:
    """The profiles that ``policy`` asks for. Raises ``BuildError`` ``profile-format``."""
    return tuple(load(name, data=data) for name, wanted in PROFILES if wanted(policy))


def load(name: str, *, data: Path | None = None) -> Profile:
    """The profile ``name``. Raises ``BuildError`` ``profile-format``."""
    table = _Table((data or data_directory()) / "profiles" / f"{name}.toml")
    found = Profile(
        name=name,
        python=table.names("python"),
        libraries=table.names("libraries"),
        where_present=table.names("where_present"),
        kernel_modules=table.names("kernel_modules"),
        budget_bytes=table.size("budget_bytes"),
        extensions=table.names("extensions") if table.has("extensions") else (),
        programs=table.names("programs") if table.has("programs") else (),
        packages=table.names("packages") if table.has("packages") else (),
    )
    table.close()
    return found


def load_platform(name: str, *, data: Path | None = None) -> Platform:
    """The platform ``name``. Raises ``BuildError`` ``profile-format``."""
    table = _Table((data or data_directory()) / "platforms" / f"{name}.toml")
    found = Platform(
        name=name,
        bus=table.names("bus"),
        disk=table.names("disk"),
        port=table.names("port"),
        nic=table.names("nic"),
    )
    table.close()
    return found


def kernel_modules(
    policy: Policy, profiles: Sequence[Profile], platform: Platform, load_also: Iterable[str] = ()
) -> tuple[Wanted, ...]:
    """Kernel modules that an image of ``policy`` loads, wanted order, dependencies not yet added.

    ``load_also``: the manifest's ``[image] load``. Disk drivers and the file
    systems come only with disks, and only the file systems that are used.
    """
    extra = tuple(load_also)
    # First of all: the kernel hashes every later module with them to check its signature.
    wanted = [
        Wanted(name, f"profile {profile.name}", may_be_missing=True)
        for profile in profiles
        for name in profile.where_present
    ]
    simulated = policy.snp == "simulated"
    has_disks = _has_disks(policy) or _has_keys(policy) or _takes_instance(policy)
    has_nic = _needs_network(policy)
    if has_disks or extra or simulated or has_nic:
        wanted += [Wanted(name, f"platform {platform.name}") for name in platform.bus]
    if has_disks:
        wanted += [Wanted(name, f"platform {platform.name}") for name in platform.disk]
    if simulated:
        wanted += [Wanted(name, f"platform {platform.name}") for name in platform.port]
    if has_nic:
        wanted += [Wanted(name, f"platform {platform.name}") for name in platform.nic]
    for profile in profiles:
        wanted += [Wanted(name, f"profile {profile.name}") for name in profile.kernel_modules]
    wanted += [
        Wanted(volume.file_system, f"file system of {volume.name}") for volume in policy.volumes
    ]
    wanted += [Wanted(name, "[image] load") for name in extra]
    return tuple(wanted)


class _Table:
    """One TOML file of ours, read strictly: a typing error in data is a broken build."""

    def __init__(self, path: Path) -> None:
        self._where = os.fspath(path)
        try:
            self._table: dict[str, object] = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise BuildError(
                "profile-format", f"cannot be read: {error}", where=self._where
            ) from None

    def _take(self, key: str) -> object:
        if key not in self._table:
            raise BuildError("profile-format", f"{key} is missing", where=self._where)
        return self._table.pop(key)

    def has(self, key: str) -> bool:
        return key in self._table

    def names(self, key: str) -> tuple[str, ...]:
        value = self._take(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BuildError("profile-format", f"{key} is no list of names", where=self._where)
        return tuple(value)

    def size(self, key: str) -> int:
        value = self._take(key)
        if type(value) is not int or value < 0:
            raise BuildError("profile-format", f"{key} is no size", where=self._where)
        return value

    def close(self) -> None:
        if self._table:
            raise BuildError(
                "profile-format", f"{min(self._table)} is not known", where=self._where
            )

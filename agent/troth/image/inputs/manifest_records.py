# SPDX-License-Identifier: Apache-2.0
"""What a manifest says, as values: one record a table of troth.toml.

Made by ``image.inputs.manifest``, which knows keys and refusals; read by the
rest of the build. Must never read a file or hold a default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.record import record

if TYPE_CHECKING:
    from pathlib import Path

    from troth.documents.policy import InstanceRules, Network
    from troth.documents.policy_keys import Broker, Encrypted
    from troth.documents.toml_source import Source


@record
class KernelSource:
    """Where the kernel comes from: ``package`` of Debian, or the two paths.

    ``modules`` is the directory that holds modules.dep, None for a kernel without modules.
    """

    package: str
    vmlinuz: Path | None
    modules: Path | None


@record
class Image:
    """``[image]``; ``python`` is an interpreter's path, empty for the distribution's."""

    name: str
    svn: int
    kernel: KernelSource
    load: tuple[str, ...]
    python: str
    compression: str
    platform: str
    cmdline: tuple[str, ...]
    cmdline_variable: dict[str, tuple[str, ...]]
    acpi: str
    igvm: bool = False


@record
class Root:
    """``[root]``; ``file_system`` and ``compression`` do not concern a ready image."""

    source: Path
    overlay: str
    overlay_paths: tuple[str, ...]
    modules: bool
    file_system: str
    compression: str

    @property
    def overlay_volume(self) -> str:
        """The volume that the writable layer lies on, "" where it lies on none."""
        return "" if self.overlay in ("tmpfs", "none") else self.overlay


@record
class Handover:
    """``[handover]``; exactly one of ``init`` and ``supervise`` is not empty.

    ``manager``: "systemd", "none", or "" for looking where init leads; ``user``
    and ``group`` are 0 where ``init`` is set.
    """

    init: str
    supervise: tuple[str, ...]
    user: int
    group: int
    grace_s: int
    manager: str
    modules_disabled: bool
    lockdown: str


@record
class Initramfs:
    """``[initramfs]``: ``files`` go below /app, ``python`` are module names."""

    files: Path | None
    python: tuple[str, ...]


@record
class Tee:
    """``[tee]``: each "required", "optional", "simulated" or "none" as the design says."""

    snp: str
    vtpm: str
    vtpm_kind: str


@record
class Volume:
    """One ``[[volume]]`` of format verity: ``device`` is ``KIND:VALUE``.

    ``index``: of its table among all volumes, for lines in errors.
    """

    name: str
    source: Path
    mount: str
    device: str
    index: int


@record
class Fail:
    """``[fail]``: see ``documents.policy.Fail``."""

    action: str
    detail: str
    deadline_s: int
    device_timeout_s: int


@record
class Attest:
    """``[attest]``: see ``documents.policy.Attest``; ``extend``: (user, unit) of each rule."""

    group: int
    raw_report_data: str
    extend: tuple[tuple[int, str], ...]
    quote: bool = False


@record
class Launch:
    """``[launch]``: the machines whose launch digests are computed.

    Every combination counts: an IGVM file for each of ``vcpus`` and
    ``memory_bytes``; and with ``ovmf`` (firmware whose digest covers the kernel's
    hashes) a digest for each of ``vcpus``, ``cpu_types`` and ``guest_features``
    (SEV_FEATURES). ``policy``: the SNP guest policy; ``products``: lines of AMD
    processors, () for any.
    """

    vcpus: tuple[int, ...]
    cpu_types: tuple[str, ...]
    memory_bytes: tuple[int, ...]
    ovmf: Path | None
    guest_features: tuple[int, ...]
    policy: int
    products: tuple[str, ...]


@record
class Manifest:
    """All of troth.toml. ``root`` is None where everything is in the initramfs.

    ``sha256``: of the text, in hex; ``key_files``: (name, file) of ``file:`` keys.
    """

    path: Path
    image: Image
    root: Root | None
    handover: Handover
    initramfs: Initramfs
    workload: tuple[str, ...]
    tee: Tee
    volumes: tuple[Volume, ...]
    fail: Fail
    attest: Attest
    launch: Launch
    source: Source
    sha256: str = ""
    instance: InstanceRules | None = None
    encrypted: tuple[Encrypted, ...] = ()
    brokers: tuple[Broker, ...] = ()
    key_files: tuple[tuple[str, Path], ...] = ()
    network: Network | None = None

    def where(self, *path: str | int) -> str:
        """``file:line`` of a key, as ``manifest.where("volume", 0, "source")``."""
        return self.source.where(path)

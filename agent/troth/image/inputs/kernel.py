# SPDX-License-Identifier: Apache-2.0
"""The kernel of an image: from a Debian package, downloaded but never installed, or from paths.

Serves ``build``: one ``Kernel`` with the image to boot and the module tree
beside it. Packages are checked against apt's signed index (and the lock) and
kept unpacked in a cache under their SHA-256, so a locked build asks no
network twice. It must never run a maintainer script or trust a file name for
the release: that is read from the image itself.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from troth.abi import bzimage
from troth.errors import BuildError, HostError
from troth.image import program
from troth.record import record

SCHEME = "debian:"
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_VERSION = re.compile(r"[0-9A-Za-z.+~:-]+")
_VERSIONED = re.compile(r"\s*(linux-image-[0-9][a-z0-9+.-]*)\s*\(=\s*([^)\s]+)\s*\)")
_VMLINUZ_LIMIT_BYTES = 256 << 20


@record
class Kernel:
    """A kernel ready to pack.

    ``release``: as ``uname -r`` will say, read from the image; ``vmlinuz``:
    path of the bzImage; ``modules_dir``: its ``lib/modules/<release>``;
    ``package``, ``version``: of Debian, empty for paths; ``sha256``: of the
    package file, or of vmlinuz for paths.
    """

    release: str
    vmlinuz: Path
    modules_dir: Path
    package: str
    version: str
    sha256: str


@record
class Pin:
    """What a lock says of a kernel package: exact name, version, SHA-256 (hex)."""

    package: str
    version: str
    sha256: str


@record
class _Stanza:
    package: str
    version: str
    sha256: str
    depends: str


def cache_directory() -> Path:
    """Where downloads live: $TROTH_CACHE, $XDG_CACHE_HOME/troth or ~/.cache/troth."""
    if named := os.environ.get("TROTH_CACHE"):
        return Path(named).absolute()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).absolute() / "troth"
    return Path.home() / ".cache" / "troth"


def from_package(spec: str, *, pin: Pin | None = None, cache: Path | None = None) -> Kernel:
    """The kernel of ``spec``, ``debian:<package>``, a meta package or a versioned one.

    With ``pin`` exactly that package, version and digest, whatever apt would
    prefer today. Raises ``BuildError``: ``kernel-name``, ``kernel-unknown``
    (apt knows no such package), ``kernel-unavailable`` (the pinned version is
    gone), ``kernel-digest``, ``kernel-layout``; ``HostError``
    ``program-missing``.
    """
    name = spec.removeprefix(SCHEME)
    if not spec.startswith(SCHEME) or not _NAME.fullmatch(name):
        raise BuildError(
            "kernel-name", f"{spec!r} is not debian:<package>", hint=f"e.g. {SCHEME}{_EXAMPLE}"
        )
    wanted = pin if pin is not None else _resolve(name)
    if not (_NAME.fullmatch(wanted.package) and _VERSION.fullmatch(wanted.version)):
        raise BuildError("kernel-name", f"{wanted.package}={wanted.version} is no package version")
    if not re.fullmatch("[0-9a-f]{64}", wanted.sha256):
        raise BuildError("kernel-digest", f"{wanted.package} has no SHA-256 in apt's index")
    store = (cache_directory() if cache is None else cache) / "kernels"
    unpacked = store / wanted.sha256
    if not unpacked.is_dir():
        _fetch(wanted, unpacked)
    return _unpacked_kernel(wanted, unpacked)


_EXAMPLE = "linux-image-6.12-cloud-amd64"


def from_paths(vmlinuz: Path, modules: Path) -> Kernel:
    """The kernel image ``vmlinuz`` with the module tree ``modules``.

    ``modules`` is ``lib/modules/<release>`` or a directory that holds it.
    Raises ``BuildError`` ``kernel-layout``; ``FormatError`` ``bzimage-*``.
    """
    content = _read(vmlinuz)
    release = bzimage.release(content, where=os.fspath(vmlinuz))
    for candidate in (modules / release, modules / "lib" / "modules" / release, modules):
        if (candidate / "kernel").is_dir():
            digest = hashlib.sha256(content).hexdigest()
            return Kernel(release, vmlinuz, candidate, "", "", digest)
    raise BuildError(
        "kernel-layout",
        f"no module tree of {release} here: neither kernel/ nor {release}/kernel/",
        where=os.fspath(modules),
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_VMLINUZ_LIMIT_BYTES + 1)
    except OSError as error:
        raise BuildError(
            "kernel-layout", f"cannot be read: {error.strerror}", where=os.fspath(path)
        ) from None
    if len(content) > _VMLINUZ_LIMIT_BYTES:
        raise BuildError("kernel-layout", "larger than any kernel", where=os.fspath(path))
    return content


def _resolve(name: str) -> Pin:
    """The versioned image package that ``name`` is or depends on, as apt has it today."""
    stanza = _candidate(name)
    for _hop in range(4):
        found = _VERSIONED.match(stanza.depends.split(",")[0])
        if found is None:
            return Pin(stanza.package, stanza.version, stanza.sha256)
        stanza = _candidate(found[1], version=found[2])
    raise BuildError("kernel-unknown", f"{name} is a chain of meta packages without an end")


def _candidate(name: str, *, version: str = "") -> _Stanza:
    exact = f"{name}={version}" if version else name
    try:
        text = program.run(["apt-cache", "show", "--no-all-versions", exact])
    except BuildError as error:
        raise BuildError(
            "kernel-unknown",
            f"apt knows no package {exact}",
            hint="run apt-get update, or name a package that `apt-cache search linux-image` lists",
        ) from error
    fields: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").split("\n\n")[0].splitlines():
        key, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            fields[key.lower()] = value.strip()
    return _Stanza(
        fields.get("package", name),
        fields.get("version", version),
        fields.get("sha256", "").lower(),
        fields.get("depends", ""),
    )


def _fetch(wanted: Pin, unpacked: Path) -> None:
    try:
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".new-", dir=unpacked.parent)
    except OSError as error:
        raise HostError(
            "cache-directory",
            f"the cache cannot be written: {error.strerror}",
            where=os.fspath(unpacked.parent),
            hint="set TROTH_CACHE to a directory of yours",
        ) from None
    with scratch as name:
        place = Path(name)
        package = _download(wanted, place)
        tree = place / "tree"
        program.run(["dpkg-deb", "-x", package, tree])
        # Two builds may end up here together: whoever renames first wins, the other's copy goes.
        try:
            tree.rename(unpacked)
        except OSError:
            if not unpacked.is_dir():
                raise
            shutil.rmtree(tree)


def _download(wanted: Pin, place: Path) -> Path:
    exact = f"{wanted.package}={wanted.version}"
    try:
        # apt's sandbox user cannot write here and apt warns; the bytes are checked below anyway.
        program.run(
            ["apt-get", "-qq", "-o", "APT::Sandbox::User=", "download", exact], cwd=place
        )  # fmt: skip
    except BuildError as error:
        raise BuildError(
            "kernel-unavailable",
            f"apt cannot download {exact}: {error.message}",
            hint="run apt-get update; if the version is superseded, `troth build --update` or a "
            "snapshot mirror in apt's sources",
        ) from error
    found = sorted(place.glob("*.deb"))
    if len(found) != 1:
        raise BuildError("kernel-unavailable", f"apt brought {len(found)} files for {exact}")
    with found[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != wanted.sha256:
        raise BuildError(
            "kernel-digest",
            f"{exact} has SHA-256 {digest}, expected {wanted.sha256}",
            hint="the lock and apt's index disagree: rebuild with --update if that is intended",
        )
    return found[0]


def _unpacked_kernel(wanted: Pin, tree: Path) -> Kernel:
    images = sorted((tree / "boot").glob("vmlinuz-*"))
    if len(images) != 1:
        raise BuildError(
            "kernel-layout", f"{wanted.package} holds {len(images)} kernels in /boot, wanted one"
        )
    bases = [base for base in (tree / "lib/modules", tree / "usr/lib/modules") if base.is_dir()]
    if not bases:
        raise BuildError("kernel-layout", f"{wanted.package} holds no modules")
    found = from_paths(images[0], bases[0])
    return Kernel(
        found.release, found.vmlinuz, found.modules_dir, wanted.package, wanted.version,
        wanted.sha256,
    )  # fmt: skip

# SPDX-License-Identifier: Apache-2.0
"""Kernel modules an image needs, with what they depend on, in loading order.

Serves ``initramfs``. Debian's packages carry no modules.dep (depmod runs at
installation, which never happens here), so the order is taken from where
depmod and modpost put it: the ``.modinfo`` section of each module (``depends``
and ``softdep``), and modules.builtin with modules.builtin.modinfo for what the
kernel has inside. Modules are packed decompressed and otherwise untouched,
because the signature covers the plain file. It must never strip or change one.
"""

from __future__ import annotations

import difflib
import lzma
import os
import zlib
from typing import TYPE_CHECKING

from troth.abi import elf
from troth.errors import BuildError
from troth.image import program
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SIGNATURE_MAGIC = b"~Module signature appended~\n"
_SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
_LIMIT_BYTES = 256 << 20


@record
class KernelModule:
    """One module to pack and load.

    ``name``: the file's stem ("dm-mod"), which is also its name in the
    initramfs; ``source``: path below the module tree; ``data``: plain ELF,
    signature included; ``signed``: whether one is appended; ``why``: for
    people, "kernel module: asked for by ..." or "kernel module: dm-verity
    needs it".
    """

    name: str
    source: str
    data: bytes
    signed: bool
    why: str


@record
class Closure:
    """``modules``: in loading order; ``builtin``: wanted names the kernel has inside;
    ``soft_missing``: soft dependencies found nowhere, which loading tolerates;
    ``absent``: wanted where present, and not present; ``known``: every module
    name of this kernel, built in or not, with underscores.
    """  # noqa: D205 - the fields are the summary

    modules: tuple[KernelModule, ...]
    builtin: tuple[str, ...]
    soft_missing: tuple[str, ...]
    absent: tuple[str, ...]
    known: frozenset[str]


@record
class Wanted:
    """A module by name (``-`` and ``_`` are one) and who asked: "profile verity"."""

    name: str
    by: str
    may_be_missing: bool = False


def close(modules_dir: Path, wanted: Iterable[Wanted]) -> Closure:
    """The modules of ``wanted`` and all they depend on, dependencies first.

    The order of ``wanted`` is kept where dependencies allow. Raises
    ``BuildError``: ``module-unknown`` (with the nearest names),
    ``module-format`` (a file that is no module), ``module-cycle``.
    """
    tree = _Tree(modules_dir)
    absent = []
    for item in wanted:
        if item.may_be_missing and not tree.knows(item.name):
            absent.append(item.name)
        else:
            tree.add(item.name, f"kernel module: asked for by {item.by}", ())
    return Closure(
        modules=tuple(tree.ordered.values()),
        builtin=tuple(sorted(tree.builtin_used)),
        soft_missing=tuple(sorted(tree.soft_missing)),
        absent=tuple(absent),
        known=tree.known,
    )


def _key(name: str) -> str:
    return name.replace("-", "_")


class _Tree:
    """A module directory being walked: names to files, and what has been collected."""

    def __init__(self, modules_dir: Path) -> None:
        self._root = modules_dir
        self._files: dict[str, Path] = {}
        for directory, directories, names in os.walk(modules_dir / "kernel"):
            directories.sort()
            for name in sorted(names):
                for suffix in _SUFFIXES:
                    if name.endswith(suffix):
                        path = modules_dir / os.path.relpath(directory, modules_dir) / name
                        self._files.setdefault(_key(name.removesuffix(suffix)), path)
        if not self._files:
            raise BuildError("module-format", "no kernel modules here", where=str(modules_dir))
        self._builtin, self._builtin_aliases = _builtin(modules_dir)
        self.ordered: dict[str, KernelModule] = {}
        self.builtin_used: set[str] = set()
        self.soft_missing: set[str] = set()

    @property
    def known(self) -> frozenset[str]:
        return frozenset(self._files) | self._builtin

    def knows(self, name: str) -> bool:
        return _key(name) in self._files or _key(name) in self._builtin

    def add(self, name: str, why: str, above: tuple[str, ...]) -> None:
        key = _key(name)
        if key in self.ordered:
            return
        if key in above:
            chain = " -> ".join((*above, key))
            raise BuildError("module-cycle", f"kernel modules depend on each other: {chain}")
        path = self._files.get(key)
        if path is None:
            if key in self._builtin:
                self.builtin_used.add(name)
                return
            raise self._unknown(name, above)
        source = os.fspath(path.relative_to(self._root))
        data = _plain(path)
        for field, needed in _dependencies(data, source):
            if field == "depends":
                self.add(needed, f"kernel module: {_stem(path)} needs it", (*above, key))
            elif _key(needed) in self._files:
                self.add(needed, f"kernel module: {_stem(path)} uses it", (*above, key))
            elif _key(needed) not in self._builtin and needed not in self._builtin_aliases:
                self.soft_missing.add(needed)
        self.ordered[key] = KernelModule(
            _stem(path), source, data, data.endswith(SIGNATURE_MAGIC), why
        )

    def _unknown(self, name: str, above: tuple[str, ...]) -> BuildError:
        known = sorted({*self._files, *self._builtin})
        near = difflib.get_close_matches(_key(name), known, n=3, cutoff=0.6)
        needed_by = f", which {above[-1]} needs" if above else ""
        return BuildError(
            "module-unknown",
            f"this kernel has no module {name}{needed_by}",
            where=self._root.name,
            hint=f"nearest: {', '.join(near)}" if near else "",
        )


def _stem(path: Path) -> str:
    return path.name.partition(".ko")[0]


def _builtin(modules_dir: Path) -> tuple[frozenset[str], frozenset[str]]:
    names: set[str] = set()
    aliases: set[str] = set()
    listing = modules_dir / "modules.builtin"
    if listing.is_file():
        for line in listing.read_text("utf-8", "replace").splitlines():
            names.add(_key(os.path.basename(line.strip()).removesuffix(".ko")))
    details = modules_dir / "modules.builtin.modinfo"
    if details.is_file():
        for item in details.read_bytes().split(b"\0"):
            field, _, value = item.decode("utf-8", "replace").partition("=")
            if field.endswith(".alias"):
                aliases.add(value)
    return frozenset(names), frozenset(aliases)


def _dependencies(data: bytes, where: str) -> list[tuple[str, str]]:
    """(field, module) of what must be loaded before the module ``data``."""
    found: list[tuple[str, str]] = []
    for item in elf.section(data, ".modinfo", where=where).split(b"\0"):
        field, _, value = item.decode("utf-8", "replace").partition("=")
        if field == "depends":
            # modpost writes them in no order that holds between builds of the kernel.
            found += [("depends", name) for name in sorted(value.split(",")) if name]
        elif field == "softdep":
            before = value.partition("pre:")[2].partition("post:")[0]
            found += [("softdep", name) for name in before.split()]
    return found


def _plain(path: Path) -> bytes:
    """The decompressed module at ``path``."""
    packed = path.read_bytes()
    whole = True
    try:
        if path.name.endswith(".xz"):
            unxz = lzma.LZMADecompressor(memlimit=_LIMIT_BYTES)
            data = unxz.decompress(packed, _LIMIT_BYTES) if packed else b""
            whole = unxz.eof
        elif path.name.endswith(".zst"):
            data = program.run(["zstd", "-dcq"], stdin=packed)
        elif path.name.endswith(".gz"):
            gunzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
            data = gunzip.decompress(packed, _LIMIT_BYTES)
            whole = gunzip.eof
        else:
            data = packed
    except (lzma.LZMAError, zlib.error, EOFError) as error:
        raise BuildError(
            "module-format", f"cannot be decompressed: {error}", where=path.name
        ) from (None)
    if not whole or not elf.is_elf(data):
        raise BuildError("module-format", "not a kernel module", where=path.name)
    return data

# SPDX-License-Identifier: Apache-2.0
"""The initramfs: PID 1, its interpreter, its kernel modules, and nothing else.

Serves ``build``. Two steps, because the baked twin of the policy lists every
path of the archive, its own included: ``collect`` finds all that does not
depend on the policy's bytes, ``bake`` adds policy.json and its twin. Pack the
result with ``entry.pack``. Never packs a file without a reason, and never
anything of this machine that a closure did not ask for.

The layout, which ``docs/architecture.md`` explains: ``runtime/`` is a small
root of its own (PID 1 binds it to /run/troth/runtime), and /usr, /lib, /lib64
lead into it, so paths are the same before and after.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from troth.documents import stages
from troth.errors import BuildError
from troth.image import program
from troth.image.inputs import interpreter as python
from troth.image.packing import (
    entry,
    extension,
    launcher,
    library_closure,
    package,
    python_closure,
)
from troth.image.packing import profile as profiles
from troth.record import record
from troth.volumes import keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from troth.documents.policy import Policy
    from troth.image.inputs.interpreter import Interpreter
    from troth.image.packing.entry import Entry
    from troth.image.packing.module_closure import Closure as ModuleClosure
    from troth.image.packing.profile import Profile

RUNTIME = "runtime"
#: Where PID 1 binds the runtime; the launcher's paths lie below it.
MOUNTED_RUNTIME = "/run/troth/runtime"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
POLICY_PATH = f"{RUNTIME}/etc/troth/policy.json"
UNIT = "troth-agent.service"
PID1 = "troth.boot.init"
VERBS = "troth.cli.guest"
APP = "app"
#: Where the key worker finds keys that lie in the image.
KEYS = "keys"
#: Where programs of this machine are looked for, whatever PATH says.
PROGRAM_DIRECTORIES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")

_EMPTY = ("proc", "sys", "dev", "run", "tmp")
_STICKY = 0o1777


@record
class Request:
    """What to pack.

    ``policy`` chooses stages; ``profiles`` add data; ``modules`` is their
    kernel module closure; ``extra_python``: module names of ``[initramfs]
    python``; ``files``: the directory of ``[initramfs] files`` or None;
    ``key_files``: (name, file) of keys that lie in the image.
    """

    policy: Policy
    interpreter: Interpreter
    modules: ModuleClosure
    profiles: tuple[Profile, ...]
    extra_python: tuple[str, ...] = ()
    files: Path | None = None
    key_files: tuple[tuple[str, Path], ...] = ()


@record
class Collected:
    """Everything but policy.json and its twin; ``paths`` has those two as well, sorted.

    ``elf_files``: (path here, path in the archive) of each ELF file taken
    from this machine, ``python_files``: the same of each module of the standard
    library and of other packages, whose archive path is that of its bytecode,
    ``troth_files``: the same of troth's own modules, its init and its launcher;
    for lock and SBOM.
    """

    interpreter: Interpreter
    entries: tuple[Entry, ...]
    paths: tuple[tuple[str, str], ...]
    elf_files: tuple[tuple[str, str], ...]
    python_files: tuple[tuple[str, str], ...]
    troth_files: tuple[tuple[str, str], ...]


def collect(request: Request, *, data: Path | None = None) -> Collected:
    """All that ``request`` packs besides the baked policy.

    ``data``: the directory ``initramfs/``, default the distribution's.
    Raises ``BuildError`` of the closures, ``initramfs-budget``,
    ``initramfs-init``, ``initramfs-data``.
    """
    target = request.interpreter
    place = data or profiles.data_directory()
    modules = python_closure.close(
        target,
        _entry_modules(request),
        also=extension.of_profiles(request.profiles, target),
        packages=package.of_profiles(request.profiles),
    )
    entries = [*_skeleton(target), *_bytecode(target, modules)]
    programs = _programs(request)
    libraries = _libraries(request, modules, programs)
    binaries = [*_binaries(target, modules, libraries), *programs]
    entries += [
        entry.file(path, strip(origin), why, mode=mode) for origin, path, mode, why in binaries
    ]
    entries.append(_init(target, place))
    own = [(os.fspath(place / "init"), "init")]
    if python_closure.has_module(VERBS):
        entries.append(_launcher(target, libraries.loader.name, place))
        own.append((os.fspath(place / "launcher.S"), f"{RUNTIME}/bin/troth"))
    if _has_unit(request.policy):
        unit = _unit(place)
        entries.append(unit)
        own.append((os.fspath(_unit_file(place)), unit.path))
    entries += [
        entry.file(f"modules/{module.name}.ko", module.data, module.why)
        for module in request.modules.modules
    ]
    if not request.extra_python:
        # The budget is of what troth packs itself, not of what a manifest asks for besides.
        _check_budget(entries, request.profiles)
    entries += [
        entry.file(f"{KEYS}/{name}", _key(path), "a key, for trying things out", mode=0o400)
        for name, path in request.key_files
    ]
    if request.files is not None:
        entries += entry.tree(request.files, APP, "[initramfs] files")
    arranged = entry.arrange(entries)
    baked = entry.arrange((*entries, *_baked(target, b"", b"")))
    return Collected(
        interpreter=target,
        entries=arranged,
        paths=tuple((item.path, item.kind) for item in baked),
        elf_files=tuple((os.fspath(origin), path) for origin, path, _mode, _why in binaries),
        python_files=_sources(target, modules, of_troth=False),
        troth_files=(*own, *_sources(target, modules, of_troth=True)),
    )


def _sources(
    target: Interpreter, modules: python_closure.Closure, *, of_troth: bool
) -> tuple[tuple[str, str], ...]:
    """Python is troth's, or others': the interpreter's library, and packages of a profile."""
    return tuple(
        (os.fspath(module.origin), f"{RUNTIME}/{_library(target)}/{module.path}")
        for module in modules.modules
        if module.kind == "source"
        and (module.name.partition(".")[0] == python_closure.PACKAGE) == of_troth
    )


def bake(collected: Collected, *, policy_json: bytes, twin: str) -> tuple[Entry, ...]:
    """The complete, arranged entries: ``collected``, policy.json and ``twin`` compiled.

    ``twin``: source text of the module ``troth_baked``. Raises ``BuildError``
    ``python-compile``.
    """
    target = collected.interpreter
    (code,) = python.compile_all(
        target, [(f"/{_library(target)}/{python_closure.TWIN}.pyc", twin.encode())]
    )
    return entry.arrange((*collected.entries, *_baked(target, policy_json, code)))


def _baked(target: Interpreter, policy_json: bytes, code: bytes) -> tuple[Entry, ...]:
    return (
        entry.file(POLICY_PATH, policy_json, "the policy, as it is measured"),
        entry.file(
            f"{RUNTIME}/{_library(target)}/{python_closure.TWIN}.pyc",
            code,
            "the policy, as PID 1 reads it",
        ),
    )


def _library(target: Interpreter) -> str:
    return f"usr/lib/python{target.version}"


def entry_modules(
    policy: Policy, request_profiles: Iterable[Profile]
) -> tuple[tuple[str, str], ...]:
    """(module, who wants it) of what an image of ``policy`` runs: PID 1, its stages, the verbs."""
    wanted = {PID1: "PID 1"}
    for name, module in stages.stages_of(policy):
        wanted.setdefault(module, f"stage {name}")
    if python_closure.has_module(VERBS):
        wanted.setdefault(VERBS, "the guest's verbs")
    for item in request_profiles:
        for module in item.python:
            wanted.setdefault(module, f"profile {item.name}")
    return tuple(wanted.items())


def _entry_modules(request: Request) -> tuple[tuple[str, str], ...]:
    wanted = dict(entry_modules(request.policy, request.profiles))
    for module in request.extra_python:
        wanted.setdefault(module, "[initramfs] python")
    return tuple(wanted.items())


def _skeleton(target: Interpreter) -> list[Entry]:
    same = "the same paths before and after the move of the runtime"
    made = [
        entry.link("usr", f"{RUNTIME}/usr", same),
        entry.link("lib", f"{RUNTIME}/usr/lib", same),
        entry.link("lib64", f"{RUNTIME}/lib64", same),
        entry.link(f"{RUNTIME}/lib", "usr/lib", same),
        entry.link(
            f"{RUNTIME}/usr/bin/python3", f"python{target.version}", "the usual name of Python"
        ),
        # Without it CPython complains that it finds no exec_prefix.
        entry.directory(f"{RUNTIME}/{_library(target)}/lib-dynload", "landmark of the interpreter"),
        entry.directory("sysroot", "mount point of the next root"),
    ]
    for name in _EMPTY:
        mode = _STICKY if name == "tmp" else 0o755
        made.append(entry.directory(name, "mount point", mode=mode))
        made.append(entry.directory(f"{RUNTIME}/{name}", "mount point", mode=mode))
    return made


def _bytecode(target: Interpreter, modules: python_closure.Closure) -> list[Entry]:
    """Compiled in one subprocess, in the order of their paths."""
    wanted = [module for module in modules.modules if module.kind == "source"]
    sources = [
        (f"/{_library(target)}/{module.path}", python.require_source(module.origin))
        for module in wanted
    ]
    return [
        entry.file(f"{RUNTIME}{path}", code, module.why)
        for module, (path, _source), code in zip(
            wanted, sources, python.compile_all(target, sources), strict=True
        )
    ]


def _key(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BuildError(
            "key-file", f"cannot be read: {error.strerror}", where=os.fspath(path)
        ) from None
    if not keys.LEAST_BYTES <= len(data) <= keys.MOST_BYTES:
        raise BuildError(
            "key-file",
            f"a key has {keys.LEAST_BYTES} to {keys.MOST_BYTES} bytes, this file {len(data)}",
            where=os.fspath(path),
            hint=f"head -c {keys.LEAST_BYTES} /dev/urandom > {path.name}",
        )
    return data


def _programs(request: Request) -> list[tuple[Path, str, int, str]]:
    """(file here, path in the archive, mode, why) of programs that profiles name."""
    found = []
    for item in request.profiles:
        for name in item.programs:
            origin = shutil.which(name, path=os.pathsep.join(PROGRAM_DIRECTORIES))
            if origin is None:
                raise BuildError(
                    "program-missing",
                    f"{name} is not installed, and profile {item.name} packs it",
                    hint="scripts/setup installs what images need",
                )
            place = f"{RUNTIME}/usr/sbin/{name}"
            found.append((Path(origin).resolve(), place, 0o755, f"profile {item.name}"))
    return found


def _libraries(
    request: Request,
    modules: python_closure.Closure,
    programs: list[tuple[Path, str, int, str]],
) -> library_closure.Closure:
    return library_closure.close(
        request.interpreter.path,
        [
            *((item.origin, item.name) for item in modules.modules if item.kind == "extension"),
            *((origin, os.path.basename(path)) for origin, path, _mode, _why in programs),
        ],
        [(name, f"profile {item.name}") for item in request.profiles for name in item.libraries],
    )


def _binaries(
    target: Interpreter, modules: python_closure.Closure, libraries: library_closure.Closure
) -> list[tuple[Path, str, int, str]]:
    """(file here, path in the archive, mode, why) of interpreter, loader, extensions, libraries."""
    loader = libraries.loader
    wanted = [
        (target.path, f"{RUNTIME}/usr/bin/python{target.version}", 0o755, "the interpreter"),
        (loader.origin, f"{RUNTIME}{loader.name}", 0o755, loader.why),
    ]
    wanted += [
        (item.origin, f"{RUNTIME}/{_library(target)}/{item.path}", 0o644, item.why)
        for item in modules.modules
        if item.kind == "extension"
    ]
    wanted += [
        (item.origin, f"{RUNTIME}/{LIBRARIES}/{item.name}", 0o644, item.why)
        for item in libraries.libraries
    ]
    return wanted


def strip(path: Path) -> bytes:
    """The ELF file at ``path`` without what only debuggers and linkers read."""
    with tempfile.TemporaryDirectory(prefix="troth-strip-") as name:
        out = Path(name) / "stripped"
        program.run(["strip", "--strip-unneeded", "-o", out, path])
        return out.read_bytes()


def _data_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(
            "initramfs-data", f"cannot be read: {error}", where=os.fspath(path)
        ) from None


def _init(target: Interpreter, data: Path) -> Entry:
    text = _data_text(data / "init").replace("@PYTHON@", f"/usr/bin/python{target.version}")
    if not text.startswith(f"#!/usr/bin/python{target.version} -ISB\n"):
        raise BuildError(
            "initramfs-init", "must begin with #!@PYTHON@ -ISB", where=os.fspath(data / "init")
        )
    return entry.file("init", text.encode(), "what the kernel runs", mode=0o755)


def _has_unit(policy: Policy) -> bool:
    return stages.has_agent(policy) and policy.handover.manager == "systemd"


def _unit_file(data: Path) -> Path:
    return data.parent / "systemd" / UNIT


def _unit(data: Path) -> Entry:
    text = _data_text(_unit_file(data))
    return entry.file(f"{RUNTIME}/etc/troth/{UNIT}", text.encode(), "the agent's systemd unit")


def _launcher(target: Interpreter, loader: str, data: Path) -> Entry:
    paths = launcher.Paths(
        loader=f"{MOUNTED_RUNTIME}{loader}",
        libraries=f"{MOUNTED_RUNTIME}/{LIBRARIES}",
        python=f"{MOUNTED_RUNTIME}/usr/bin/python{target.version}",
        script=f"{MOUNTED_RUNTIME}/{_library(target)}/{VERBS.replace('.', '/')}.pyc",
    )
    code = launcher.assemble(_data_text(data / "launcher.S"), paths)
    return entry.file(f"{RUNTIME}/bin/troth", code, "the guest's verbs", mode=0o755)


def _check_budget(entries: Iterable[Entry], wanted: Iterable[Profile]) -> None:
    chosen = tuple(wanted)
    size_bytes = sum(len(item.data) for item in entries)
    budget_bytes = sum(item.budget_bytes for item in chosen)
    if size_bytes > budget_bytes:
        raise BuildError(
            "initramfs-budget",
            f"{size_bytes} bytes packed, the profiles {', '.join(item.name for item in chosen)} "
            f"allow {budget_bytes}",
            hint="`troth inspect` lists what is in; raise budget_bytes of a profile on purpose",
        )

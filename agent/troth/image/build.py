# SPDX-License-Identifier: Apache-2.0
"""From a manifest to a bundle directory: the order of the work, each part in its own room.

Everything is made in a private directory beside the output and moved into
place at the end, so a failed build leaves no half bundle.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from troth.documents import policy_json
from troth.documents.policy import Verity
from troth.errors import BuildError, ManifestError
from troth.image import (
    launch_files,
    policy_compile,
    provenance,
    reference,
    volume_warnings,
    workload_entries,
)
from troth.image.inputs import interpreter, kernel
from troth.image.packing import entry, initramfs, module_closure, profile
from troth.image.roots import root, root_lint
from troth.record import record, replace

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Protocol

    from troth.documents.policy import Policy
    from troth.documents.sbom import Package
    from troth.image.inputs.interpreter import Interpreter
    from troth.image.inputs.kernel import Kernel
    from troth.image.inputs.manifest_records import Manifest
    from troth.image.launch_files import Launches
    from troth.image.packing.entry import Entry
    from troth.image.roots.root import RootImage

    class Progress(Protocol):
        """Who is told how far the work is (``cli.terminal``)."""

        def step(self, text: str) -> AbstractContextManager[None]:
            """A named piece of work."""

        def line(self, text: str) -> None:
            """A sentence that stays."""

        def bar(self, text: str) -> Callable[[int, int], None]:
            """A function for (done, total) bytes."""


#: x86 COMMAND_LINE_SIZE (arch/x86/include/asm/setup.h) without its final NUL.
_MAX_CMDLINE_BYTES = 2047
_KINDS = {"file": "f", "directory": "d", "link": "l"}


@record
class Made:
    """What one build used and made, for ``account`` to write down.

    ``origins``: (path here, path in the initramfs) of each file of this machine
    but troth's own, which are ``troth_files``; ``root_packages``: installed in the root;
    ``unsigned_modules``: packed without a signature.
    """

    manifest: Manifest
    kernel: Kernel
    interpreter: Interpreter
    policy: Policy
    policy_bytes: bytes
    workload: bytes | None
    entries: tuple[Entry, ...]
    images: tuple[tuple[str, RootImage], ...]
    origins: tuple[tuple[str, str], ...]
    troth_files: tuple[tuple[str, str], ...]
    root_packages: tuple[Package, ...]
    unsigned_modules: tuple[str, ...]
    warnings: tuple[str, ...]
    launches: Launches


def make(
    manifest: Manifest,
    stage: Path,
    *,
    progress: Progress,
    kernel_pin: kernel.Pin | None = None,
) -> Made:
    """Fill ``stage`` with everything but what ``account`` writes about it."""
    with progress.step("kernel"):
        source = manifest.image.kernel
        if source.package:
            found = kernel.from_package(f"debian:{source.package}", pin=kernel_pin)
        elif source.vmlinuz is None or source.modules is None:
            raise BuildError(
                "kernel-modules",
                "a kernel given by path needs its module tree",
                where=manifest.where("image", "kernel"),
                hint='write kernel = { vmlinuz = "...", modules = "..." }',
            )
        else:
            found = kernel.from_paths(source.vmlinuz, source.modules)
        shutil.copyfile(found.vmlinuz, stage / "vmlinuz")
    python = interpreter.identify(Path(manifest.image.python or interpreter.DEFAULT))
    with tempfile.TemporaryDirectory(prefix="work.", dir=stage) as work:
        images = _images(manifest, stage, kernel=found, work=Path(work), progress=progress)
        lint = _lint(manifest, images)
        policy, modules, profiles = _policy(manifest, found, images, manager=lint.manager)
        with progress.step("initramfs"):
            collected = initramfs.collect(
                initramfs.Request(
                    policy=policy,
                    interpreter=python,
                    modules=modules,
                    profiles=profiles,
                    extra_python=manifest.initramfs.python,
                    files=manifest.initramfs.files,
                    key_files=manifest.key_files,
                )
            )
            policy_bytes = policy_json.print_(policy)
            names = [f"{_KINDS[kind]} {path}" for path, kind in collected.paths]
            entries = initramfs.bake(
                collected, policy_json=policy_bytes, twin=policy_compile.twin(policy_bytes, names)
            )
            data = entry.pack(entries, compression=manifest.image.compression)
        (stage / "initramfs").write_bytes(data)
        (stage / "cmdline").write_text(policy.cmdline, encoding="ascii")
        (stage / "policy.json").write_bytes(policy_bytes)
        if manifest.root is None:
            workload_entries.check_program(
                entries,
                manifest.handover.supervise[0],
                where=manifest.where("handover", "supervise"),
            )
        launches = launch_files.make(manifest, stage, policy=policy, progress=progress)
        with progress.step("workload digest"):
            workload = _workload(manifest, images, entries)
        # Contents are gone with the work directory: what is asked of them is asked here.
        root_packages = tuple(
            package
            for name, image in images
            if name == "root"
            for package in provenance.root_packages(image.tree)
        )
        for _name, image in images:
            image.tree.close()
    return Made(
        manifest=manifest,
        kernel=found,
        interpreter=python,
        policy=policy,
        policy_bytes=policy_bytes,
        workload=workload,
        entries=entries,
        images=images,
        origins=(*collected.elf_files, *collected.python_files),
        troth_files=collected.troth_files,
        root_packages=root_packages,
        unsigned_modules=tuple(item.name for item in modules.modules if not item.signed),
        warnings=(*lint.warnings, *launches.warnings, *volume_warnings.warnings(policy)),
        launches=launches,
    )


def image_name(volume: str) -> str:
    """The bundle's file for ``volume``."""
    return "root.img" if volume == "root" else f"volume-{volume}.img"


def _images(
    manifest: Manifest, stage: Path, *, kernel: Kernel, work: Path, progress: Progress
) -> tuple[tuple[str, RootImage], ...]:
    """(volume name, image) of the root, where there is one, and every volume."""
    made = []
    epoch_s = root.source_date_epoch()
    if manifest.root is not None:
        points = [*root.ROOT_MOUNT_POINTS]
        points += [(volume.mount, 0o755) for volume in manifest.volumes]
        points += [(volume.mount, 0o755) for volume in manifest.encrypted if volume.mount]
        points += [(path, 0o755) for path in manifest.root.overlay_paths if path != "/"]
        request = root.RootRequest(
            source=manifest.root.source,
            image_name=manifest.image.name,
            volume="root",
            file_system=manifest.root.file_system,
            compression=manifest.root.compression,
            mount_points=tuple(points),
            kernel=kernel if manifest.root.modules else None,
            mtime_s=epoch_s,
            where=manifest.where("root", "source"),
        )
        made.append(("root", _image(request, stage, work=work, progress=progress)))
    for volume in manifest.volumes:
        request = root.RootRequest(
            source=volume.source,
            image_name=manifest.image.name,
            volume=volume.name,
            mtime_s=epoch_s,
            where=manifest.where("volume", volume.index, "source"),
        )
        made.append((volume.name, _image(request, stage, work=work, progress=progress)))
    return tuple(made)


def _image(request: root.RootRequest, stage: Path, *, work: Path, progress: Progress) -> RootImage:
    place = work / request.volume
    place.mkdir()
    with progress.step(f"image of {request.volume}"):
        return root.make_root(
            request,
            stage / image_name(request.volume),
            work=place,
            progress=progress.bar(f"hash tree of {request.volume}"),
        )


def _lint(manifest: Manifest, images: tuple[tuple[str, RootImage], ...]) -> root_lint.Lint:
    hand = manifest.handover
    if manifest.root is None:
        return root_lint.Lint(manager="none", warnings=())
    return root_lint.lint(
        dict(images)["root"].tree,
        init=hand.init or hand.supervise[0],
        workload=manifest.workload,
        manager=hand.manager,
        hostname=manifest.instance is not None and manifest.instance.hostname,
        where=str(manifest.path),
    )


def _policy(
    manifest: Manifest,
    found: Kernel,
    images: tuple[tuple[str, RootImage], ...],
    *,
    manager: str,
) -> tuple[Policy, module_closure.Closure, tuple[profile.Profile, ...]]:
    """The policy, with the modules that the stages it asks for need."""
    places = {volume.name: (volume.device, volume.mount) for volume in manifest.volumes}
    places["root"] = ("serial:root", "/")
    draft = policy_compile.compile_policy(
        manifest,
        kernel_release=found.release,
        modules=(),
        volumes=tuple(
            (name, *places[name], image.file_system, image.options, _verity(image, found.release))
            for name, image in images
        ),
        manager=manager,
    )
    _check_cmdline(manifest, draft)
    profiles = profile.profiles_of(draft)
    platform = profile.load_platform(manifest.image.platform)
    closure = module_closure.close(
        found.modules_dir,
        profile.kernel_modules(draft, profiles, platform, manifest.image.load),
    )
    _check_modules(manifest, closure)
    names = tuple(item.name for item in closure.modules)
    return replace(draft, modules=names), closure, profiles


def _check_cmdline(manifest: Manifest, policy: Policy) -> None:
    """Refuse a command line that the kernel would cut, in any form it is accepted in."""
    longest = reference.longest_cmdline_bytes(policy)
    if longest > _MAX_CMDLINE_BYTES:
        raise BuildError(
            "cmdline-length",
            f"the longest accepted command line has {longest} bytes, and the kernel keeps"
            f" {_MAX_CMDLINE_BYTES}",
            where=manifest.where("image", "cmdline"),
            hint="shorten [image] cmdline or the values of cmdline_variable",
        )


def _check_modules(manifest: Manifest, closure: module_closure.Closure) -> None:
    """Refuse what would open the kernel again: unsigned modules, parameters left to the host."""
    unsigned = [item.name for item in closure.modules if not item.signed]
    if unsigned and manifest.handover.lockdown != "none":
        raise BuildError(
            "modules-unsigned",
            f"{unsigned[0]} carries no signature, which a locked-down kernel will not load (S33)",
            where=manifest.where("image", "kernel"),
            hint='take a kernel with signed modules, or [handover] lockdown = "none"',
        )
    for key in manifest.image.cmdline_variable:
        prefix = key.partition(".")[0].replace("-", "_")
        if prefix in closure.known:
            # The kernel hands name.parameter to that module, built in or loaded later.
            raise ManifestError(
                "manifest-value",
                f"{key!r} would let the host set a parameter of the kernel's {prefix}",
                where=manifest.where("image", "cmdline_variable"),
            )


def _verity(image: RootImage, kernel_release: str) -> Verity:
    made = image.verity
    if made.superblock_block is None:
        raise BuildError("verity-superblock-missing", "the image was made without a superblock")
    return Verity(
        root_hash=made.root_hash.hex(),
        salt=made.superblock.salt.hex(),
        uuid=made.superblock.uuid_text,
        data_blocks=made.superblock.data_blocks,
        superblock_block=made.superblock_block,
        block_bytes=made.superblock.data_block_bytes,
        algorithm=made.superblock.algorithm,
        options=policy_compile.verity_options(kernel_release),
    )


def _workload(
    manifest: Manifest, images: tuple[tuple[str, RootImage], ...], entries: tuple[Entry, ...]
) -> bytes | None:
    if not manifest.workload:
        return None
    if manifest.root is None:
        return workload_entries.of_initramfs(
            entries, manifest.workload, where=manifest.where("measure", "workload")
        )
    return workload_entries.of_root(dict(images)["root"].tree, manifest.workload)

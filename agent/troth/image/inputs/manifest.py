# SPDX-License-Identifier: Apache-2.0
"""troth.toml: what the image builder asks for, as typed records.

``load`` reads the text once and refuses what it does not know; it looks at no
other file, so that a manifest means the same wherever it is read. The keys are
those of the design and, beside them:

``[image]`` ``compression`` of the initramfs ("none", "lz4", "zstd");
``platform`` ("virtio"): which machine's drivers are packed; ``cmdline``: words
added to the measured command line; ``cmdline_variable``: keys that the host may
set, each to one of a fixed list of words (for the workload: no kernel,
systemd, dracut or troth key can be opened this way); ``acpi`` ("on", "off");
``igvm``: make IGVM files.
``[root]`` ``file_system`` ("erofs", "squashfs", "ext4") and ``compression`` of an
image made from a directory or tar.
``[handover]`` ``group`` and ``grace_s`` (seconds between SIGTERM and SIGKILL) of
a supervised workload; ``modules_disabled``: no module can be loaded after the
handover; ``lockdown``: mode of the kernel lockdown.
``[fail]`` ``action`` of a refused boot; ``deadline_s`` of the whole boot up to
the handover; ``device_timeout_s`` of the wait for disks.
``[instance]``: what a launch may choose for one guest; see ``manifest_instance``.
``[network]``: the network before the handover; see ``manifest_network``.
``[attest]`` ``group``: who may use the agent's socket; ``raw_report_data``: who
may choose REPORT_DATA itself; ``extend``: who may add events of its own;
``quote``: whether evidence holds a quote of the TPM.
``[launch]``: see ``manifest_launch``; ``[[broker]]`` and encrypted volumes:
``manifest_keys``.
``[initramfs]`` ``python``: further Python modules to pack, with all they
import, for workloads that run from the initramfs.

Keys whose work belongs to a later version parse, and are then refused with
``not-in-this-version``.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from troth.documents.policy import NEVER, RAW_GROUP, RAW_ROOT
from troth.documents.toml_source import Table
from troth.errors import ManifestError
from troth.image.inputs import (
    manifest_instance,
    manifest_keys,
    manifest_launch,
    manifest_network,
)
from troth.image.inputs import manifest_rules as rules
from troth.image.inputs.manifest_records import (
    Attest,
    Fail,
    Handover,
    Image,
    Initramfs,
    KernelSource,
    Manifest,
    Root,
    Tee,
    Volume,
)
from troth.image.inputs.manifest_source import read_source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from troth.image.inputs.manifest_keys import Sealed

#: The initramfs compression where the manifest names none; docs/performance.md says why.
DEFAULT_COMPRESSION = "lz4"
DEFAULT_DEADLINE_S = 300
DEFAULT_DEVICE_TIMEOUT_S = 30
DEFAULT_GRACE_S = 10
NOBODY = 65534

ROOT_COMPRESSIONS = {
    "erofs": ("none", "lz4", "lz4hc"),
    "squashfs": ("none", "gzip", "lz4", "xz", "zstd"),
    "ext4": ("none",),
}

_KEYS = {
    "image": (
        "name", "svn", "kernel", "igvm", "load", "python", "compression", "platform", "cmdline",
        "cmdline_variable", "acpi",
    ),
    "root": (
        "source", "overlay", "overlay_paths", "modules", "file_system", "compression", "key",
        "key_file", "encryption", "uuid",
    ),
    "handover": (
        "init", "supervise", "user", "group", "grace_s", "manager", "modules_disabled", "lockdown",
    ),
    "initramfs": ("files", "python"),
    "measure": ("workload",),
    "tee": ("snp", "vtpm", "vtpm_kind"),
    "volume": ("name", "format", "source", "mount", "device", *manifest_keys.VOLUME_KEYS),
    "broker": manifest_keys.BROKER_KEYS,
    "fail": ("detail", "action", "deadline_s", "device_timeout_s"),
    "attest": ("group", "raw_report_data", "extend", "quote"),
    "launch": manifest_launch.KEYS,
    "instance": manifest_instance.KEYS,
    "network": manifest_network.KEYS,
}  # fmt: skip
#: Tables that may stand there several times.
_ARRAYS = ("volume", "broker")


def load(path: Path) -> Manifest:
    """The manifest at ``path``.

    Raises ``ManifestError``: ``manifest-absent``, ``manifest-syntax``,
    ``manifest-unknown-key``, ``manifest-missing-key``, ``manifest-type``,
    ``manifest-value``, ``manifest-conflict``, ``not-in-this-version``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ManifestError(
            "manifest-absent", f"cannot be read: {error.strerror}", where=str(path)
        ) from None
    return parse(data, path)


def parse(data: bytes, path: Path) -> Manifest:
    """The manifest in ``data``; ``path`` names it and gives its relative paths their base."""
    source = read_source(data, str(path))
    top = Table(source, source.tree, (), tuple(_KEYS))
    later = rules.Later()
    base = path.parent
    tables = {name: top.table(name, keys) for name, keys in _KEYS.items() if name not in _ARRAYS}
    listed = top.tables("volume", _KEYS["volume"])
    top.need("image")
    image = _image(tables["image"], base)
    root = _root(tables["root"], base) if top.has("root") else None
    handover = _handover(tables["handover"], has_root=root is not None)
    initramfs = _initramfs(tables["initramfs"], base, has_root=root is not None)
    rules.check_volumes(
        listed, has_root=root is not None, upper=root.overlay_volume if root else ""
    )
    volumes = tuple(
        _volume(table, base, index) for index, table in enumerate(listed) if _is_verity(table)
    )
    sealed = _sealed(tables["root"], listed, base, image=image.name, root=root)
    brokers = tuple(
        (table, manifest_keys.broker(table, base))
        for table in top.tables("broker", _KEYS["broker"])
    )
    if root is not None:
        rules.check_overlay(tables["root"], [(item.table, item.volume) for item in sealed])
    tee = _tee(tables["tee"], later)
    fail = _fail(tables["fail"])
    launch = manifest_launch.launch(tables["launch"], base, image=image, snp=tee.snp)
    rules.check_workload(
        tables["measure"],
        listed,
        overlay_paths=tables["root"].texts("overlay_paths"),
    )
    later.refuse()
    rules.check_tee(tables["tee"], tables["fail"])
    instance = (
        manifest_instance.instance(tables["instance"], snp=tee.snp) if top.has("instance") else None
    )
    manifest_keys.check_together(
        sealed,
        brokers,
        snp=tee.snp,
        has_network=top.has("network"),
        instance_brokers=instance.brokers if instance else (),
    )
    return Manifest(
        path=path,
        image=image,
        root=root,
        handover=handover,
        initramfs=initramfs,
        workload=tables["measure"].texts("workload"),
        tee=tee,
        volumes=volumes,
        fail=fail,
        attest=_attest(tables["attest"], tee),
        instance=instance,
        network=(
            manifest_network.network(tables["network"], instance, deadline_s=fail.deadline_s)
            if top.has("network")
            else None
        ),
        launch=launch,
        encrypted=tuple(item.volume for item in sealed),
        brokers=tuple(one for _table, one in brokers),
        key_files=tuple(
            {item.uri.name: item.key_file for item in sealed if item.key_file is not None}.items()
        ),
        source=source,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _image(table: Table, base: Path) -> Image:
    table.need("name")
    table.need("kernel")
    return Image(
        name=rules.name(table, "name"),
        svn=table.integer("svn", 0, minimum=0, maximum=2**32 - 1),
        kernel=_kernel(table, base),
        load=rules.words(table, "load", rules.MODULE, "names of kernel modules"),
        python=rules.absolute(table, "python") if table.has("python") else "",
        compression=table.text("compression", DEFAULT_COMPRESSION, allowed=("none", "lz4", "zstd")),
        platform=table.text("platform", "virtio", allowed=("virtio",)),
        cmdline=rules.cmdline(table, "cmdline"),
        cmdline_variable=rules.cmdline_variable(table, "cmdline_variable"),
        acpi=table.text("acpi", "on", allowed=("on", "off")),
        igvm=table.boolean("igvm", default=False),
    )


def _kernel(table: Table, base: Path) -> KernelSource:
    if isinstance(table.tree["kernel"], dict):
        paths = table.table("kernel", ("vmlinuz", "modules"))
        paths.need("vmlinuz")
        return KernelSource(
            package="",
            vmlinuz=base / paths.text("vmlinuz"),
            modules=base / paths.text("modules") if paths.has("modules") else None,
        )
    text = table.text("kernel")
    package = text.removeprefix("debian:")
    if package == text or not rules.PACKAGE.fullmatch(package):
        raise table.fail(
            "kernel",
            f"is no kernel source: {text!r}",
            hint='write "debian:PACKAGE" or { vmlinuz = "...", modules = "..." }',
        )
    return KernelSource(package=package, vmlinuz=None, modules=None)


def _root(table: Table, base: Path) -> Root:
    table.need("source")
    overlay = table.text("overlay", "tmpfs")
    paths = table.texts("overlay_paths")
    if paths:
        for path in paths:
            rules.check_absolute(table, "overlay_paths", path, root_allowed=True)
        rules.check_apart(table, "overlay_paths", paths)
    file_system = table.text("file_system", "erofs", allowed=tuple(ROOT_COMPRESSIONS))
    return Root(
        source=base / table.text("source"),
        overlay=overlay,
        overlay_paths=paths or (() if overlay == "none" else ("/",)),
        modules=table.boolean("modules", default=False),
        file_system=file_system,
        compression=table.text("compression", "none", allowed=ROOT_COMPRESSIONS[file_system]),
    )


def _handover(table: Table, *, has_root: bool) -> Handover:
    supervise = table.texts_repeated("supervise")
    rules.check_handover(table, has_root=has_root)
    init = ""
    user = group = 0
    if supervise:
        rules.check_absolute(table, "supervise", supervise[0])
        user = table.integer("user", NOBODY, minimum=1, maximum=2**32 - 2)
        group = table.integer("group", user, minimum=1, maximum=2**32 - 2)
    else:
        init = rules.absolute(table, "init") if table.has("init") else "/sbin/init"
    return Handover(
        init=init,
        supervise=supervise,
        user=user,
        group=group,
        grace_s=table.integer("grace_s", DEFAULT_GRACE_S, minimum=0, maximum=3600),
        manager=table.text("manager", "none" if supervise else "", allowed=("systemd", "none")),
        modules_disabled=table.boolean("modules_disabled", default=False),
        lockdown=table.text(
            "lockdown", "integrity", allowed=("integrity", "confidentiality", "none")
        ),
    )


def _initramfs(table: Table, base: Path, *, has_root: bool) -> Initramfs:
    for key in ("files", "python"):
        if table.has(key) and has_root:
            raise table.fail(
                key,
                "is for images without [root]: the initramfs is gone after the handover",
                code="manifest-conflict",
            )
    return Initramfs(
        files=base / table.text("files") if table.has("files") else None,
        python=rules.words(table, "python", rules.PYTHON_MODULE, "names of Python modules"),
    )


def _is_verity(table: Table) -> bool:
    return rules.volume_format(table) == "verity"


def _volume(table: Table, base: Path, index: int) -> Volume:
    return Volume(
        name=table.text("name"),
        source=base / table.text("source"),
        mount=rules.absolute(table, "mount"),
        device=rules.device(table, "device", default=f"serial:{table.text('name')}"),
        index=index,
    )


def _sealed(
    root_table: Table, listed: Sequence[Table], base: Path, *, image: str, root: Root | None
) -> tuple[Sealed, ...]:
    """The encrypted disk around the root, where there is one, and the encrypted volumes."""
    around = None if root is None else manifest_keys.around_root(root_table, base, image=image)
    upper = root.overlay_volume if root else ""
    others = (
        manifest_keys.volume(table, base, image=image, overlay=upper)
        for table in listed
        if not _is_verity(table)
    )
    return (*(() if around is None else (around,)), *others)


def _tee(table: Table, later: rules.Later) -> Tee:
    snp = table.text("snp", "required", allowed=("required", "simulated", "none"))
    kind = table.text("vtpm_kind", "host", allowed=("svsm", "paravisor", "host"))
    if kind != "host":
        later.note(table.fail("vtpm_kind", ""), f"a TPM of kind {kind!r}")
    return Tee(
        snp=snp,
        vtpm=table.text("vtpm", "required", allowed=("required", "optional", "none")),
        vtpm_kind=kind,
    )


def _fail(table: Table) -> Fail:
    deadline_s = table.integer("deadline_s", DEFAULT_DEADLINE_S, minimum=1, maximum=86400)
    wait_s = table.integer(
        "device_timeout_s",
        min(DEFAULT_DEVICE_TIMEOUT_S, deadline_s),
        minimum=1,
        maximum=deadline_s,
    )
    return Fail(
        action=table.text("action", "poweroff", allowed=("poweroff", "reboot", "halt")),
        detail=table.text("detail", "public", allowed=("public", "console")),
        deadline_s=deadline_s,
        device_timeout_s=wait_s,
    )


def _attest(table: Table, tee: Tee) -> Attest:
    return Attest(
        group=table.integer("group", 0, minimum=0, maximum=2**32 - 2),
        raw_report_data=table.text("raw_report_data", NEVER, allowed=(NEVER, RAW_ROOT, RAW_GROUP)),
        extend=rules.extend_rules(table, "extend"),
        quote=rules.quote(table, tee),
    )

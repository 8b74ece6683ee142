# SPDX-License-Identifier: Apache-2.0
"""What the values of a manifest must be, alone and together.

Serves ``image.inputs.manifest`` only. Every refusal names the key and its line; none
looks at the file system.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from troth.documents.toml_source import nearest
from troth.errors import ManifestError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from troth.documents.policy_keys import Encrypted
    from troth.documents.toml_source import Table
    from troth.image.inputs.manifest_records import Tee

NAME = re.compile(r"[a-z0-9-]{1,20}")
MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
PYTHON_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
CPU_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
MEMORY = re.compile(r"[1-9][0-9]{0,6}[MG]")

# Mount points travel through mount options and /proc/mounts, where these would need escapes.
_PATH = re.compile(r"/[^\s\\,:\"'\x00-\x20\x7f]*")
_PLAIN_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,63}")
_VARIABLE = re.compile(r"([a-z][a-z0-9_-]{0,31})\.[a-z0-9][a-z0-9._-]{0,31}")
_BAKED_WORD = re.compile(r"[!-~]{1,256}")
_DEVICE_VALUES = {
    "serial": re.compile(r"[A-Za-z0-9._-]{1,20}"),
    "PARTUUID": re.compile(r"[0-9A-Fa-f-]{8,36}"),
    "PARTLABEL": re.compile(r"[!-.0-~]{1,36}"),
    "LABEL": re.compile(r"[!-.0-~]{1,36}"),
    "UUID": re.compile(r"[0-9A-Fa-f-]{8,36}"),
}
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.(service|scope)")
_RESERVED_NAMES = ("root", "instance")
_KERNEL_MOUNTS = ("/proc", "/sys", "/dev", "/run")

#: Prefixes of dotted command line keys that belong to the kernel or to an init.
#: A word ``module.parameter`` also reaches any built-in module of that name:
#: The build adds the module names of the kernel that is packed.
# fmt: off
RESERVED_PREFIXES = frozenset({
    "acpi", "acpiphp", "apparmor", "audit", "bluetooth", "clocksource", "cpufreq", "cpuidle",
    "cryptomgr", "debug", "dm", "dm-mod", "dm_mod", "dyndbg", "efi", "ehci_hcd", "firmware_class",
    "fs", "fsck", "hugetlb", "ima", "initcall", "intel_idle", "ipe", "ipv6", "kdb", "kernel",
    "keyboard", "kgdboc", "kgdbts", "ksm", "kunit", "kvm", "libata", "locale", "lockdown", "lsm",
    "luks", "mce", "md_mod", "mitigations", "module", "mousedev", "nfs", "nmi_watchdog",
    "ohci_hcd", "panic", "pci", "pcie_aspm", "pcmcia", "plymouth", "printk", "processor",
    "psmouse", "pstore", "quotacheck", "random", "rcu", "rcupdate", "rcutorture", "rcutree", "rd",
    "rootfs", "sched", "scsi_mod", "security", "selinux", "srcu", "srcutree", "sysrq", "systemd",
    "tcp", "thermal", "tpm", "tpm_tis", "tracing", "troth", "tsc", "udev", "uhci_hcd", "usb",
    "usbcore", "vconsole", "vfio", "virtio", "virtio_mmio", "vt", "watchdog", "workqueue", "x86",
    "xen", "xhci_hcd", "zswap",
})
# fmt: on
# Words of these beginnings reach PID 1 as arguments or environment, or replace it.
_REFUSED_BAKED = ("PYTHON", "LD_", "GLIBC_", "init=", "rdinit=", "initrd=", "--")


class Later:
    """Keys that are right but belong to a later version; refused once all else has parsed."""

    def __init__(self) -> None:
        self._first: ManifestError | None = None

    def note(self, at: UsageError, needs: str) -> None:
        """Remember ``needs`` with the line of ``at``; the first one is reported."""
        if self._first is None:
            self._first = ManifestError(
                "not-in-this-version", f"not in this version: needs {needs}", where=at.where
            )

    def refuse(self) -> None:
        """Raise what was noted."""
        if self._first is not None:
            raise self._first


def name(table: Table, key: str) -> str:
    """An image or volume name: 1 to 20 of a-z 0-9 -."""
    value = table.text(key)
    if not NAME.fullmatch(value):
        raise table.fail(key, f"must be 1 to 20 of a-z 0-9 - but is {value!r}")
    return value


def check_absolute(table: Table, key: str, path: str, *, root_allowed: bool = False) -> None:
    """Refuse a path that is not absolute, normalised and free of odd characters."""
    normal = posixpath.normpath(path)
    if not _PATH.fullmatch(path) or path != normal or path.startswith("//"):
        hint = f'write "{normal}"' if _PATH.fullmatch(normal) else ""
        raise table.fail(key, f"must be an absolute, normalised path, not {path!r}", hint=hint)
    if path == "/" and not root_allowed:
        raise table.fail(key, "must not be /")


def absolute(table: Table, key: str) -> str:
    """The absolute path at ``key``, which must be there."""
    table.need(key)
    path = table.text(key)
    check_absolute(table, key, path)
    return path


def _inside(path: str, other: str) -> bool:
    """Whether ``path`` is ``other`` or lies below it."""
    return (path.rstrip("/") + "/").startswith(other.rstrip("/") + "/")


def _overlap(one: str, other: str) -> bool:
    return _inside(one, other) or _inside(other, one)


def check_apart(table: Table, key: str, paths: Sequence[str]) -> None:
    """Refuse paths of which one is inside another."""
    for index, path in enumerate(paths):
        for other in paths[:index]:
            if _overlap(path, other):
                raise table.fail(key, f"overlap: {other!r} and {path!r}", code="manifest-conflict")


def cmdline(table: Table, key: str) -> tuple[str, ...]:
    """Extra words of the measured command line, each key at most once."""
    baked = tuple(table.text(key).split(" ")) if table.has(key) else ()
    seen = set()
    for word in baked:
        if not _BAKED_WORD.fullmatch(word) or '"' in word:
            raise table.fail(key, "must be words of plain ASCII with one space between them")
        if word.startswith(_REFUSED_BAKED):
            raise table.fail(key, f"must not hold {word!r}: it would steer or replace PID 1")
        name_of_word = word.partition("=")[0].replace("-", "_")
        if name_of_word in seen:
            raise table.fail(key, f"sets {name_of_word!r} twice")
        seen.add(name_of_word)
    return baked


def cmdline_variable(table: Table, key: str) -> dict[str, tuple[str, ...]]:
    """Command line keys the host may set, each with the words it may take."""
    if not table.has(key):
        return {}
    tree = table.tree[key]
    if not isinstance(tree, dict):
        raise table.fail(key, 'must be a table like { "app.mode" = ["a", "b"] }')
    variables = table.table(key, tuple(tree))
    found = {}
    for variable in tree:
        shape = _VARIABLE.fullmatch(variable)
        if shape is None or shape.group(1) in RESERVED_PREFIXES:
            raise variables.fail(
                variable,
                "cannot be variable: only keys of the workload can",
                hint='a key has the form "app.mode", its first part unknown to kernel and init',
            )
        values = variables.texts(variable)
        bad = [word for word in values if not _PLAIN_WORD.fullmatch(word)]
        if bad or not values:
            raise variables.fail(variable, "must list plain words")
        found[variable] = values
    return found


def numbers(table: Table, key: str, *, minimum: int, maximum: int) -> tuple[int, ...]:
    """One integer or an array of distinct ones."""
    value = table.tree.get(key, [])
    items = value if isinstance(value, list) else [value]
    found: list[int] = []
    for item in items:
        if type(item) is not int or not minimum <= item <= maximum or item in found:
            raise table.fail(key, f"must be integers within {minimum} and {maximum}, each once")
        found.append(item)
    return tuple(found)


def words(table: Table, key: str, pattern: re.Pattern[str], wanted: str) -> tuple[str, ...]:
    """Distinct texts that are all of the form ``pattern``, called ``wanted`` in errors."""
    return _matching(table, key, table.texts(key), pattern, wanted)


def one_or_more(table: Table, key: str, pattern: re.Pattern[str], wanted: str) -> tuple[str, ...]:
    """As ``words``; a single text stands for an array of one."""
    single = isinstance(table.tree.get(key), str)
    found = (table.text(key),) if single else table.texts(key)
    return _matching(table, key, found, pattern, wanted)


def _matching(
    table: Table, key: str, found: tuple[str, ...], pattern: re.Pattern[str], wanted: str
) -> tuple[str, ...]:
    for word in found:
        if not pattern.fullmatch(word):
            raise table.fail(key, f"must hold {wanted}, not {word!r}")
    return found


def check_handover(table: Table, *, has_root: bool) -> None:
    """``init`` or ``supervise``, and what belongs to which."""
    supervises = table.has("supervise")
    if supervises and table.has("init"):
        raise table.fail("init", "and supervise exclude each other", code="manifest-conflict")
    if supervises and not table.tree["supervise"]:
        raise table.fail("supervise", "must name a program")
    if not supervises and not has_root:
        raise table.fail(
            "supervise",
            "is missing: without [root] there is no other init",
            code="manifest-missing-key",
            hint='write [handover] supervise = ["/app/run"], or add [root]',
        )
    for key in ("user", "group", "grace_s") if not supervises else ("manager",):
        if table.has(key):
            wanted = "supervise" if key != "manager" else "init"
            raise table.fail(key, f"has a meaning with {wanted} only", code="manifest-conflict")


def volume_format(table: Table) -> str:
    """The volume's format; refuses keys that do not belong to it."""
    table.need("name")
    name(table, "name")
    table.need("format")
    kind = table.text("format", allowed=("verity", "headerless", "luks2"))
    sealed = ("key", "key_file", "integrity", "uuid", "blank", "executable")
    foreign = sealed if kind == "verity" else ("source",)
    for key in foreign:
        if table.has(key):
            raise table.fail(key, f"does not belong to format {kind!r}", code="manifest-conflict")
    table.need("source" if kind == "verity" else "key")
    return kind


def device(table: Table, key: str, *, default: str) -> str:
    """``KIND:VALUE`` of a disk."""
    text = table.text(key, default)
    kind, colon, value = text.partition(":")
    pattern = _DEVICE_VALUES.get(kind)
    if pattern is None or not colon:
        kinds = tuple(f"{known}:" for known in _DEVICE_VALUES)
        raise table.fail(key, f"names no kind of disk: {text!r}", hint=nearest(kind + ":", kinds))
    if not pattern.fullmatch(value):
        raise table.fail(key, f"has a value that no {kind} can have: {value!r}")
    return text


def check_volumes(tables: Sequence[Table], *, has_root: bool, upper: str = "") -> None:
    """Names, disks and mount points of all volumes, together; ``upper`` is mounted nowhere."""
    if tables and not has_root:
        # PID 1 takes the first volume of the policy for the root.
        raise tables[0].fail(
            "mount",
            "needs a root to lie in, and there is no [root]",
            code="manifest-conflict",
            hint="add [root], or pack the files with [initramfs] files",
        )
    names: list[str] = list(_RESERVED_NAMES)
    disks = [f"serial:{reserved}" for reserved in _RESERVED_NAMES]
    mounts: list[str] = list(_KERNEL_MOUNTS)
    for table in tables:
        own = table.text("name")
        if own in names:
            reason = "is reserved" if own in _RESERVED_NAMES else "is taken by another volume"
            raise table.fail("name", f"{own!r} {reason}", code="manifest-conflict")
        disk = table.text("device", f"serial:{own}")
        if disk in disks:
            raise table.fail(
                "device", f"{disk!r} is taken by another disk", code="manifest-conflict"
            )
        names.append(own)
        disks.append(disk)
        if own == upper:
            continue
        mount = absolute(table, "mount")
        for other in mounts:
            if _overlap(mount, other):
                raise table.fail("mount", f"{mount!r} overlaps {other!r}", code="manifest-conflict")
        mounts.append(mount)


def check_overlay(table: Table, sealed: Sequence[tuple[Table, Encrypted]]) -> None:
    """``overlay``: tmpfs, none, or the name of a volume that can hold it."""
    overlay = table.text("overlay", "tmpfs")
    if overlay == "none" and table.has("overlay_paths"):
        raise table.fail(
            "overlay_paths", 'needs an overlay, but overlay = "none"', code="manifest-conflict"
        )
    if overlay in ("tmpfs", "none"):
        return
    for own, volume in sealed:
        if volume.name == overlay and volume.file_system:
            if volume.integrity == "none":
                # Who can change the upper layer decides what every path leads to (S8).
                raise own.fail(
                    "integrity",
                    "the overlay's writable layer must be authenticated",
                    code="manifest-conflict",
                    hint='integrity = "hmac", or overlay = "tmpfs"',
                )
            return
    names = [volume.name for _table, volume in sealed if volume.file_system]
    raise table.fail(
        "overlay",
        f"{overlay!r} is neither tmpfs, none nor an encrypted volume",
        hint=nearest(overlay, ("tmpfs", "none", *names)),
    )


def check_workload(table: Table, volumes: Sequence[Table], *, overlay_paths: Sequence[str]) -> None:
    """Workload paths: absolute, apart, in the root itself, nothing mounted on or below them."""
    paths = table.texts("workload")
    mounts = [volume.text("mount") for volume in volumes if volume.has("mount")]
    for path in paths:
        check_absolute(table, "workload", path)
        for other in (*_KERNEL_MOUNTS, *mounts):
            if _inside(path, other):
                raise table.fail(
                    "workload",
                    f"{path!r} is inside the mount {other!r}, not in the root's own files",
                    code="manifest-conflict",
                    hint="a verity volume is measured by its own root hash" * (other in mounts),
                )
        for other in mounts:
            if _inside(other, path):
                # It would hide measured files, and itself vanish below the read-only bind.
                raise table.fail(
                    "workload",
                    f"{path!r} holds the mount {other!r} of a volume",
                    code="manifest-conflict",
                    hint="mount the volume elsewhere: it is measured by its own root hash",
                )
        for other in overlay_paths:
            if _inside(other, path):
                raise table.fail(
                    "workload",
                    f"{path!r} is read-only, so {other!r} in it cannot be an overlay path",
                    code="manifest-conflict",
                    hint="take it out of [root] overlay_paths",
                )
    check_apart(table, "workload", paths)


def check_tee(tee: Table, fail: Table) -> None:
    """What TEE and TPM choices ask of each other and of ``[fail]``."""
    snp = tee.text("snp", "required")
    if snp == "required" and tee.text("vtpm", "required") != "none" and not tee.has("vtpm_kind"):
        raise tee.fail(
            "vtpm_kind",
            "is missing: with snp = required the kind of TPM must be stated",
            code="manifest-missing-key",
            hint='vtpm_kind = "svsm", "paravisor" or "host"',
        )
    if snp == "required" and fail.text("detail", "public") == "console":
        raise fail.fail(
            "detail",
            'must not be "console" with snp = required: the console is the host\'s',
            code="manifest-conflict",
        )


def quote(table: Table, tee: Tee) -> bool:
    """``[attest] quote``; not given: where the platform vouches for its TPM.

    A host's TPM proves nothing to a relying party, so its quote is made only when asked for.
    """
    possible = tee.snp != "none" and tee.vtpm != "none"
    wanted = table.boolean("quote", default=possible and tee.vtpm_kind != "host")
    if wanted and not possible:
        raise table.fail(
            "quote",
            "needs a TPM to ask and a report to bind it: [tee] has none of one",
            code="manifest-conflict",
            hint="[tee] vtpm and snp other than none, or leave it out",
        )
    return wanted


def extend_rules(table: Table, key: str) -> tuple[tuple[int, str], ...]:
    """(user, unit) of each rule of ``[attest] extend``, each once; unit "" is any."""
    rules = []
    for rule in table.tables(key, ("user", "unit")):
        rule.need("user")
        unit = rule.text("unit") if rule.has("unit") else ""
        if unit and not _UNIT.fullmatch(unit):
            raise rule.fail("unit", f"{unit!r} is no name of a service or scope")
        found = (rule.integer("user", 0, minimum=0, maximum=2**32 - 2), unit)
        if found in rules:
            raise rule.fail("user", "the same rule stands there twice", code="manifest-conflict")
        rules.append(found)
    return tuple(rules)

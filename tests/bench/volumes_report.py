# SPDX-License-Identifier: Apache-2.0
"""The section of docs/performance.md about encrypted volumes, from the figures of one run.

Serves ``volumes``. It must never print a figure that this run did not measure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.record import record

if TYPE_CHECKING:
    from machine import Boot

BEGIN, END = "<!-- figures: scripts/bench volumes -->", "<!-- end of volume figures -->"
#: Rows in their order.
NAMES = {
    "busybox": "busybox sh + cryptsetup",
    "busybox-plain": "busybox, plain modules",
    "initramfs-tools": "initramfs-tools + cryptsetup",
    "dracut": "dracut + systemd + cryptsetup",
    "without": "troth, no volume, no secure processor",
    "simulated": "troth, no volume, simulated processor",
    "luks2": "troth, LUKS2, key in the image",
    "none": "troth, headerless, key in the image",
    "hmac": "troth, headerless with hmac, key in the image",
    "kbs": "troth, headerless with hmac, network, key released",
    "kbs-luks2": "troth, LUKS2 with hmac, network, key released",
}
#: Derivation of a key-slot: words for cryptsetup luksConvertKey.
MORE_ITERATIONS = 100_000
DERIVATIONS: dict[str, tuple[str, ...]] = {
    "pbkdf2": (),
    "pbkdf2-more": ("--pbkdf", "pbkdf2", "--hash", "sha256",
                    "--pbkdf-force-iterations", str(1000 + MORE_ITERATIONS)),
    "argon2id": ("--pbkdf", "argon2id", "--pbkdf-force-iterations", "4",
                 "--pbkdf-memory", "65536", "--pbkdf-parallel", "1"),
}  # fmt: skip
WORDS = {
    "pbkdf2": "PBKDF2, 1000 iterations",
    "pbkdf2-more": "PBKDF2, 101,000 iterations",
    "argon2id": "Argon2id, 64 MiB, 4 passes, 1 lane",
}
#: DESIGN section 10: from /init to the marker on 6.1, with a LUKS2 volume.
TARGET_S = 0.9
TOLERANCE = 1.03


@record
class Volume:
    """One row on one kernel. Image sizes in bytes; ``stages_ms``: of the last boot; ``format_ms``:
    what the boot that found the volume blank took longer in stage volumes, 0 where none did.
    """

    name: str
    kernel: str
    zstd_bytes: int
    raw_bytes: int
    boots: tuple[Boot, ...]
    stages_ms: dict[str, float]
    format_ms: float

    def mean(self, field: str) -> float:
        """The mean of a field of the boots."""
        return sum(getattr(boot, field) for boot in self.boots) / len(self.boots)


@record
class Opening:
    """One LUKS2 disk opened by both: ``cryptsetup_s``: its process from start to end, without
    idle time; ``keys_ms``, ``volumes_ms``: troth's two stages.
    """

    name: str
    kernel: str
    cryptsetup_s: float
    keys_ms: float
    volumes_ms: float


@record
class Load:
    """A volume under load: instructions a MB written and read; ``format_s``: what making it took,
    0 where that was not timed alone.
    """

    who: str
    name: str
    write_ns: float
    read_ns: float
    format_s: float


@record
class Volumes:
    """Everything one run found."""

    arguments: str
    kernels: dict[str, str]
    machine: dict[str, str]
    rows: tuple[Volume, ...]
    openings: tuple[Opening, ...]
    loads: tuple[Load, ...]


def markdown(run: Volumes) -> str:
    """The section of the document."""
    lines = [
        BEGIN,
        "",
        "## Encrypted volumes",
        "",
        f"`scripts/bench {run.arguments}`".replace(" `", "`"),
    ]
    lines[-1] += "; " + ", ".join(f"{label}: {name}" for label, name in run.kernels.items()) + "."
    lines += ["", *_INTRODUCTION]
    for label in run.kernels:
        lines += [
            "",
            f"### Boot with a volume, kernel {label}",
            "",
            _HEAD,
            "|---|---|---|---|---|---|---|---|",
        ]
        of_it = [row for row in run.rows if row.kernel == label]
        lines += [_row(row, simulation_s(of_it)) for row in of_it]
        lines += ["", *_stages(of_it)]
    if run.openings:
        lines += ["", *_openings(run.openings)]
    if run.loads:
        lines += ["", *_loads(run.loads)]
    return "\n".join([*lines, "", END, ""])


_HEAD = "| row | /init s | bare s | kernel s | idle s | spread ms | zstd -19 MB | raw MB |"
_INTRODUCTION = (
    "Every row verifies the root of the rows above, here without their second verity disk, and",
    "mounts an encrypted ext4 at /srv/data, from which the marker reads what an earlier boot",
    "wrote and to which it writes. The LUKS2 disk is the same bytes for all: AES-256-XTS, sectors",
    "of 4096, PBKDF2 with 1000 iterations, no tags. Peers have its passphrase in the image, load",
    "`dm_crypt` and `xts` and no driver for the processor's AES, and boot with the command line of",
    "an image of troth without keys: troth's own rows pay for `init_on_free=1` besides.",
    "",
    "Keys need a secure processor that vouches for the guest, so troth's rows have the simulated",
    'one. Its modules, its front and its reports are no part of a real guest: "bare" takes off',
    "what the row without a volume costs more with it than without. Rows with a released",
    "key talk to `troth keybroker` on the host, over DHCP and TLS: one attested session, a key, a",
    'commit and the end of the boot. "Idle" is when nothing ran in the guest, from the kernel\'s',
    "start on: mostly waiting for the host, whose speed is not the guest's. It is in all other",
    "figures, because `idle=poll` keeps the guest's clock going.",
)


def simulation_s(rows_: list[Volume]) -> float:
    """What the simulated processor costs a boot from /init on; 0 where it was not measured."""
    found = {row.name: row.mean("init_s") for row in rows_}
    if "simulated" not in found or "without" not in found:
        return 0.0
    return found["simulated"] - found["without"]


def _row(row: Volume, simulation: float) -> str:
    init_s = row.mean("init_s")
    bare = f"{init_s - simulation:.3f}" if _simulated(row) and simulation else ""
    spread = max(b.init_s for b in row.boots) - min(b.init_s for b in row.boots)
    return (
        f"| {NAMES[row.name]} | {init_s:.3f} | {bare} | {row.mean('kernel_s'):.3f} "
        f"| {row.mean('idle_s'):.3f} | {spread * 1000:.0f} | {row.zstd_bytes / 1e6:.2f} "
        f"| {row.raw_bytes / 1e6:.2f} |"
    )


def _simulated(row: Volume) -> bool:
    return bool(row.stages_ms) and row.name != "without"


def _stages(rows_: list[Volume]) -> list[str]:
    """Where troth's rows spend it."""
    names = ("modules", "tee", "network", "keys", "volumes", "verity", "root", "handover")
    ours = [row for row in rows_ if row.stages_ms]
    if not ours:
        return []
    return [
        "Stages of troth's rows, in millions of instructions; format: what the boot that found the",
        "volume of 64 MiB blank took longer.",
        "",
        f"| row | {' | '.join(names)} | format |",
        "|---|" + "---|" * (len(names) + 1),
        *(
            f"| {NAMES[row.name]} | "
            + " | ".join(
                f"{row.stages_ms[name]:.0f}" if name in row.stages_ms else "" for name in names
            )
            + f" | {f'{row.format_ms:.0f}' if row.format_ms else ''} |"
            for row in ours
        ),
    ]


def _openings(found: tuple[Opening, ...]) -> list[str]:
    lines = [
        "### Opening a LUKS2 volume",
        "",
        "`cryptsetup open --key-file` from fork to exit, under busybox, beside troth's two stages:",
        "a process that starts, gets the key, judges header and key-slot, makes the map, and two",
        "events measured into the TPM. Millions of instructions. What the key-slot alone costs is",
        "the last column: for PBKDF2 from what 100,000 more iterations cost, for Argon2id from",
        "what it costs more than PBKDF2. The digest has its 1000 iterations in every row.",
        "",
        "| kernel | key-slot | cryptsetup | troth | its slot: cryptsetup / troth |",
        "|---|---|---|---|---|",
    ]
    for item in found:
        same = {one.name: one for one in found if one.kernel == item.kernel}
        theirs, ours = _slot(item, same)
        lines.append(
            f"| {item.kernel} | {WORDS[item.name]} | {item.cryptsetup_s * 1e3:.0f} "
            f"| {item.keys_ms + item.volumes_ms:.0f} | {theirs:.1f} / {ours:.1f} |"
        )
    return lines


def _slot(item: Opening, same: dict[str, Opening]) -> tuple[float, float]:
    base, more = same["pbkdf2"], same["pbkdf2-more"]

    def both(one: Opening) -> tuple[float, float]:
        return one.cryptsetup_s * 1e3, float(one.keys_ms + one.volumes_ms)

    rate = [(b - a) / MORE_ITERATIONS for a, b in zip(both(base), both(more), strict=True)]
    if item.name.startswith("pbkdf2"):
        count = 1000 + (MORE_ITERATIONS if item.name != "pbkdf2" else 0)
        return rate[0] * count, rate[1] * count
    theirs, ours = (b - a for a, b in zip(both(base), both(item), strict=True))
    return theirs + rate[0] * 1000, ours + rate[1] * 1000


def _loads(found: tuple[Load, ...]) -> list[str]:
    lines = [
        "### Throughput in a guest",
        "",
        "Thousands of instructions a MB of a file on ext4, 8 MiB in pieces of 1 MiB past the page",
        "cache, with everything the guest ran for it; 1000 divided by it is MB a million",
        "instructions. Less is better. An emulated AES instruction counts as one, as everything",
        "else does, so the ratios are of code paths, not of a processor's units. `-direct` volumes",
        "have no journal of dm-integrity: troth's for one boot (`random:`), cryptsetup's by word.",
        "Formatting writes every sector, by both.",
        "",
        "| volume | who | write k/MB | read k/MB | format M, 32 MiB |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {item.name} | {item.who} | {item.write_ns / 1e3:.0f} | {item.read_ns / 1e3:.0f} "
        f"| {f'{item.format_s * 1e3:.0f}' if item.format_s else ''} |"
        for item in sorted(found, key=lambda one: (one.name, one.who))
    ]
    return lines


def into(document: str, figures: str) -> str:
    """``document`` with its figures replaced; words around them stay."""
    if BEGIN in document:
        before, after = document.split(BEGIN, maxsplit=1)[0], document.split(END)[1].lstrip("\n")
        return before + figures + after
    return document.rstrip("\n") + "\n\n" + figures


def missed(run: Volumes) -> list[str]:
    """Targets that were measured and not reached."""
    wrong = []
    for label in run.kernels:
        of_it = [row for row in run.rows if row.kernel == label]
        found = {row.name: row.mean("init_s") for row in of_it}
        extra = simulation_s(of_it)
        if label == "6.1" and "luks2" in found:
            openings = {one.name: one for one in run.openings if one.kernel == label}
            slot = _slot(openings["pbkdf2"], openings)[1] / 1e3 if openings else 0.0
            if found["luks2"] - extra > (TARGET_S + slot) * TOLERANCE:
                wrong.append(f"{label}: LUKS2 {found['luks2'] - extra:.3f} s, target {TARGET_S} s")
        wrong += [
            f"{label}: {name} {found[name]:.3f} s, dracut {found['dracut']:.3f} s"
            for name in ("kbs", "kbs-luks2")
            if name in found and found[name] >= found.get("dracut", found[name] + 1)
        ]
    return wrong

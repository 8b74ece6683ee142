# SPDX-License-Identifier: Apache-2.0
"""Starts the guest of an IGVM file under QEMU TCG, without SNP and without firmware.

What differs from a launch by SNP firmware, and nothing else does:

* A ROM puts the first processor into the VMSA's state (``guest/reset.S``). LDTR, TR, DR6, DR7,
  PAT, XCR0, MXCSR and FCW keep their values at reset, which are the VMSA's; what only SNP has
  (VMPL, SEV features) stays away.
* Bit 51 is cleared in CR3 and in every entry of the page tables: without SNP it is reserved.
* The secrets page is zero. The CPUID page is zero, or holds ``cpuid`` as the firmware would.
* ``unlink``: the SETUP_CC_BLOB entry leaves the chain of setup_data. Linux 6.11 and later execute
  RMPADJUST as soon as they find a CC blob, which without SNP is no instruction.
* The ROM area is QEMU's: nothing, and the end of that ROM. Linux finds nothing in either.
* The other processors wait for INIT and SIPI at reset; under SNP Linux starts them through the
  GHCB. No page has to be accepted.
"""

from __future__ import annotations

import re
import struct
import subprocess
from typing import TYPE_CHECKING

from boot.bundles import SOURCES
from boot.machine import Boot, _text
from igvm_image import C_BIT, PAGE, ZERO
from igvm_linux import setup_data
from igvm_processor import registers, segments, tables
from troth.machine import qemu

if TYPE_CHECKING:
    from pathlib import Path

    from igvm_image import Image

TIMEOUT_S = 90
#: Zero pages inside a run are cheaper than another file.
_GAP_BYTES = 1 << 20


def cpuid_table(*leaves: tuple[int, int, int, int, int, int]) -> bytes:
    """What the firmware makes of a CPUID page (SNP firmware ABI, "CPUID page").

    ``leaves``: EAX and ECX in; EAX, EBX, ECX and EDX out.
    """
    rows = [struct.pack("<IIQQIIIIQ", eax, ecx, 0, 0, *out, 0) for eax, ecx, *out in leaves]
    return (struct.pack("<IIQ", len(rows), 0, 0) + b"".join(rows)).ljust(PAGE, b"\0")


def without_sev(image: Image, *, unlink: bool, cpuid: bytes = ZERO) -> Image:
    """The guest as a processor without SNP can run it: see the module."""
    native = image.copy()
    at = registers(image.vmsa)
    for gpa in tables(image):
        entries = struct.unpack("<512Q", image.pages[gpa])
        native.pages[gpa] = struct.pack("<512Q", *(entry & ~C_BIT for entry in entries))
    for gpa in image.secrets:
        native.pages[gpa] = ZERO
    for gpa in image.cpuid:
        native.pages[gpa] = cpuid
    if unlink:
        link = at["rsi"] + 0x250
        for gpa, kind, _ in setup_data(image, image.read(at["rsi"], PAGE)):
            if kind == 7:
                native.write(link, image.read(gpa, 8))
            else:
                link = gpa
    return native


def rom(image: Image, place: Path) -> Path:
    """The ROM that starts the first processor of ``image``."""
    at, parts = registers(image.vmsa), segments(image.vmsa)
    values = {name.upper(): value for name, value in at.items()}
    values["CR3"] &= ~C_BIT
    values |= {name.upper(): parts[name].selector for name in ("cs", "ds", "es", "ss", "fs", "gs")}
    values |= {"GDT_LIMIT": parts["gdtr"].limit, "GDT_BASE": parts["gdtr"].base}
    values |= {"IDT_LIMIT": parts["idtr"].limit, "IDT_BASE": parts["idtr"].base}
    names = ("CR0", "CR3", "CR4", "EFER", "RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP")
    assert all(values[name] < 1 << 32 for name in (*names, "RIP"))
    source = "".join(f".set {name}, {value:#x}\n" for name, value in values.items())
    source += (SOURCES / "reset.S").read_text()
    subprocess.run(
        ["as", "--32", "-o", "reset.o", "-"], input=source.encode(), cwd=place, check=True
    )
    subprocess.run(
        ["ld", "-m", "elf_i386", "-Ttext=0xffff0000", "--oformat=binary", "-e", "begin",
         "-o", "reset.rom", "reset.o"],
        cwd=place, check=True,
    )  # fmt: skip
    return place / "reset.rom"


def memory_files(image: Image, place: Path) -> list[tuple[int, Path]]:
    """The memory that is not zero: address and file of each run."""
    filled = sorted(gpa for gpa, page in image.pages.items() if page is not ZERO and any(page))
    runs: list[list[int]] = []
    for gpa in filled:
        if (
            runs
            and gpa - runs[-1][1] <= _GAP_BYTES
            and all(between in image.pages for between in range(runs[-1][1], gpa, PAGE))
        ):
            runs[-1][1] = gpa + PAGE
        else:
            runs.append([gpa, gpa + PAGE])
    files = []
    for start, end in runs:
        path = place / f"memory-{start:x}"
        path.write_bytes(b"".join(image.pages[gpa] for gpa in range(start, end, PAGE)))
        files.append((start, path))
    return files


def run(
    image: Image,
    place: Path,
    *,
    memory_mib: int,
    cpus: int,
    disks: tuple[qemu.DiskImage, ...] = (),
    tpm_socket: Path | None = None,
    extra: tuple[str, ...] = (),
) -> Boot:
    """Boot ``image``, with the machine, the disks and the TPM of ``troth run``."""
    machine = qemu.Machine(
        kernel=place, initramfs=place, cmdline="", memory_mib=memory_mib, cpus=cpus,
        accelerator="tcg", firmware="seabios", disks=disks, forwards=(), ports=(),
        tpm_socket=tpm_socket, monitor_socket=place / "monitor", extra=extra,
    )  # fmt: skip
    words = list(qemu.command(machine, qemu.load_description()))
    at = words.index("-kernel")
    assert words[at : at + 6 : 2] == ["-kernel", "-initrd", "-append"]
    words[at : at + 6] = ["-bios", str(rom(image, place))]
    for address, path in memory_files(image, place):
        words += ["-device", f"loader,file={path},addr={address:#x},force-raw=on"]
    console, errors = place / "console", place / "errors"
    with console.open("wb") as output, errors.open("wb") as complaints:
        status = _finish(words, stdin=subprocess.DEVNULL, stdout=output, stderr=complaints)
    assert not errors.read_bytes(), errors.read_text()
    return Boot(status, {}, _text(console), 0)


def _finish(words: list[str], **files) -> int:
    """The status of the program, -9 where it had to be ended."""
    with subprocess.Popen(words, **files) as process:
        try:
            return process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def undefined_instruction(image: Image, place: Path) -> str:
    """The 4 bytes, in hex, of the first instruction that the processor does not know."""
    log = place / "log"
    run(image, place, memory_mib=256, cpus=1, extra=("-d", "in_asm,int", "-D", str(log)))
    text = log.read_text()
    fault = re.search(r" v=06 .* pc=([0-9a-f]{16})", text)
    assert fault, "no #UD"
    code: dict[int, int] = {}
    for at, line in re.findall(r"^0x([0-9a-f]+):  ((?:[0-9a-f]{2} )+)", text, re.MULTILINE):
        code |= dict(enumerate(bytes.fromhex(line), int(at, 16)))
    pc = int(fault[1], 16)
    return bytes(code[pc + offset] for offset in range(4)).hex()

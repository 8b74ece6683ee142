# SPDX-License-Identifier: Apache-2.0
"""One boot of one row: QEMU with instruction-counted time, and what it said.

Serves ``run``. Every row gets the same machine: disks, serials, TPM, memory,
command line; only the initramfs differs. It must never return figures of a
boot whose marker did not report the work as done.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disks import Disk, Sealed

MARKER = re.compile(
    r"bench-marker init_us=(-?\d+) marker_us=(-?\d+) uptime_us=(\d+) total_kib=(-?\d+) "
    r"available_kib=(-?\d+) idle_ns=(-?\d+) work=(\S+) end"
)
#: What ``timed`` says on the console of a program that ended well.
TIMED = re.compile(r"^bench-timed \S+ ns=(\d+) idle_ns=(\d+) status=0 end", re.MULTILINE)
#: What every row's machine has in common; see DESIGN section 10.
MACHINE = (
    "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1024",
    "-icount", "shift=0,sleep=off", "-machine", "q35,memory-backend=ram", "-nodefaults",
    "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot",
)  # fmt: skip


@record
class Boot:
    """Figures of one boot, in seconds of guest clock and bytes.

    ``idle_s``: of ``kernel_s``, how long the processor had nothing to do.
    ``touched_bytes``: 0 where nobody looked. ``timed_s``: what a timed program took
    without idle time, 0 where there was none.
    """

    init_s: float
    kernel_s: float
    touched_bytes: int
    used_bytes: int
    wall_s: float
    idle_s: float
    timed_s: float


def boot(
    kernel: Path,
    initramfs: Path,
    cmdline: str,
    disks: tuple[Disk, ...],
    *,
    sealed: Sealed | None = None,
    timeout_s: int = 300,
) -> Boot:
    """Boot to the marker and power-off; ``SystemExit`` with the console otherwise."""
    began = time.monotonic()
    text, said, touched = console_of(
        kernel, initramfs, cmdline, disks, sealed=sealed, timeout_s=timeout_s
    )
    wall_s = time.monotonic() - began
    return boot_of(text, what=f"{initramfs}: {said}", touched_bytes=touched, wall_s=wall_s)


def console_of(
    kernel: Path,
    initramfs: Path,
    cmdline: str,
    disks: tuple[Disk, ...],
    *,
    sealed: Sealed | None = None,
    timeout_s: int,
) -> tuple[str, str, int]:
    """Boot to power-off: the console, QEMU's own words, bytes of memory that were touched."""
    with tempfile.TemporaryDirectory(prefix="troth-bench-") as scratch, _tpm(scratch) as tpm:
        # guest memory as a sparse tmpfs file: its blocks are the pages ever touched
        memory = Path(tempfile.mkstemp(prefix="troth-bench-", dir="/dev/shm")[1])
        console = Path(scratch) / "console"
        command = [
            *MACHINE,
            "-object", f"memory-backend-file,id=ram,size=1024M,mem-path={memory},share=on",
            "-kernel", str(kernel), "-initrd", str(initramfs), "-append", cmdline,
            "-serial", f"file:{console}",
            "-chardev", f"socket,id=tpm,path={tpm}", "-tpmdev", "emulator,id=tpm,chardev=tpm",
            "-device", "tpm-crb,tpmdev=tpm",
        ]  # fmt: skip
        for disk in disks:
            command += [
                "-drive", f"file={disk.path},if=none,id={disk.serial},format=raw,readonly=on",
                "-device", f"virtio-blk-pci,drive={disk.serial},serial={disk.serial}",
            ]  # fmt: skip
        if sealed is not None:
            kept = "off" if sealed.written else "on"
            command += [
                "-drive",
                f"file={sealed.path},if=none,id={sealed.serial},format=raw,snapshot={kept}",
                "-device", f"virtio-blk-pci,drive={sealed.serial},serial={sealed.serial}",
            ]  # fmt: skip
        try:
            said = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=timeout_s
            ).stderr
        except subprocess.TimeoutExpired:
            said = f"no end after {timeout_s} s"
        finally:
            touched = memory.stat().st_blocks * 512
            memory.unlink()
        text = console.read_text(errors="replace") if console.exists() else ""
    return text.replace("\r", ""), said, touched


def boot_of(text: str, *, what: str, touched_bytes: int, wall_s: float, wanted: str = "ok") -> Boot:
    """The figures in a console; ``SystemExit`` where the marker did not find ``wanted``."""
    seen = MARKER.search(text)
    if seen is None or seen[7] != wanted or int(seen[1]) < 0 or int(seen[2]) < 0:
        raise SystemExit(f"bench: the work was not done: {what}\n{text[-4000:]}")
    timed = [int(took) - int(idle) for took, idle in TIMED.findall(text)]
    return Boot(
        init_s=(int(seen[2]) - int(seen[1])) / 1e6,
        kernel_s=int(seen[2]) / 1e6,
        touched_bytes=touched_bytes,
        used_bytes=(int(seen[4]) - int(seen[5])) * 1024,
        wall_s=wall_s,
        idle_s=int(seen[6]) / 1e9,
        timed_s=sum(timed) / 1e9,
    )


@contextlib.contextmanager
def _tpm(scratch: str) -> Iterator[Path]:
    state = Path(scratch) / "tpm"
    state.mkdir()
    control = state / "control"
    swtpm = subprocess.Popen(
        ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}",
         "--ctrl", f"type=unixio,path={control}", "--flags", "startup-clear"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 10
        while not control.exists():
            if swtpm.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("bench: swtpm did not start")
            time.sleep(0.01)
        yield control
    finally:
        swtpm.terminate()
        swtpm.wait(10)


def facts() -> dict[str, str]:
    """The machine that ran the bench, as far as it explains wall-clock figures."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    qemu = subprocess.run(
        [MACHINE[0], "--version"], check=True, capture_output=True, text=True
    ).stdout.splitlines()[0]
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "kernel": os.uname().release,
        "qemu": qemu,
        "free disk": f"{shutil.disk_usage('/').free >> 30} GiB",
    }

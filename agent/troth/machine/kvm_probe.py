# SPDX-License-Identifier: Apache-2.0
"""Whether KVM is real here: decided by a stopwatch.

Serves ``troth run`` and ``troth doctor``. A /dev/kvm that opens, and even one
that runs code, may be a software hypervisor that emulates a guest kernel
instruction by instruction, under which a boot never ends; speed tells them
apart. So a vCPU is put into long mode and times 100,000 rounds of a loop,
which hardware does in well under a millisecond. Interfaces: Linux
Documentation/virt/kvm/api.rst; the trial is a process of its own, so a broken
/dev/kvm cannot hang or crash the caller.

Must never decide for KVM on anything but the measurement.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from troth.record import record

ITERATIONS = 100_000
LIMIT_MS = 10.0
_ALARM_S = 0.05
_TRIAL_TIMEOUT_S = 3.0

_KVM_GET_API_VERSION = 0xAE00
_KVM_CREATE_VM = 0xAE01
_KVM_GET_VCPU_MMAP_SIZE = 0xAE04
_KVM_CREATE_VCPU = 0xAE41
_KVM_RUN = 0xAE80
_KVM_SET_USER_MEMORY_REGION = 0x4020AE46
_KVM_SET_REGS = 0x4090AE82
_KVM_GET_SREGS = 0x8138AE83
_KVM_SET_SREGS = 0x4138AE84
_EXIT_HLT = 5
_MEMORY_BYTES = 64 << 10
_SREGS_BYTES = 312
#: Offsets in struct kvm_sregs: eight segments of 24 bytes, gdt, idt, then cr0, cr2, cr3, cr4.
_SREGS_CS, _SREGS_CR0, _SREGS_EFER = 0, 224, 264


@record
class Host:
    """What can be seen without trying.

    ``device``: /dev/kvm may be opened; ``extension``: /proc/cpuinfo has vmx or
    svm; ``software``: the module of a software hypervisor is loaded.
    """

    device: bool
    extension: bool
    software: bool


@record
class Trial:
    """What the loop did: ``exit_reason`` of KVM_RUN (5 is HLT), or ``problem`` in words."""

    exit_reason: int
    elapsed_ms: float
    problem: str


@record
class Verdict:
    """``usable`` and, for people, why."""

    usable: bool
    reason: str


def look(*, proc: Path = Path("/proc"), sys_: Path = Path("/sys")) -> Host:
    """The cheap facts about this host."""
    try:
        words = set((proc / "cpuinfo").read_bytes().split())
    except OSError:
        words = set()
    return Host(
        device=os.access("/dev/kvm", os.R_OK | os.W_OK),
        extension=bool(words & {b"vmx", b"svm"}),
        software=(sys_ / "module" / "kvm_pvm").exists(),
    )


def decide(host: Host, trial: Trial | None) -> Verdict:
    """The verdict on ``host``; without a ``trial`` it can only be no."""
    if not host.device:
        return Verdict(False, "/dev/kvm is absent or not ours to open")
    if host.software:
        return Verdict(False, "/dev/kvm belongs to a software hypervisor (kvm_pvm)")
    if not host.extension:
        return Verdict(False, "the processor shows neither vmx nor svm")
    if trial is None:
        return Verdict(False, "KVM was not tried")
    if trial.problem:
        return Verdict(False, f"KVM does not work: {trial.problem}")
    if trial.exit_reason != _EXIT_HLT:
        return Verdict(False, f"the trial ended with KVM exit {trial.exit_reason}, not with HLT")
    if trial.elapsed_ms >= LIMIT_MS:
        return Verdict(False, f"the trial took {trial.elapsed_ms:.1f} ms: emulated, not KVM")
    return Verdict(True, f"the trial took {trial.elapsed_ms:.2f} ms")


def probe() -> Verdict:
    """Whether KVM is real on this host; at most about three seconds, mostly none."""
    host = look()
    if not host.device or host.software or not host.extension:
        return decide(host, None)
    return decide(host, _try_apart())


def _try_apart() -> Trial:
    """``measure`` in a process of its own."""
    words = (sys.executable, "-I", "-m", "troth.machine.kvm_probe")
    try:
        done = subprocess.run(words, capture_output=True, timeout=_TRIAL_TIMEOUT_S, check=True)
        tree = json.loads(done.stdout)
        return Trial(tree["exit_reason"], tree["elapsed_ms"], tree["problem"])
    except subprocess.TimeoutExpired:
        return Trial(0, 0.0, "the trial hung")
    except (subprocess.CalledProcessError, ValueError, KeyError, TypeError) as error:
        return Trial(0, 0.0, f"the trial crashed: {error}")


def measure() -> Trial:
    """Run the loop on a vCPU under a 50 ms alarm; only for the main thread."""
    signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    try:
        return _run_loop()
    except OSError as error:
        return Trial(0, 0.0, os.strerror(error.errno or 0))


def _run_loop() -> Trial:
    device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    if fcntl.ioctl(device, _KVM_GET_API_VERSION) != 12:
        return Trial(0, 0.0, "not KVM API 12")
    machine = fcntl.ioctl(device, _KVM_CREATE_VM, 0)
    memory = mmap.mmap(-1, _MEMORY_BYTES)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    _fill(memory)
    region = struct.pack("<IIQQQ", 0, 0, 0, _MEMORY_BYTES, address)
    fcntl.ioctl(machine, _KVM_SET_USER_MEMORY_REGION, region)
    vcpu = fcntl.ioctl(machine, _KVM_CREATE_VCPU, 0)
    shared = mmap.mmap(vcpu, fcntl.ioctl(device, _KVM_GET_VCPU_MMAP_SIZE))
    _enter_long_mode(vcpu)
    signal.setitimer(signal.ITIMER_REAL, _ALARM_S)
    began_ns = time.monotonic_ns()
    try:
        fcntl.ioctl(vcpu, _KVM_RUN, 0)
    except InterruptedError:
        return Trial(0, 0.0, f"100,000 loop rounds took longer than {_ALARM_S * 1000:.0f} ms")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    elapsed_ms = (time.monotonic_ns() - began_ns) / 1e6
    return Trial(struct.unpack_from("<I", shared, 8)[0], elapsed_ms, "")


def _fill(memory: mmap.mmap) -> None:
    """Page tables at 0x1000 mapping the first 2 MiB onto themselves, the loop at 0x4000."""
    struct.pack_into("<Q", memory, 0x1000, 0x2000 | 3)  # present, writable
    struct.pack_into("<Q", memory, 0x2000, 0x3000 | 3)
    struct.pack_into("<Q", memory, 0x3000, 0x83)  # one page of 2 MiB
    code = b"\xb9" + struct.pack("<I", ITERATIONS)  # mov ecx, ITERATIONS
    code += b"\xff\xc9\x75\xfc"  # dec ecx; jnz back to it
    code += b"\xf4"  # hlt
    memory[0x4000 : 0x4000 + len(code)] = code


def _enter_long_mode(vcpu: int) -> None:
    """Registers of 64-bit kernel mode (AMD64 APM volume 2, 14.6)."""
    sregs = bytearray(_SREGS_BYTES)
    fcntl.ioctl(vcpu, _KVM_GET_SREGS, sregs)
    # struct kvm_segment: base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable, pad
    segment = "<QIH10B"
    code = struct.pack(segment, 0, 0xFFFFFFFF, 8, 11, 1, 0, 0, 1, 1, 1, 0, 0, 0)
    data = struct.pack(segment, 0, 0xFFFFFFFF, 16, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0)
    sregs[_SREGS_CS : _SREGS_CS + 24] = code
    for number in range(1, 6):  # ds, es, fs, gs, ss
        sregs[24 * number : 24 * number + 24] = data
    struct.pack_into("<QQQQ", sregs, _SREGS_CR0, 0x80050033, 0, 0x1000, 0x20)  # cr4: PAE
    struct.pack_into("<Q", sregs, _SREGS_EFER, 0x500)  # LME, LMA
    fcntl.ioctl(vcpu, _KVM_SET_SREGS, bytes(sregs))
    registers = [0] * 18
    registers[16], registers[17] = 0x4000, 2  # rip, rflags
    fcntl.ioctl(vcpu, _KVM_SET_REGS, struct.pack("<18Q", *registers))


if __name__ == "__main__":
    trial = measure()
    print(json.dumps({name: getattr(trial, name) for name in trial.__match_args__}))

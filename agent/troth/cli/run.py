# SPDX-License-Identifier: Apache-2.0
"""``troth run``: options to a plan, a plan's result to text, JSON and exit status.

Serves people, scripts and the boot tests. Must never write the guest's bytes
to a terminal unfiltered.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from troth.documents.policy import INSTANCE_SERIAL
from troth.errors import HostError, MachineError, UsageError
from troth.machine import bundle_dir, host_memory, kvm_probe, outcome, qemu, runner
from troth.machine.console import Neutraliser

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from io import FileIO
    from typing import TextIO

    from troth.documents.bundle import Bundle
    from troth.documents.policy import InstanceRules
    from troth.machine.outcome import Record
    from troth.machine.simulated_platform import SimulatedPlatform

_SERIAL = re.compile(r"[a-z0-9-]{1,20}\Z")
_PORT_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_MEMORY = re.compile(r"([1-9][0-9]{0,6})([MG])\Z")
#: More need interrupt remapping, which the machine does not have.
_MAX_CPUS = 255
_DRY_RUN_FOLDER = Path("/tmp/troth-run")  # noqa: S108  # shown, never used


def run(options: Namespace) -> int:
    """Boot the bundle ``options.bundle``; 0 when it handed over and powered off in order.

    Raises ``UsageError``, ``HostError``, and ``MachineError`` or the guest's own
    refusal code where the boot did not end well.
    """
    bundle = bundle_dir.open_(Path(options.bundle))
    _check_simulated(options, bundle.bundle)
    plan = make_plan(options, bundle)
    if options.dry_run:
        for words in runner.commands(plan, _DRY_RUN_FOLDER):
            print(shlex.join(words))
        return 0
    with contextlib.ExitStack() as stack:
        # Both files are opened before the guest is started, which may run for days.
        chart = None if options.chart is None else stack.enter_context(_writable(options.chart))
        show: Callable[[bytes], object]
        if options.console is None:
            show = _shown(sys.stderr if options.json else sys.stdout)
        else:
            show = stack.enter_context(_writable(options.console)).write
        if plan.simulated is not None:
            _announce(plan.simulated)
        result = runner.run(plan, show=show)
        if chart is not None:
            from troth.machine.chart import draw

            chart.write(draw(result, title=bundle.bundle.name).encode())
    return _report(result, as_json=options.json)


def _writable(name: str) -> FileIO:
    try:
        return Path(name).open("wb", buffering=0)
    except OSError as error:
        raise UsageError("output-file", error.strerror or str(error), where=name) from None


_WITHOUT_SIM_SNP = {
    "simulated": "add --sim-snp",
    "required": "on hardware examples/igvm-launch.sh gives an instance configuration",
    "none": "the image is made for no secure processor: [tee] snp of its manifest",
}


def _check_simulated(options: Namespace, bundle: Bundle) -> None:
    if options.sim_snp:
        if bundle.snp != "simulated":
            raise UsageError(
                "sim-snp",
                f"--sim-snp needs a bundle with snp = simulated, this one says {bundle.snp}",
                hint='say snp = "simulated" in [tee] of its manifest, and build it again',
            )
        return
    for given, name in (
        (options.instance is not None, "--instance"),
        (options.sim_control is not None, "--sim-control"),
    ):
        if given:
            raise UsageError(
                "sim-snp",
                f"{name} needs --sim-snp: only the simulated processor takes it here",
                hint=_WITHOUT_SIM_SNP.get(bundle.snp, ""),
            )


def _simulated(
    options: Namespace, machine: qemu.Machine, rules: InstanceRules | None
) -> SimulatedPlatform:
    from troth.machine import simulated_platform

    control = None if options.sim_control is None else Path(options.sim_control).resolve()
    if control is not None and control.exists() and not control.is_socket():
        raise UsageError("port-socket", "exists and is not a socket", where=str(control))
    instance = None
    if options.instance is not None:
        from troth.cli import instance_file

        instance = instance_file.read(options.instance, rules)
    if any(port.name == simulated_platform.PORT for port in machine.ports):
        raise UsageError("usage", f"--port {simulated_platform.PORT} is the processor's own")
    return simulated_platform.plan(
        machine,
        keys=simulated_platform.keys_beside(Path(options.bundle)),
        control_socket=control,
        instance=instance,
    )


def _instance_disk(options: Namespace) -> tuple[qemu.DiskImage, ...]:
    if options.instance is None:
        return ()
    if any(text.startswith(f"{INSTANCE_SERIAL}=") for text in options.disk):
        raise UsageError("usage", f"--instance is itself the disk {INSTANCE_SERIAL!r}")
    return (
        qemu.DiskImage(
            serial=INSTANCE_SERIAL, path=Path(options.instance).resolve(), read_only=True
        ),
    )


def _announce(platform: SimulatedPlatform) -> None:
    made = "" if platform.keys.is_dir() else ", made now, which takes seconds"
    print(
        f"troth run: simulated secure processor, which protects nothing; keys in {platform.keys}"
        f"{made}; launch digest {platform.launch.measurement.hex()}",
        file=sys.stderr,
        flush=True,
    )


def make_plan(options: Namespace, bundle: bundle_dir.BundleDir) -> runner.Plan:
    """The plan that ``options`` ask for; ``UsageError`` or ``HostError`` where it cannot be."""
    description = qemu.load_description()
    if options.firmware == "ovmf" and not Path(description.ovmf).is_file():
        raise HostError(
            "ovmf-missing", "the OVMF firmware is not installed", where=description.ovmf,
            hint="sudo apt-get install ovmf",
        )  # fmt: skip
    if not 1 <= options.cpus <= _MAX_CPUS:
        raise UsageError("usage", f"--cpus is 1 to {_MAX_CPUS}, not {options.cpus}")
    if options.timeout is not None and not 0 < options.timeout < float("inf"):
        raise UsageError("usage", "--timeout is a number of seconds above 0")
    wants_tpm = not options.no_tpm and bundle.bundle.vtpm != "none"
    if options.tpm_state is not None and not wants_tpm:
        raise UsageError("usage", "--tpm-state without a TPM: see --no-tpm and the bundle's vtpm")
    if options.forward and options.no_network:
        raise UsageError("usage", "--forward needs the network device that --no-network leaves out")
    machine = qemu.Machine(
        kernel=bundle.kernel,
        initramfs=bundle.initramfs,
        cmdline=bundle_dir.read_cmdline(
            bundle.cmdline if options.cmdline is None else Path(options.cmdline)
        ),
        memory_mib=_memory_mib(options.memory),
        cpus=options.cpus,
        accelerator=_accelerator(options.accel),
        firmware=options.firmware,
        disks=(
            *bundle.disks,
            *(_disk(text) for text in options.disk),
            *_instance_disk(options),
        ),
        forwards=tuple(_forward(text) for text in options.forward),
        ports=tuple(_port(text) for text in options.port),
        tpm_socket=None,
        monitor_socket=_DRY_RUN_FOLDER / "monitor",
        extra=tuple(options.qemu_arg),
        network=bundle.network and not options.no_network,
    )
    return runner.Plan(
        machine=machine,
        description=description,
        tpm=wants_tpm,
        tpm_state=None if options.tpm_state is None else Path(options.tpm_state).resolve(),
        supervised=bundle.supervised,
        timeout_s=options.timeout,
        simulated=_simulated(options, machine, bundle.instance) if options.sim_snp else None,
    )


def _accelerator(name: str) -> str:
    if name == "kvm" and not kvm_probe.look().device:
        raise HostError("kvm-missing", "/dev/kvm is absent or not ours to open", hint="--accel tcg")
    if name != "auto":
        return name
    return "kvm" if kvm_probe.probe().usable else "tcg"


def _memory_mib(text: str) -> int:
    match = _MEMORY.match(text)
    if match is None:
        raise UsageError("usage", f"--memory {text!r} is no size", hint="such as 512M or 2G")
    size_mib = int(match[1]) * (1024 if match[2] == "G" else 1)
    if size_mib > (most_mib := host_memory.most_mib()):
        raise UsageError(
            "usage",
            f"--memory {text}: QEMU can give a guest at most {most_mib}M on this machine",
        )
    return size_mib


def _disk(text: str) -> qemu.DiskImage:
    serial, equals, name = text.partition("=")
    read_only = name.endswith(",ro")
    path = Path(name.removesuffix(",ro"))
    if not equals or not _SERIAL.match(serial):
        raise UsageError(
            "usage", f"--disk {text!r}: the serial is 1 to 20 of a-z 0-9 -",
            hint="--disk SERIAL=FILE[,ro]",
        )  # fmt: skip
    if not (path.is_file() or path.is_block_device()):
        raise UsageError("disk-file", "no such image", where=str(path))
    return qemu.DiskImage(serial=serial, path=path.resolve(), read_only=read_only)


def _forward(text: str) -> qemu.Forward:
    parts = text.split(":")
    if len(parts) != 2 or not all(
        part.isascii() and part.isdecimal() and len(part) <= 5 and 0 < int(part) < 65536
        for part in parts
    ):
        raise UsageError("usage", f"--forward {text!r}: two ports, HOST:GUEST")
    return qemu.Forward(host_port=int(parts[0]), guest_port=int(parts[1]))


def _port(text: str) -> qemu.Port:
    name, equals, socket = text.partition("=")
    if not equals or not socket or not _PORT_NAME.match(name):
        raise UsageError("usage", f"--port {text!r}: NAME=SOCKET")
    path = Path(socket).resolve()
    # QEMU removes what it finds under the name of a socket it makes.
    if path.exists() and not path.is_socket():
        raise UsageError("port-socket", "exists and is not a socket", where=str(path))
    return qemu.Port(name=name, socket=path)


def _shown(stream: TextIO) -> Callable[[bytes], object]:
    filter_ = Neutraliser()

    def show(data: bytes) -> None:
        stream.write(filter_.feed(data))
        stream.flush()

    return show


def _report(result: Record, *, as_json: bool) -> int:
    verdict = result.outcome()
    if as_json:
        print(json.dumps(outcome.tree(result), ensure_ascii=True))
        return 0 if verdict.good else 1
    if not verdict.good:
        raise MachineError(verdict.code, verdict.message, hint=_HINTS.get(verdict.kind, ""))
    print(f"troth run: {verdict.message} ({result.duration_s:.1f} s)", file=sys.stderr)
    return 0


_HINTS = {
    "timeout": "the last console lines say how far it came; see docs/boot-stalls.md",
    "no-handover": "the last console lines say how far it came; see docs/boot-stalls.md",
    "reboot": "a guest that is done powers off",
}

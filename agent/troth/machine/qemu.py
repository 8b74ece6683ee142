# SPDX-License-Identifier: Apache-2.0
"""The QEMU command line of a guest: pure, from values to words.

Serves ``machine.runner`` and ``troth run --dry-run``, which therefore cannot
disagree. The fixed half is data, ``qemu/machines/q35.toml``. Must never start
a program or look at the network, and must let no file name be read by QEMU as
an option.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from troth.errors import FormatError
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Mapping

MACHINES = Path(__file__).resolve().parent.parent / "_data" / "qemu" / "machines"


@record
class Description:
    """A machine description; each field is a key of ``qemu/machines/*.toml``."""

    program: str
    machine: str
    cpu: str
    arguments: tuple[str, ...]
    tpm_device: str
    network_device: str
    disk_device: str
    port_controller: str
    ovmf: str


@record
class DiskImage:
    """A raw image attached as a virtio disk with serial ``serial``."""

    serial: str
    path: Path
    read_only: bool


@record
class Forward:
    """TCP ``host_port`` on 127.0.0.1 reaches ``guest_port`` of the guest."""

    host_port: int
    guest_port: int


@record
class Port:
    """virtio-serial port ``name``, on the host the unix socket ``socket``.

    ``listens``: QEMU makes the socket; else it connects to the one that is there.
    """

    name: str
    socket: Path
    listens: bool = True


@record
class Machine:
    """One guest to start.

    ``cmdline``: exactly what the kernel gets; ``memory_mib``; ``accelerator``:
    "tcg" or "kvm"; ``firmware``: "seabios" or "ovmf"; ``tpm_socket``: swtpm's
    control socket or None; ``monitor_socket``: where QEMU offers QMP;
    ``extra``: further words, as given by an expert; ``network``: whether the guest
    itself reaches others, this host's loopback services at 10.0.2.2 among them.
    """

    kernel: Path
    initramfs: Path
    cmdline: str
    memory_mib: int
    cpus: int
    accelerator: str
    firmware: str
    disks: tuple[DiskImage, ...]
    forwards: tuple[Forward, ...]
    ports: tuple[Port, ...]
    tpm_socket: Path | None
    monitor_socket: Path
    extra: tuple[str, ...] = ()
    network: bool = False


def load_description(name: str = "q35", *, folder: Path = MACHINES) -> Description:
    """The description ``name``; ``FormatError`` ``machine-description`` where it is not one."""
    path = folder / f"{name}.toml"
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError("machine-description", str(error), where=str(path)) from None
    return _description(tree, str(path))


def _description(tree: Mapping[str, object], where: str) -> Description:
    names = Description.__match_args__
    for name in sorted(set(tree) ^ set(names)):
        problem = "is missing" if name in names else "is not known"
        raise FormatError("machine-description", f"the key {name!r} {problem}", where=where)
    words = tree["arguments"]
    texts = {name: tree[name] for name in names if name != "arguments"}
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise FormatError("machine-description", "'arguments' is not a list of text", where=where)
    for name, value in texts.items():
        if not isinstance(value, str):
            raise FormatError("machine-description", f"{name!r} is not text", where=where)
    return Description(
        **{name: str(value) for name, value in texts.items()}, arguments=tuple(words)
    )


def command(machine: Machine, description: Description) -> tuple[str, ...]:
    """The words of the QEMU command that runs ``machine``.

    The console (ttyS0) is QEMU's standard output; standard error carries
    QEMU's own complaints.
    """
    words = [description.program, "-machine", description.machine]
    words += ["-accel", machine.accelerator, "-cpu", description.cpu]
    words += ["-m", str(machine.memory_mib), "-smp", str(machine.cpus)]
    words += description.arguments
    if machine.firmware == "ovmf":
        words += ["-bios", description.ovmf]
    words += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    words += ["-qmp", f"unix:{_value(machine.monitor_socket)},server=on,wait=off"]
    words += ["-kernel", str(machine.kernel), "-initrd", str(machine.initramfs)]
    words += ["-append", machine.cmdline]
    for number, disk in enumerate(machine.disks):
        words += _disk(disk, f"disk{number}", description)
    words += _network(machine, description)
    if machine.ports:
        words += ["-device", f"{description.port_controller},id=ports"]
    for number, port in enumerate(machine.ports):
        way = "server=on,wait=off" if port.listens else "server=off"
        socket = f"socket,id=port{number},path={_value(port.socket)},{way}"
        words += ["-chardev", socket]
        words += ["-device", f"virtserialport,chardev=port{number},name={_value(port.name)}"]
    if machine.tpm_socket is not None:
        words += ["-chardev", f"socket,id=swtpm,path={_value(machine.tpm_socket)}"]
        words += ["-tpmdev", "emulator,id=tpm0,chardev=swtpm"]
        words += ["-device", f"{description.tpm_device},tpmdev=tpm0"]
    return (*words, *machine.extra)


def _disk(disk: DiskImage, name: str, description: Description) -> list[str]:
    # file.driver=file: otherwise "nbd:..." or "json:..." in a name would be a protocol.
    drive = f"if=none,id={name},format=raw,file.driver=file,file.filename={_value(disk.path)}"
    mode = "on" if disk.read_only else "off"
    device = f"{description.disk_device},drive={name},serial={_value(disk.serial)}"
    return ["-drive", f"{drive},readonly={mode}", "-device", device]


def _network(machine: Machine, description: Description) -> list[str]:
    if not machine.forwards and not machine.network:
        return ["-nic", "none"]
    rules = "".join(
        f",hostfwd=tcp:127.0.0.1:{rule.host_port}-:{rule.guest_port}" for rule in machine.forwards
    )
    # restrict=on: the guest is reached through the rules and itself reaches nothing.
    bound = "" if machine.network else ",restrict=on"
    return ["-nic", f"user,model={description.network_device}{bound}{rules}"]


def _value(value: Path | str) -> str:
    """``value`` inside a QEMU option list, where a comma is written twice."""
    return str(value).replace(",", ",,")

# SPDX-License-Identifier: Apache-2.0
"""The simulated secure processor as part of a run.

Serves ``machine.runner`` and ``troth run --sim-snp``. It launches with what QEMU
is given to boot, and keeps its keys in a directory beside the bundle: equal
inputs make equal bundles, and keys must not be equal. Must never write into the
bundle, and never start for a bundle that does not state that it is simulated.

Source: DESIGN section 6; ``docs/simulated.md``.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from troth.measure import simulated_launch
from troth.record import record
from troth.simulated import chip, pki, wire
from troth.simulated.host import Host
from troth.simulated.launch import Launch
from troth.simulated.server import Server

if TYPE_CHECKING:
    from pathlib import Path

    from troth.machine.qemu import Machine

PORT = wire.PORT

_SUFFIX = ".sim"
_OTHER = "other"


@record
class SimulatedPlatform:
    """What to start: the ``launch``, the directory of ``keys``, and who may command."""

    launch: Launch
    keys: Path
    control_socket: Path | None

    def socket(self, folder: Path) -> Path:
        """Where QEMU finds the processor, for a run whose sockets are in ``folder``."""
        return folder / "sim-snp"

    def start(self, folder: Path) -> Server:
        """The processor, listening; the keys are made first where there are none.

        Raises ``HostError`` ``sim-pki-directory``, ``sim-socket``; ``FormatError``
        ``sim-pki``.
        """
        kept = pki.kept_in(self.keys, _new)
        host = Host(self.launch, kept, other=lambda: pki.kept_in(self.keys / _OTHER, _new))
        return Server(host, front_socket=self.socket(folder), control_socket=self.control_socket)


def keys_beside(bundle: Path) -> Path:
    """The directory of keys for the bundle directory ``bundle``."""
    resolved = bundle.resolve()
    return resolved.with_name(resolved.name + _SUFFIX)


def root_of(bundle: Path) -> str:
    """SHA-256 (hex) of the root that vouches for simulated guests of ``bundle``, made if need be.

    For whoever must know it before the first boot, as a broker does. Raises ``HostError``
    ``sim-pki-directory``; ``FormatError`` ``sim-pki``.
    """
    folder = keys_beside(bundle)
    pki.kept_in(folder, _new)
    return (folder / pki.ROOT_FILE).read_text("ascii").strip()


def plan(
    machine: Machine, *, keys: Path, control_socket: Path | None, instance: bytes | None
) -> SimulatedPlatform:
    """The platform that launches ``machine``; its kernel and initramfs are read here.

    ``instance``: the file whose digest is HOST_DATA, None for zeros.
    """
    measurement = simulated_launch.digest(
        kernel=machine.kernel.read_bytes(),
        initramfs=machine.initramfs.read_bytes(),
        cmdline=machine.cmdline.encode("utf-8", errors="surrogateescape"),
    )
    host_data = bytes(32) if instance is None else hashlib.sha256(instance).digest()
    return SimulatedPlatform(
        launch=Launch(measurement=measurement, host_data=host_data),
        keys=keys,
        control_socket=control_socket,
    )


def _new() -> pki.Pki:
    return pki.make(chip.new())

# SPDX-License-Identifier: Apache-2.0
"""What of a key is left in a guest's memory after the handover: all of it is searched.

No log is believed (SECURITY S19). A secret that the guest's own program makes is found,
which shows that the search works. While the volume is open, halves of its XTS key stand
where the cipher's key schedules begin, and nowhere else: once the map is gone, so are
they. The key that the broker released, the keys of records and tags, and what the
exchange with the broker left are in neither picture.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import sqlite3

from boot.keyed import PATH, blank
from boot.machine import check_good
from troth.volumes import keys

MEMORY_MIB = 512
_PROMPT = b"(qemu) "
_LIMIT_S = 120


class Looker:
    """Takes a picture of the guest's memory at each of its steps, and lets it go on."""

    def __init__(self, place):
        self.port, self.monitor = place / "port", place / "monitor"
        self.pictures = {}
        self._place = place
        self._connection = None

    @property
    def options(self):
        return [
            "--port", f"test.steps={self.port}",
            "--qemu-arg=-monitor", f"--qemu-arg=unix:{self.monitor},server=on,wait=off",
            "--memory", f"{MEMORY_MIB}M",
        ]  # fmt: skip

    def watch(self, console, _process):
        """For ``machine.run``: whether all has been seen."""
        for step in ("open", "closed"):
            if f"@@ step {step}\n" in console and step not in self.pictures:
                self.pictures[step] = self._picture(step)
                self._answer()
        return len(self.pictures) == 2

    def _picture(self, step):
        path = self._place / f"memory-{step}"
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as monitor:
            monitor.settimeout(_LIMIT_S)
            monitor.connect(str(self.monitor))
            self._prompt(monitor)
            monitor.sendall(b'pmemsave 0 %d "%s"\n' % (MEMORY_MIB << 20, str(path).encode()))
            self._prompt(monitor)
        data = path.read_bytes()
        path.unlink()
        assert len(data) == MEMORY_MIB << 20
        return data

    @staticmethod
    def _prompt(monitor):
        said = b""
        while not said.endswith(_PROMPT):
            said += monitor.recv(4096)

    def _answer(self):
        if self._connection is None:
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.connect(str(self.port))
        self._connection.sendall(b"\n")

    def close(self):
        if self._connection is not None:
            self._connection.close()


def secret_of(broker):
    """The key that the broker keeps for the volume, from its database."""
    with contextlib.closing(sqlite3.connect(broker.folder / "broker.sqlite3")) as rows:
        ((secret, uuid, profile),) = rows.execute(
            "SELECT secret, uuid, profile FROM resources WHERE path = ?", (PATH,)
        )
    return secret, uuid, profile


def forms(key):
    """How a key of some bytes could lie about."""
    return (key, key.hex().encode(), base64.b64encode(key), base64.urlsafe_b64encode(key))


def test_no_key_is_left(keyed, tmp_path, token):
    broker = keyed.broker(tmp_path / "db", "keyed")
    keyed.add_volume(broker)
    disk, looker = blank(tmp_path / "data.img"), Looker(tmp_path)
    cmdline = tmp_path / "cmdline"
    text = (keyed.bundle("keyed") / "cmdline").read_text()
    cmdline.write_text(text.replace("app.look=no", "app.look=yes"))
    with keyed.reachable(broker):
        # The first boot formats, so that even the keys of a new record are looked for.
        found = keyed.boot(
            keyed.bundle("keyed"), disk, tmp_path, "--cmdline", cmdline, *looker.options,
            watch=looker.watch,
        )  # fmt: skip
    looker.close()
    disk.unlink()
    check_good(found, token)
    secret, uuid, profile = secret_of(broker)
    derived = {
        role: keys.derive(secret, uuid=uuid, profile=profile, role=role)
        for role in (keys.XTS, keys.HMAC, keys.RECORD)
    }
    halves = (derived[keys.XTS][:32], derived[keys.XTS][32:])
    planted = bytes(ord(token[at % len(token)]) ^ 0x15 for at in range(32))
    for step, memory in looker.pictures.items():
        assert memory.count(planted) >= 1, "the search finds nothing at all"
        for name, key in {"released": secret, **derived}.items():
            for form in forms(key):
                assert form not in memory, f"{name} key, {step}"
        # The session with the broker: its token and the answer with the key.
        for words in (b'{"token":"ey', b"eyJhbGciOiJFUzI1NiI", b'"encrypted_key":"'):
            assert words not in memory, f"{words!r}, {step}"
    open_, closed = looker.pictures["open"], looker.pictures["closed"]
    for half in halves:
        assert open_.count(half) >= 1, "an open volume has its key schedule"
        assert half not in closed

# SPDX-License-Identifier: Apache-2.0
"""The key broker beside the boots of ``volumes``: ``troth keybroker serve`` on this machine.

Serves ``volumes``. Its guests are simulated ones whose images it gets as signed reference
values, as any broker does. Must never outlive the bench.
"""

from __future__ import annotations

import base64
import re
import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

from rows import TROTH

from troth.machine import simulated_platform

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds in which no other boot gets a volume's key.
LEASE_S = 1


class Broker:
    """One broker for the bundles below ``work``; all share one simulated platform."""

    def __init__(self, work: Path) -> None:
        work.mkdir()
        self._work = work
        self.root = simulated_platform.root_of(work / "platform")
        self._platform = simulated_platform.keys_beside(work / "platform")
        self._vendor, self._public = work / "vendor.pem", work / "vendor.pub"
        for words in (
            ("genpkey", "-algorithm", "ed25519", "-out", self._vendor),
            ("pkey", "-in", self._vendor, "-pubout", "-out", self._public),
        ):
            subprocess.run(["openssl", *words], check=True)
        (work / "policy.toml").write_text(self._policy())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._serving = self._serve()
        self.spki = self._pin()
        self._serving.send_signal(signal.SIGTERM)
        self._serving.wait(30)

    def _policy(self) -> str:
        made = self._work / "made.toml"
        _troth("verify", "init-policy", "--simulated", "--accept-unprotected-acpi", "-o", made)
        lines = self._public.read_text().splitlines()
        public = base64.b64encode(base64.b64decode("".join(lines[1:-1]))).decode()
        text = made.read_text()
        for pattern, wanted in (
            (r"(?m)^trusted_roots = .*$", f'trusted_roots = ["{self.root}"]'),
            (r"(?m)^public_keys = .*$", f'public_keys = ["{public}"]'),
            # which no kernel before 6.12 can have
            (r"(?m)^accept = \[\]$", 'accept = ["io-errors"]'),
            # of the guest policy, which comes first; one processor has no sibling anyway
            (r"(?m)^smt = false$", "smt = true"),
        ):
            text, count = re.subn(pattern, wanted, text, count=1)
            if count != 1:
                raise SystemExit(f"bench: the policy has no line {pattern}")
        return text

    def _serve(self) -> subprocess.Popen[str]:
        words = ("--listen", f"127.0.0.1:{self.port}", "--policy", "policy.toml")
        return subprocess.Popen(
            [
                TROTH,
                "keybroker",
                "serve",
                "--db",
                "db",
                *words,
                "--certs",
                self._platform / "certs",
            ],
            cwd=self._work,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _pin(self) -> str:
        said = ""
        for line in self._serving.stdout or ():
            said += line
            found = re.search(r"spki\W+([0-9a-f]{64})", said)
            if found is not None:
                return found[1]
        raise SystemExit(f"bench: the broker does not serve: {said}")

    def manifest(self) -> str:
        """The lines that name it."""
        return (
            f'[[broker]]\nname = "keys"\naddresses = ["10.0.2.2:{self.port}"]\n'
            f'spki = ["{self.spki}"]\n'
        )

    def add(self, bundle: Path, *, image: str, form: str, uuid: str) -> None:
        """Let guests of ``bundle`` have a new volume's key, and no guest that of another."""
        place = bundle.with_name(f"{bundle.name}.sim")
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self._platform, place)
        signed = bundle.with_name(f"{bundle.name}-reference.json")
        key = ("--key", self._vendor, "--valid-days", "30", "-o", signed)
        _troth("reference", "sign", bundle, *key)
        base = ("keybroker", "add", "--db", self._work / "db")
        _troth(*base, "--reference", signed, "--key", self._public)
        rest = ("--image", image, "--lease", str(LEASE_S), "--format", form)
        _troth(*base, "--volume", f"default/disk-key/{image}", "--uuid", uuid, *rest)

    def __enter__(self) -> None:
        self._serving = self._serve()
        self._pin()

    def __exit__(self, *_: object) -> None:
        self._serving.send_signal(signal.SIGTERM)
        if self._serving.wait(30) != 0:
            raise SystemExit("bench: the broker did not end in order")


def _troth(*words: str | Path) -> None:
    subprocess.run([TROTH, *words], check=True, stdout=subprocess.DEVNULL)

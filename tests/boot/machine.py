# SPDX-License-Identifier: Apache-2.0
"""One run of ``troth run`` and what came of it, and what "fails closed" means."""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from boot.bundles import TROTH

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: A healthy boot takes 4 to 8 s on a busy machine; a refusal that takes longer has hung.
TIMEOUT_S = 120
#: The kernel waits 40 ms for ten ticks of a timer, and QEMU's thread may have to wait longer for
#: a processor of this machine. Nothing of ours has begun by then.
_STARVED = "Kernel panic - not syncing: IO-APIC + timer doesn't work"
_STARVED_TRIES = 3
#: A line of the kernel. It can begin in the middle of a program's line, which then goes on.
_PRINTK = re.compile(r"\[ {0,4}\d+\.\d{6}\] [^\n]*(\n|$)")


@dataclass(frozen=True)
class Boot:
    """``result``: the JSON of ``troth run``; ``console``: all the guest printed."""

    status: int
    result: dict
    console: str
    duration_s: float

    @property
    def code(self) -> str | None:
        return self.result["code"]

    @property
    def stages(self) -> list[str]:
        return [stage["name"] for stage in self.result["stages"] if stage["ok"]]

    @property
    def said(self) -> str:
        """What programs printed, the kernel's lines taken out."""
        return _PRINTK.sub("", self.console)

    def section(self, name: str) -> str:
        """Lines of the guest's section ``name``, the kernel's own left out."""
        found = self.sections()
        assert name in found, f"the guest printed no section {name!r}:\n{self.console}"
        return found[name]

    def sections(self) -> dict[str, str]:
        sections: dict[str, list[str]] = {}
        current: list[str] = []
        for line in self.said.splitlines():
            if line.startswith("@@ "):
                current = sections.setdefault(line.removeprefix("@@ "), [])
            elif line:
                current.append(line)
        return {name: "\n".join(lines) for name, lines in sections.items()}

    def lines(self, name: str) -> list[str]:
        return self.section(name).splitlines()

    def pairs(self, name: str) -> dict[str, str]:
        """Section ``name`` of lines "key value"."""
        return dict(line.split(" ", 1) for line in self.lines(name))

    def json(self, name: str) -> dict:
        return json.loads(self.section(name))


def run(
    bundle: Path,
    scratch: Path,
    *options: str | Path,
    timeout_s: float = TIMEOUT_S,
    watch: Callable[[str, psutil.Process], bool] | None = None,
    beside: list[str] | None = None,
) -> Boot:
    """Boot ``bundle``. ``watch`` sees the console so far and the process until it returns True.

    ``beside``: a program that runs while the guest does. Boots again, and says so, where the
    kernel gave up on a timer that QEMU had no time for.
    """
    for _ in range(_STARVED_TRIES - 1):
        boot = _run(bundle, scratch, options, timeout_s, watch, beside)
        if _STARVED not in boot.console or "troth: " in boot.console:
            return boot
        print(f"QEMU was starved, the guest is booted again: {bundle}")
    return _run(bundle, scratch, options, timeout_s, watch, beside)


def _run(
    bundle: Path,
    scratch: Path,
    options: tuple[str | Path, ...],
    timeout_s: float,
    watch: Callable[[str, psutil.Process], bool] | None,
    beside: list[str] | None,
) -> Boot:
    console = scratch / "console"
    console.unlink(missing_ok=True)
    words = [TROTH, "run", bundle, "--accel", "tcg", "--json", "--console", console]
    words += ["--timeout", str(timeout_s), *options]
    helper = None if beside is None else subprocess.Popen(beside)
    begun_s = time.monotonic()
    with (
        (scratch / "stdout").open("wb") as stdout,
        (scratch / "stderr").open("wb") as stderr,
        subprocess.Popen(words, stdout=stdout, stderr=stderr) as process,
    ):
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            if watch is not None and console.exists() and watch(_text(console), parent):
                watch = None
            time.sleep(0.02)
    if helper is not None:
        helper.kill()
        helper.wait()
    text = _text(scratch / "stdout")
    assert text, f"troth run said nothing but: {_text(scratch / 'stderr')}"
    return Boot(process.returncode, json.loads(text), _text(console), time.monotonic() - begun_s)


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace").replace("\r", "")


def check_good(boot: Boot, token: str) -> None:
    """Reached the next program, which came to its end, and was switched off in order."""
    assert boot.status == 0, f"{boot.result}\n{boot.console}"
    assert boot.result["outcome"] == "handover"
    assert f"@@ marker {token}" in boot.said
    assert f"@@ done {token}" in boot.said


def check_refused(
    boot: Boot, token: str, code: str, *, stage: str, exact: str = "", within_s: float = 40
) -> None:
    """Failed closed: the right code, the next program not reached, and over in time.

    ``exact``: what a console that may have details says besides.
    """
    assert boot.code == code, f"{boot.result}\n{boot.console}"
    assert boot.result["outcome"] == "refused"
    assert boot.status == 1
    assert token not in boot.console
    assert "troth: handover" not in boot.console
    shown = f"{code} {exact}" if exact else code
    assert f"troth: stage {stage} failed {shown}\n" in boot.console, boot.console
    ours = [line for line in boot.console.splitlines() if "troth: " in line]
    last = f"troth: refused {code}: " + (f"{exact}: " if exact else "")
    assert ours[-1].startswith(last), boot.console
    assert boot.duration_s < within_s, f"took {boot.duration_s} s"

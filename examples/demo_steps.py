# SPDX-License-Identifier: Apache-2.0
"""What the demonstrations of this directory share: saying what is done, and doing it."""

import json
import socket
import subprocess
import sys
from pathlib import Path

TROTH = str(Path(sys.executable).with_name("troth"))
BOOT_S = 300


def tell(text: str) -> None:
    print(f"\n== {text}", flush=True)


def need(condition: bool, text: str) -> None:
    if not condition:
        sys.exit(f"demo: this should have been true: {text}")
    print(f"   {text}", flush=True)


def troth(*words: str, expect: int = 0) -> str:
    print(f"$ troth {' '.join(words)}", flush=True)
    done = subprocess.run([TROTH, *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != expect:
        sys.exit(
            f"demo: troth {words[0]} ended with {done.returncode}, not {expect}\n{done.stdout}"
        )
    return done.stdout


def openssl(*words: str) -> None:
    print(f"$ openssl {' '.join(words)}", flush=True)
    subprocess.run(["openssl", *words], check=True, stderr=subprocess.DEVNULL)


def vendor_keys(output: Path) -> tuple[Path, Path]:
    """The vendor's key and its public half, made where there are none."""
    key, public = output / "vendor.pem", output / "vendor.pub.pem"
    if not key.exists():
        openssl("genpkey", "-algorithm", "ed25519", "-out", str(key))
    openssl("pkey", "-in", str(key), "-pubout", "-out", str(public))
    return key, public


def sign(bundle: Path, key: Path, reference: Path) -> None:
    troth(
        "reference", "sign", str(bundle), "--key", str(key), "--valid-days", "30",
        "-o", str(reference),
    )  # fmt: skip


def init_policy(path: Path, *fillings: tuple[str, list[str], str]) -> None:
    """A strict policy for simulated guests; ``fillings``: (empty list, what it holds, why)."""
    path.unlink(missing_ok=True)  # of an earlier run: troth would not overwrite it
    troth("verify", "init-policy", "--simulated", "--accept-unprotected-acpi", "-o", str(path))
    text = path.read_text()
    for line, found, why in fillings:
        need(text.count(f"\n{line} = []") == 1, f"{line}: {why}")
        text = text.replace(f"\n{line} = []", f"\n{line} = {json.dumps(found)}")
    # `troth verify` names this line in a hint: QEMU's usual guest policy permits SMT.
    text = text.replace("\nsmt = false\nmigrate_ma", "\nsmt = true\nmigrate_ma")
    path.write_text(text)


def refused(bundle: Path, *words: str) -> dict[str, str]:
    """The outcome of a boot that PID 1 must refuse."""
    outcome = json.loads(
        troth("run", str(bundle), "--sim-snp", "--json", "--timeout", str(BOOT_S), *words, expect=1)
    )
    need(outcome["outcome"] == "refused", f"refused {outcome['code']}: {outcome['message']}")
    need(outcome["handover"] is None, "nothing was handed over")
    return outcome


def said(console: Path) -> list[tuple[str, str]]:
    """(key, rest) of the lines ``demo-check KEY REST`` that the guest's program printed."""
    lines = console.read_text("utf-8", "replace").splitlines()
    found = [
        line[line.index("demo-check ") :].split(" ", 2) for line in lines if "demo-check " in line
    ]
    return [(words[1], words[2].strip()) for words in found if len(words) == 3]


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports

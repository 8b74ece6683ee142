#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The story of one image, told by running it: build, boot, ask, compare, tamper.

    examples/demo.py examples/service OUTPUT

Every step is a command of troth that you can run yourself; each is printed
before it runs. Ends with status 0 only if every step did what it promised.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

TROTH = str(Path(sys.executable).with_name("troth"))
BOOT_S = 300
BLOCK_BYTES = 4096


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
        sys.exit(f"demo: troth {words[0]} ended with {done.returncode}, not {expect}\n{done.stdout}")
    return done.stdout


def build(example: Path, output: Path) -> Path:
    tell("Build: from troth.toml to a bundle. Nothing is random: built twice, it is the same.")
    bundle = output / "bundle"
    # A lock of another day would be refused; the second build below must obey this one.
    troth("build", str(example / "troth.toml"), "-o", str(bundle), "--update")
    again = output / "again"
    troth("build", str(example / "troth.toml"), "-o", str(again))
    troth("inspect", str(bundle), "diff", str(again))
    need(True, "two builds, no difference")
    shutil.rmtree(again)
    return bundle


def boot(bundle: Path, output: Path) -> list[str]:
    tell("Boot: PID 1 verifies the disks, measures, and hands over to systemd.")
    # The policy lets the host choose between exactly two values of this key.
    cmdline = (bundle / "cmdline").read_text().replace("demo.check=off", "demo.check=poweroff")
    (output / "cmdline").write_text(cmdline)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [
        "run", str(bundle), "--cmdline", str(output / "cmdline"), "--forward", f"{port}:8080",
        "--timeout", str(BOOT_S), "--console", str(output / "console.txt"),
        "--chart", str(output / "boot.svg"),
    ]  # fmt: skip
    print(f"$ troth {' '.join(words)}", flush=True)
    with subprocess.Popen([TROTH, *words]) as guest:
        answer = ask(f"http://127.0.0.1:{port}/", guest)
        print(f"GET http://127.0.0.1:{port}/\n{answer.strip()}")
        facts = json.loads(answer)
        need(facts["root"]["type"] == "overlay", "the service runs on the overlay")
        need(facts["model"]["mount"]["source"].startswith("/dev/dm-"), "its model is on dm-verity")
        status = guest.wait(timeout=BOOT_S)
    need(status == 0, "troth run: handed over, and powered off in order")
    return (output / "console.txt").read_text("utf-8", "replace").splitlines()


def ask(url: str, guest: "subprocess.Popen[bytes]") -> str:
    end = time.monotonic() + BOOT_S
    while time.monotonic() < end and guest.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    sys.exit("demo: the service did not answer")


def compare(bundle: Path, console: list[str], output: Path) -> None:
    said = [line[line.index("demo-check ") :].split(" ", 2) for line in console if "demo-check " in line]
    words = {parts[1]: parts[2].strip() for parts in said if len(parts) == 3}
    tell("What the guest says of itself.")
    need(words["state"] == "running", "systemctl is-system-running: running")
    need("failed" not in words, "no failed unit")
    need(words["root"].split()[2] == "overlay", f"root: {words['root'].split()[3][:60]}...")
    need("ro" in words["workload"].split()[-1].split(","), "the measured /opt/app is read-only")
    tell("Compare: what its TPM holds is what the build predicted.")
    measured = json.loads(words["measurements"])
    cases = json.loads(troth("pcr", "predict", str(bundle), "--at", "handover", "--json"))
    cmdline = (output / "cmdline").read_text()
    (expected,) = [case for case in cases if (case["cmdline"], case["tpm"]) == (cmdline, "present")]
    for register in measured["registers"]:
        wanted = expected["pcrs"][register["bank"]][str(register["pcr"])]
        if register["observed"] != wanted:
            sys.exit(f"demo: PCR {register['pcr']} ({register['bank']}) is not as predicted")
        if register["bank"] == "sha256":
            print(f"   PCR {register['pcr']:>2} (sha256) {wanted}")
    need(bool(measured["registers"]), f"{len(measured['registers'])} registers equal the prediction")
    need(measured["software_register"] == expected["software"], "so does the software register")
    print(
        "   Note: this machine has no confidential hardware, and SeaBIOS measures neither kernel\n"
        "   nor initramfs. The registers therefore prove arithmetic only, not what booted."
    )


def tamper(bundle: Path, output: Path) -> None:
    tell("Tamper: one bit of the root disk is flipped.")
    other = output / "tampered"
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(bundle, other)
    with (other / "root.img").open("r+b") as disk:
        disk.seek(BLOCK_BYTES - 1)
        byte = disk.read(1)[0]
        disk.seek(BLOCK_BYTES - 1)
        disk.write(bytes([byte ^ 1]))
    outcome = json.loads(troth("run", str(other), "--json", "--timeout", str(BOOT_S), expect=1))
    need(outcome["outcome"] == "refused", f"refused {outcome['code']}: {outcome['message']}")
    need(outcome["handover"] is None, "nothing was handed over")
    shutil.rmtree(other)


def main() -> None:
    example, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.mkdir(parents=True, exist_ok=True)
    bundle = build(example, output)
    console = boot(bundle, output)
    compare(bundle, console, output)
    tamper(bundle, output)
    tell(f"Done. The bundle, the console and a chart of the boot are in {output}/.")


if __name__ == "__main__":
    main()

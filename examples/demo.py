#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The story of one image, told by running it: build, sign, boot, ask, verify, compare, tamper.

    examples/demo.py examples/service OUTPUT

Every step is a command of troth that you can run yourself; each is printed
before it runs. Ends with status 0 only if every step did what it promised.
"""

import http.client
import json
import secrets
import shutil
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from demo_steps import (
    BOOT_S, TROTH, free_ports, init_policy, need, refused, said, sign, tell, troth, vendor_keys,
)  # fmt: skip

BLOCK_BYTES = 4096


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


def sign_reference(bundle: Path, output: Path) -> str:
    tell("Sign: the vendor of the image says what a good guest of it shows. The vendor's key:")
    key, public = vendor_keys(output)
    sign(bundle, key, output / "reference.json")
    return "".join(public.read_text().splitlines()[1:-1])


def write_policy(bundle: Path, output: Path, vendor: str) -> None:
    tell("Policy: what the relying party accepts. What it does not say is refused.")
    root = (Path(f"{bundle}.sim") / "root-sha256").read_text().strip()
    values = json.loads((bundle / "reference-values.json").read_text())
    digests = [launch["digest"] for launch in values["launch"]]
    init_policy(
        output / "policy.toml",
        ("trusted_roots", [root], "certificates: this simulated platform's root"),
        ("measurements", digests, "a report alone: the launch digests of this image"),
        ("public_keys", [vendor], "evidence: the key that signs reference values"),
    )


class Guest:
    """A boot of ``bundle`` with its two ports forwarded; ends with the ``with`` block."""

    def __init__(self, bundle: Path, output: Path) -> None:
        self.bundle, self.output = bundle, output
        self.console = output / "console.txt"

    def __enter__(self) -> Self:
        # The policy of the image lets the host choose between exactly two values of this key.
        text = (self.bundle / "cmdline").read_text()
        cmdline = self.output / "cmdline"
        cmdline.write_text(text.replace("demo.check=off", "demo.check=poweroff"))
        self.http, self.tls = free_ports(2)
        words = [
            "run", str(self.bundle), "--sim-snp", "--cmdline", str(cmdline),
            "--forward", f"{self.http}:8080", "--forward", f"{self.tls}:8443",
            "--timeout", str(BOOT_S), "--console", str(self.console),
            "--chart", str(self.output / "boot.svg"),
        ]  # fmt: skip
        print(f"$ troth {' '.join(words)}", flush=True)
        self._process = subprocess.Popen([TROTH, *words])
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=30)

    def ask(self, path: str, *, certificate: bytes = b"") -> tuple[bytes, bytes]:
        """What the service answers over TLS, and the certificate it showed.

        ``certificate``: it must be this one. Waits for a service that is not up yet.
        """
        end = time.monotonic() + BOOT_S
        while time.monotonic() < end and self._process.poll() is None:
            # No name and no issuer means anything here: the key is judged by evidence.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.tls, timeout=90, context=context
            )
            try:
                connection.connect()
                shown = connection.sock.getpeercert(binary_form=True)
                if certificate and shown != certificate:
                    sys.exit("demo: another key answers now")
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException):
                time.sleep(0.5)
                continue
            finally:
                connection.close()
            if answer.status != 200:
                sys.exit(f"demo: GET {path}: {answer.status} {body.decode()}")
            return body, shown
        sys.exit("demo: the service did not answer")

    def ended_well(self) -> None:
        """Waits until the guest has powered itself off."""
        need(
            self._process.wait(timeout=BOOT_S) == 0,
            "troth run: handed over, and powered off in order",
        )


def boot(bundle: Path, output: Path, vendor: str) -> Path:
    tell("Boot: PID 1 verifies the disks, measures, and hands over to systemd.")
    with Guest(bundle, output) as guest:
        nonce, other = secrets.token_hex(32), secrets.token_hex(32)
        certificate = fetch(guest, "evidence", nonce, output)
        write_policy(bundle, output, vendor)
        tell("Verify, before anything is believed: the evidence, for this nonce and this TLS key.")
        troth(*verify_words(bundle, output, nonce, shown=output))
        need(True, "accepted: pass-simulated, for the processor was a program")
        failed = failed_checks(troth(*verify_words(bundle, output, other, shown=output), "--json", expect=1))
        need(failed[0]["code"] == "evidence-nonce", "the same evidence for another nonce: refused")
        tell("A report alone, by nonce: smaller, and it verifies on its own.")
        fetch(guest, "report", other, output)
        troth(
            "verify", "report", str(output / "report.json"), "--certs", f"{bundle}.sim/certs",
            "--policy", str(output / "policy.toml"), "--nonce", other, "--accept-simulated",
        )  # fmt: skip
        need(True, "accepted as well")
        tell("Use the service, over TLS with the key that the evidence vouches for.")
        answer, _ = guest.ask("/", certificate=certificate)
        print(answer.decode().strip())
        facts = json.loads(answer)
        need(facts["root"]["type"] == "overlay", "the service runs on the overlay")
        need(facts["model"]["mount"]["source"].startswith("/dev/dm-"), "its model is on dm-verity")
        guest.ended_well()
        return guest.console


def fetch(guest: Guest, what: str, nonce: str, output: Path) -> bytes:
    """Ask the service; the certificate that it showed."""
    path = f"/{what}?nonce={nonce}"
    print(f"GET https://127.0.0.1:{guest.tls}{path}", flush=True)
    body, certificate = guest.ask(path)
    (output / f"{what}.json").write_bytes(body)
    (output / "certificate.pem").write_text(ssl.DER_cert_to_PEM_cert(certificate))
    need(True, f"{what}.json, {len(body)} bytes")
    return certificate


def verify_words(bundle: Path, output: Path, nonce: str, *, shown: Path) -> list[str]:
    return [
        "verify", "evidence", str(shown / "evidence.json"),
        "--reference", str(output / "reference.json"), "--policy", str(output / "policy.toml"),
        "--certs", f"{bundle}.sim/certs", "--nonce", nonce,
        "--channel-key", str(shown / "certificate.pem"), "--accept-simulated",
    ]  # fmt: skip


def failed_checks(result: str) -> list[dict[str, str]]:
    return [check for check in json.loads(result)["checks"] if check["verdict"] == "fail"]


def compare(bundle: Path, console: Path, output: Path) -> None:
    words = dict(said(console))
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
    info = json.loads(words["info"])
    need(info["snp"] == "simulated", f"curl --unix-socket: the agent of image {info['image']!r}")
    nonce, report = words["report"].split()
    need(len(bytes.fromhex(report)) == 1184, f"troth report: 1184 bytes for nonce {nonce[:16]}...")
    need(
        bool(measured["registers"]), f"{len(measured['registers'])} registers equal the prediction"
    )
    need(measured["software_register"] == expected["software"], "so does the software register")
    print(
        "   Note: this machine has no confidential hardware, and SeaBIOS measures neither kernel\n"
        "   nor initramfs. The registers therefore prove arithmetic only, not what booted."
    )


def change(example: Path, bundle: Path, output: Path) -> None:
    tell("Change: another image, whose service differs by one line, speaks for itself.")
    other = output / "changed"
    other.mkdir(exist_ok=True)
    root, manifest = output / "changed.tar", output / "changed.toml"
    shutil.copyfile(example / "rootfs.tar", root)
    line = output / "opt/app/service.py"
    line.parent.mkdir(parents=True, exist_ok=True)
    line.write_text((example / "app/service.py").read_text() + "# one line more\n")
    line.chmod(0o755)
    name = "./opt/app/service.py"
    for words in (["--delete"], ["--append", "--owner=0", "--group=0", "--directory", str(output)]):
        subprocess.run(["tar", "--file", str(root), *words, name], check=True)
    text = (example / "troth.toml").read_text()
    text = text.replace('"rootfs.tar"', '"changed.tar"').replace(
        '"models/"', f'"{(example / "models").resolve()}/"'
    )
    manifest.write_text(text)
    troth("build", str(manifest), "-o", str(other), "--update")
    # The same machine starts it: what follows is about the image, not about the chip.
    shutil.copytree(f"{bundle}.sim", f"{other}.sim", dirs_exist_ok=True)
    shown = output / "changed.shown"
    shown.mkdir(exist_ok=True)
    with Guest(other, shown) as guest:
        nonce = secrets.token_hex(32)
        fetch(guest, "evidence", nonce, shown)
    found = troth(*verify_words(bundle, output, nonce, shown=shown), "--json", expect=1)
    failed = {check["code"]: check for check in failed_checks(found)}
    for code, check in failed.items():
        print(f"   {code}: {check['observed'][:150]}")
    first = failed["boot-events"]["observed"]
    need(first.startswith("first difference: "), "refused, and it says where the boots part")


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
    refused(other)
    shutil.rmtree(other)


def main() -> None:
    example, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.mkdir(parents=True, exist_ok=True)
    bundle = build(example, output)
    vendor = sign_reference(bundle, output)
    console = boot(bundle, output, vendor)
    compare(bundle, console, output)
    change(example, bundle, output)
    tamper(bundle, output)
    tell(f"Done. The bundle, the console and a chart of the boot are in {output}/.")


if __name__ == "__main__":
    main()

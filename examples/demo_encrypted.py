#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The story of one encrypted disk: a broker, boots that get its key, boots that do not.

    examples/demo_encrypted.py examples/encrypted OUTPUT

Every step is a command of troth that you can run yourself; each is printed
before it runs. Ends with status 0 only if every step did what it promised.
"""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from demo_steps import (
    BOOT_S, TROTH, free_ports, init_policy, need, refused, said, sign, tell, troth, vendor_keys,
)  # fmt: skip

from troth.machine.simulated_platform import root_of

DISK_BYTES = 32 << 20
PATH = "default/disk-key/notes"
WORDS = b"the spare key is under the blue pot"
#: No other guest gets the key for so long. On a real broker a minute, the default.
LEASE_S = 1


@contextlib.contextmanager
def broker(output: Path, image: Path) -> Iterator[tuple[int, str]]:
    """The broker while it runs: its port, and the digest of its key that guests pin."""
    tell("Broker, 1 of 5: whom it trusts. Here the machine is simulated, so its root is named.")
    init_policy(
        output / "policy.toml",
        # On hardware this line stays empty: AMD's roots are built in.
        ("trusted_roots", [root_of(image)], "certificates: the simulated platform's root"),
    )
    tell("Broker, 2 of 5: it runs. Its key is made once; the digest of it is who it is.")
    (port,) = free_ports(1)
    words = [
        "keybroker", "serve", "--db", str(output / "broker"), "--listen", f"127.0.0.1:{port}",
        "--policy", str(output / "policy.toml"), "--certs", f"{image}.sim/certs",
    ]  # fmt: skip
    print(f"$ troth {' '.join(words)} &", flush=True)
    with subprocess.Popen([TROTH, *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            pin = ""
            while not pin:
                line = process.stdout.readline()
                need(bool(line), line.strip() or "the broker serves")
                pin = line[len('spki = ["') : -3] if line.startswith("spki = ") else ""
            yield port, pin
        finally:
            process.terminate()
    need(process.returncode == 0, "the broker ended when it was told to")


def build(example: Path, image: Path, *, svn: int, port: int, pin: str) -> Path:
    """Version ``svn`` of the image: the example with this broker, and other content."""
    source = image.with_name(f"{image.name}.source")
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(example, source, symlinks=True)
    (source / "rootfs/etc/version").write_text(f"{svn}\n")
    manifest = source / "troth.toml"
    text = manifest.read_text()
    for line in (f"svn = {svn}", f'addresses = ["10.0.2.2:{port}"]', f'spki = ["{pin}"]'):
        text, found = re.subn(rf"(?m)^{line.split()[0]} = .*$", line, text)
        need(found == 1, f"troth.toml: {line}")
    manifest.write_text(text)
    troth("build", str(manifest), "-o", str(image), "--update")
    shutil.rmtree(source)
    return image


def add_image(output: Path, image: Path) -> None:
    """Tell the broker which guests are of this image: who signed it, and what it shows."""
    key, public = vendor_keys(output)
    reference = image.with_name(f"{image.name}.reference.json")
    sign(image, key, reference)
    print(troth("keybroker", "add", "--db", str(output / "broker"), "--reference", str(reference),
                "--key", str(public)).strip())  # fmt: skip


def boot(image: Path, disk: Path, console: Path) -> dict[str, list[str]]:
    """A boot that ends well; what the program said in it, by key."""
    time.sleep(LEASE_S)
    troth(
        "run", str(image), "--sim-snp", "--disk", f"notes={disk}", "--console", str(console),
        "--timeout", str(BOOT_S),
    )  # fmt: skip
    found: dict[str, list[str]] = {}
    for key, rest in said(console):
        found.setdefault(key, []).append(rest)
    device, kind, _options = found["mount"][0].split(" ", 2)
    need(device.startswith("/dev/dm-"), f"/srv/notes is {kind} on {device}, an encrypted map")
    for note in found.get("note", ["none yet"]):
        print(f"   found note: {note}")
    return found


def volume(output: Path) -> dict[str, object]:
    """What the broker says of the volume."""
    print(troth("keybroker", "list", "--db", str(output / "broker")).strip())
    listed = json.loads(troth("keybroker", "list", "--db", str(output / "broker"), "--json"))
    (found,) = listed["resources"]
    return found["volume"]


def no_boot(image: Path, disk: Path, console: Path) -> None:
    time.sleep(LEASE_S)
    refused(image, "--disk", f"notes={disk}", "--console", str(console))
    for line in console.read_text("utf-8", "replace").splitlines():
        if "troth: refused" in line:
            print(f"   {line}")


def audit(output: Path) -> None:
    tell("The broker wrote down each decision before it acted on it.")
    for line in (output / "broker/audit.jsonl").read_text().splitlines():
        entry = json.loads(line)
        who = f"guest {entry['report_id'][:8]}" if "report_id" in entry else entry.get("peer", "")
        rest = " ".join(str(entry[key]) for key in ("state", "generation", "detail") if key in entry)
        print(f"   {entry['event']:<14} {entry['code']:<20} {who:<15} {rest[:80]}")


def main() -> None:
    example, output = Path(sys.argv[1]), Path(sys.argv[2])
    shutil.rmtree(output, ignore_errors=True)  # a broker remembers; this story begins anew
    output.mkdir(parents=True)
    first, second, disk = output / "v1", output / "v2", output / "notes.img"
    with broker(output, first) as (port, pin):
        tell("Build the image, which pins that digest. Its volume has a name and an id, and no key.")
        build(example, first, svn=1, port=port, pin=pin)
        tell("Broker, 3 of 5: which image may ask. The image's vendor says how to know it.")
        add_image(output, first)
        tell("Broker, 4 of 5: which volume it may have. The broker makes its key.")
        encrypted = json.loads((first / "policy.json").read_text())["encrypted"]
        print(troth("keybroker", "add", "--db", str(output / "broker"), "--volume", PATH,
                    "--uuid", encrypted[0]["uuid"], "--image", "encrypted",
                    "--lease", str(LEASE_S)).strip())  # fmt: skip
        tell("Broker, 5 of 5: what it has.")
        need(volume(output)["state"] == "new", "a new volume")

        tell("First boot, with a blank disk. The broker says it is new, so the guest formats it.")
        with disk.open("wb") as file:
            file.truncate(DISK_BYTES)
        need(boot(first, disk, output / "boot-1.txt")["found"] == ["0"], "no notes yet")
        need(volume(output)["generation"] == 1, "in use, and counted: generation 1")
        kept = Path(shutil.copyfile(disk, output / "kept.img"))

        tell("Second boot: the same disk, another guest of the same image.")
        need(boot(first, disk, output / "boot-2.txt")["found"] == ["1"], "it found the note")
        need(volume(output)["generation"] == 2, "generation 2")
        content = disk.read_bytes()
        need(content != kept.read_bytes(), "it wrote to the disk")
        need(WORDS not in content and b"lost+found" not in content,
             "the disk holds no word of it, nor a file system that one could see")  # fmt: skip
        del content

        tell("Rolled back: the host attaches the copy that it made before the second boot.")
        no_boot(first, kept, output / "rolled-back.txt")
        kept.unlink()

        tell("Withdrawn: version 1 has a hole, so guests of it get no key any more.")
        print(troth("keybroker", "retire", "encrypted", "--svn", "1",
                    "--db", str(output / "broker")).strip())  # fmt: skip
        no_boot(first, disk, output / "withdrawn.txt")

        tell("Upgrade: version 2 of the image, with other content, on the same machine.")
        shutil.copytree(f"{first}.sim", f"{second}.sim")
        build(example, second, svn=2, port=port, pin=pin)
        add_image(output, second)
        found = boot(second, disk, output / "boot-3.txt")
        need(found["version"] == ["2"], "version 2 runs")
        need(found["found"] == ["2"], "it found both notes of version 1")
        need(volume(output)["state"] == "in-use", "one volume, from image to image")
        audit(output)
    tell(f"Done. Images, disk, consoles and the broker's database are in {output}/.")


if __name__ == "__main__":
    main()

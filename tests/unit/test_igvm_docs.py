# SPDX-License-Identifier: Apache-2.0
"""docs/igvm.md and the launch script say what the builder does."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from troth.image.igvm import layout

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "examples" / "igvm-launch.sh"
TYPES = {"RAM": 1, "reserved": 2, "ACPI": 3, "ACPI NVS": 4, "": None}


def rows():
    """First and last byte and e820 type of each row of the memory map, below 1 MiB."""
    text = (REPOSITORY / "docs" / "igvm.md").read_text("utf-8")
    found = []
    for line in re.findall(r"^\| (?:0|0x[0-9a-f]+) \| 0x[0-9a-f]+ \|.*$", text, re.MULTILINE):
        first, last, what, kind = (cell.strip() for cell in line.strip("|").split("|"))
        found.append((int(first, 0), int(last, 0), what, TYPES[kind]))
    return found


def test_the_memory_map_has_no_gaps():
    ends = [(first, last) for first, last, _, _ in rows()]
    assert ends[0][0] == 0
    assert [last + 1 for _, last in ends[:-1]] == [first for first, _ in ends[1:]]
    assert ends[-1][1] == 0xFFFFF


@pytest.mark.parametrize(
    ("what", "gpa"),
    [
        ("`boot_params`", layout.BOOT_PARAMS),
        ("the first two instructions", layout.ENTRY),
        ("page tables", layout.PAGE_TABLES),
        ("command line", layout.CMDLINE),
        ("`setup_data`", layout.SETUP_DATA),
        ("`cc_blob_sev_info`", layout.CC_BLOB),
        ("CPUID page", layout.CPUID),
        ("secrets page", layout.SECRETS),
        ("FACS", layout.FACS),
        ("RSDP, XSDT", layout.ACPI),
        ("zeros: the ROM area", layout.ROMS),
    ],
)
def test_the_memory_map_has_the_builders_places(what, gpa):
    assert [first for first, _, text, _ in rows() if text.startswith(what)] == [gpa]


def test_the_memory_map_has_the_builders_types():
    plan = layout.Plan(layout.ram(128 << 20), layout._e820(layout.ram(128 << 20)), 0, 0)
    for first, last, _, kind in rows():
        inside = {region.kind for region in plan.e820 if region.gpa <= last and first < region.end}
        assert inside == ({kind} if kind else set()), hex(first)


def words(tmp_path, **variables):
    bundle, file = tmp_path / "a bundle", tmp_path / "x.igvm"
    bundle.mkdir()
    for name in ("manifest.json", "root.img", "volume-models.img"):
        (bundle / name).touch()
    file.touch()
    fake = tmp_path / "qemu"
    fake.write_text('#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done\n')
    fake.chmod(0o755)
    done = subprocess.run(
        [SCRIPT, bundle, file], check=True, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "QEMU": str(fake), **variables},
    )  # fmt: skip
    return done.stdout.splitlines()


def test_the_launch_script(tmp_path):
    found = words(tmp_path, VCPUS="3", MEMORY="512M", HOST_DATA="AA==", ID_BLOCK="B", ID_AUTH="C")
    assert found[found.index("-smp") + 1] == "3,sockets=1,cores=3,threads=1,maxcpus=3"
    assert found[found.index("-m") + 1] == "512M"
    text = " ".join(found)
    assert "-vga none" in text
    assert "-bios" not in text
    assert "tpm" not in text
    assert "size=512M" in text
    assert "host-data=AA==,id-block=B,id-auth=C" in text
    assert f"file={tmp_path}/a bundle/volume-models.img" in text
    assert text.count("virtio-blk-pci") == 2
    assert "serial=root," in text
    assert "serial=models," in text


def test_the_launch_script_with_a_tpm(tmp_path):
    text = " ".join(words(tmp_path, TPM_SOCKET="/run/x"))
    assert "-chardev socket,id=swtpm,path=/run/x" in text
    assert "-device tpm-crb,tpmdev=tpm0" in text


def test_the_launch_script_without_a_bundle(tmp_path):
    done = subprocess.run([SCRIPT, tmp_path, tmp_path], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is no bundle" in done.stderr

# SPDX-License-Identifier: Apache-2.0
"""The kernel's own configfs-tsm beside the front's: the same questions, the same answers.

A small module, built here from Debian's kernel headers, gives the genuine core of
Linux 6.12 a provider; what programs see besides the report is the core's. So the
front, and the provider in ``attest`` that all tests try against it, are held
against the interface that they are written for. Skipped where apt has no headers
of the kernel in use. The kernel is not locked down: the module has no signature.
"""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import tomllib
from base64 import b64decode
from pathlib import Path

import pytest

from boot.bundles import SOURCES, compile_guest
from boot.machine import TIMEOUT_S, Boot, _text
from troth.abi import cpio
from troth.image.inputs import kernel

#: Of the core, not of the provider.
MODULES = ("fs/configfs/configfs.ko.xz", "drivers/virt/coco/tsm.ko.xz")


def headers(release):
    """The unpacked headers of this kernel, from the cache or from apt; skips without."""
    place = kernel.cache_directory() / "headers" / release
    if place.exists():
        return place
    name = f"linux-headers-{release}"
    said = subprocess.run(
        ["apt-cache", "depends", name], capture_output=True, text=True, check=False
    ).stdout
    needed = [line.split()[1] for line in said.splitlines() if line.startswith("  Depends: linux-")]
    if len(needed) < 2 or shutil.which("make") is None:
        pytest.skip(f"needs make, and {name} from apt")
    part = place.with_name(f"{release}.{os.getpid()}")
    part.mkdir(parents=True)
    fetched = subprocess.run(
        ["apt-get", "-qq", "download", "-o", "APT::Sandbox::User=root", name,
         *(one for one in needed if one.startswith(("linux-headers-", "linux-kbuild-")))],
        cwd=part, capture_output=True, check=False,
    )  # fmt: skip
    if fetched.returncode:
        shutil.rmtree(part)
        pytest.skip(f"apt cannot download {name}")
    for package in part.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, part], check=True)
        package.unlink()
    part.rename(place)
    return place


def provider_module(release, place):
    """``genuine_tsm.ko`` for this kernel."""
    sources = headers(release) / "usr/src"
    (common,) = sources.glob("linux-headers-*-common")
    place.mkdir()
    shutil.copy(SOURCES / "genuine_tsm.c", place)
    (place / "Makefile").write_text("obj-m := genuine_tsm.o\n")
    made = subprocess.run(
        ["make", "-C", common, f"O={sources / f'linux-headers-{release}'}", f"M={place}",
         "CC=gcc", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    return (place / "genuine_tsm.ko").read_bytes()


@pytest.fixture(scope="module")
def genuine(forge, token, tmp_path_factory):
    """What the guest with the kernel's own interface printed."""
    place = tmp_path_factory.mktemp("genuine")
    bundle = forge.bundle("simulated")
    # The forge has written down which kernel its manifests name.
    named = tomllib.loads(f"kernel = {(forge.base / 'kernel-6.12').read_text()}")["kernel"]
    modules = Path(named["modules"])
    release = modules.name
    compile_guest("genuine", place / "init", token)
    members = [cpio.Member("init", 0o100755, (place / "init").read_bytes())]
    for name in MODULES:
        packed = (modules / "kernel" / name).read_bytes()
        plain = name.rpartition("/")[2].removesuffix(".xz")
        members.append(cpio.Member(plain, 0o100644, lzma.decompress(packed)))
    made = provider_module(release, place / "module")
    members.append(cpio.Member("genuine_tsm.ko", 0o100644, made))
    # The later archive wins: its init is the one that runs.
    initramfs = place / "initramfs"
    initramfs.write_bytes((bundle / "initramfs").read_bytes() + cpio.write(members))
    return run(bundle / "vmlinuz", initramfs, place)


def run(vmlinuz, initramfs, place):
    """Boot without troth: this guest has no disk, no command line of a bundle and no lockdown."""
    console = place / "console"
    done = subprocess.run(
        ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nographic",
         "-nodefaults", "-no-user-config", "-no-reboot", "-serial", f"file:{console}",
         "-kernel", vmlinuz, "-initrd", initramfs,
         "-append", "console=ttyS0 panic=-1 quiet"],
        capture_output=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    return Boot(done.returncode, {}, _text(console), 0)


def test_it_is_the_kernels_own(genuine, token):
    assert f"@@ done {token}" in genuine.console
    assert genuine.lines(f"marker {token}") == [
        "load /configfs.ko ok",
        "load /tsm.ko ok",
        "load /genuine_tsm.ko ok",
    ]


def test_programs_see_the_same(forge, boot, genuine):
    """Every line of what a program asks and gets, but for the blobs themselves."""
    front = boot(forge.bundle("simulated"), "--sim-snp")
    assert len(tree(genuine, "tree")) == 28
    assert len(tree(genuine, "corners")) > 120
    for name in ("tree", "corners"):
        assert tree(front, name) == tree(genuine, name)
    for name in ("list /sys/kernel/config/tsm/report", "list /sys/kernel/config/tsm/report/a"):
        assert sorted(front.lines(name)) == sorted(genuine.lines(name))
    assert front.lines("removed") == genuine.lines("removed")
    # docs/simulated.md names these: the kernel's FUSE answers them by itself.
    assert front.lines("loose")[0] == "write d/privlevel 0 ok"
    assert genuine.lines("loose")[0] == "write d/privlevel 0 EFAULT"
    assert [row for row in front.lines("loose") if row.startswith("lseek")] == ["lseek 8"]
    assert [row for row in genuine.lines("loose") if row.startswith("lseek")] == ["lseek ESPIPE"]


def tree(found, section):
    """The lines of the section; of a blob only whether it came."""
    return [
        " ".join(line.split(" ")[:3]) if "blob ok" in line else line
        for line in found.lines(section)
    ]


def test_the_providers_report(genuine):
    """Made by the module, fetched through the core by troth's verb in the guest."""
    assert genuine.section("status configfs-tsm") == "0", genuine.console
    answer = genuine.json("verb configfs-tsm")
    assert answer["provider"] == "configfs-tsm"
    report = b64decode(answer["report"])
    assert len(report) == 1184
    assert report[0x90:0xC0] == bytes(at % 251 for at in range(0x90, 0xC0))
    assert report[0x2A0:] == bytes(at % 251 for at in range(0x2A0, 1184))
    assert b64decode(answer["certificates"]).startswith(b"no table, but")

# SPDX-License-Identifier: Apache-2.0
"""``troth doctor``: what this machine has and lacks for building and booting.

Serves people before their first build. Only looks: must never install or
change anything.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from troth.machine import kvm_probe, qemu
from troth.record import record

if TYPE_CHECKING:
    from argparse import Namespace

_VERSION = re.compile(r"\d+(?:\.\d+)+[\w.+~-]*")
_VERSION_TIMEOUT_S = 10.0
MIN_PYTHON = (3, 11)


@record
class Tool:
    """A program: Debian ``package``, ``why`` it is used, ``version`` option, whether needed."""

    name: str
    package: str
    why: str
    version: str = "--version"
    required: bool = True


@record
class Finding:
    """What was found of one need; ``version`` is empty where it is missing or not told."""

    name: str
    why: str
    required: bool
    found: bool
    version: str
    package: str


TOOLS = (
    Tool("apt-get", "apt", "downloads the kernel package of a manifest"),
    Tool("dpkg-deb", "dpkg", "unpacks the kernel package"),
    Tool("mkfs.erofs", "erofs-utils", "makes root and volume images (the default)"),
    Tool("mksquashfs", "squashfs-tools", "makes squashfs images", "-version", required=False),
    Tool("mkfs.ext4", "e2fsprogs", "makes ext4 images", "-V", required=False),
    Tool("strip", "binutils", "strips what goes into an initramfs"),
    Tool("as", "binutils", "assembles the small static programs of an image"),
    Tool("ld", "binutils", "links the small static programs of an image"),
    Tool("zstd", "zstd", "packs initramfs images"),
    Tool("lz4", "lz4", "packs initramfs images"),
    Tool("fakeroot", "fakeroot", "gives the files of images their owners and modes", "-v"),
    Tool("depmod", "kmod", "indexes the modules of a root ([root] modules)", required=False),
    Tool("qemu-system-x86_64", "qemu-system-x86", "boots bundles (troth run)"),
    Tool("swtpm", "swtpm", "the vTPM of a booted bundle"),
    Tool("setpriv", "util-linux", "ends guests together with troth run", required=False),
)


def doctor(options: Namespace) -> int:
    """Print the findings; 0 when everything required is there, else 3."""
    findings = [*(_program(tool) for tool in TOOLS), _python(), _ovmf()]
    kvm = kvm_probe.probe()
    missing = [finding for finding in findings if not finding.found]
    remedy = apt_line(missing)
    if options.json:
        tree = {
            "schema": "troth-doctor-v1",
            "accelerator": "kvm" if kvm.usable else "tcg",
            "accelerator_reason": kvm.reason,
            "findings": [{name: getattr(f, name) for name in f.__match_args__} for f in findings],
            "remedy": remedy or None,
        }
        print(json.dumps(tree))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            print(_row(finding, width))
        print(f"{'accelerator':<{width}}  {'kvm' if kvm.usable else 'tcg':<9} {kvm.reason}")
        if remedy:
            print(f"\nTo install what is missing:\n  {remedy}")
    return 3 if any(finding.required for finding in missing) else 0


def apt_line(missing: list[Finding]) -> str:
    """The one command that installs ``missing``; empty when nothing is."""
    packages = sorted({finding.package for finding in missing})
    return f"sudo apt-get install --no-install-recommends {' '.join(packages)}" if packages else ""


def _row(finding: Finding, width: int) -> str:
    state = finding.version or "present"
    if not finding.found:
        state = "MISSING" if finding.required else "missing"
    return f"{finding.name:<{width}}  {state:<9} {finding.why}"


def _program(tool: Tool) -> Finding:
    # Administrators' folders are not on every user's PATH, but the programs run for everyone.
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    program = shutil.which(tool.name, path=path)
    version = _version((program, tool.version)) if program else ""
    return Finding(tool.name, tool.why, tool.required, bool(program), version, tool.package)


def _version(words: tuple[str, ...]) -> str:
    """The first thing like a version number that ``words`` print, else nothing."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = _VERSION.search(done.stdout.decode(errors="replace"))
    return match[0] if match else ""


def _python() -> Finding:
    """The distribution's interpreter: the one that is packed unless a manifest names another."""
    version = _version(("/usr/bin/python3", "--version"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    why = "the interpreter packed into an initramfs, 3.11 or newer"
    return Finding("/usr/bin/python3", why, True, numbers >= MIN_PYTHON, version, "python3")


def _ovmf() -> Finding:
    path = qemu.load_description().ovmf
    why = "UEFI firmware for troth run --firmware ovmf"
    return Finding(path, why, False, Path(path).is_file(), "", "ovmf")

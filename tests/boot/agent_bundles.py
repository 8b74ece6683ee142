# SPDX-License-Identifier: Apache-2.0
"""Bundles of the agent's tests: Debian with systemd, a small root of another libc, no root."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from boot.bundles import SOURCES, TROTH, compile_guest

if TYPE_CHECKING:
    from pathlib import Path

    from boot.bundles import Forge

#: Who may what in all of these guests.
ATTEST = """
[attest]
group = 900
raw_report_data = "root"
extend = [{ user = 1000UNIT }]
"""

_SYSTEMD = (
    """
[image]
name = "agent-systemd"
kernel = {kernel}
compression = "none"
[root]
source = "rootfs.tar"
[measure]
workload = ["/opt/app"]
[tee]
snp = "simulated"
vtpm = "required"
[fail]
deadline_s = 90
"""
    + ATTEST.replace("UNIT", ', unit = "agent-check.service"')
    + "quote = true\n"
)

_FOREIGN = """
[image]
name = "agent-foreign"
kernel = {kernel}
compression = "none"
[root]
source = "rootfs"
overlay = "none"
[tee]
snp = "simulated"
vtpm = "none"
""" + ATTEST.replace("UNIT", "")

_QUESTION = '{"nonce":"00112233445566778899aabbccddeeff"}'
#: As user 0 without rights it may signal the agent, which no other user may.
_WORDS = [
    "/app/run", "list", "/run/troth", "ask", "health", "GET", "/healthz", "-",
    "ask", "info", "GET", "/v1/info", "-", "ask", "measurements", "GET", "/v1/measurements", "-",
    "ask", "report", "POST", "/v1/report", _QUESTION,
    "run", "/run/troth/bin/troth", "measurements", "--json", ";",
    "ask", "extend", "POST", "/v1/extend", '{"event":"app.start","data":"00ff"}',
    "ask", "raw", "POST", "/v1/raw-report", "{}",
    "send", "9", "gone", "0", "20", "wait", "20",
    "ask", "log", "GET", "/v1/event-log", "-",
    "ask", "health-again", "GET", "/healthz", "-",
    "ask", "report-again", "POST", "/v1/report", _QUESTION,
    # Nobody hears from it for half a minute: PID 1 ends it and starts another.
    "send", "19", "gone", "0", "60", "wait", "20",
    "step", "death", "ask", "death", "POST", "/v1/report", _QUESTION,
    "ask", "lost", "POST", "/v1/report", _QUESTION,
    "ask", "log-at-end", "GET", "/v1/event-log", "-", "exit", "0",
]  # fmt: skip
_SUPERVISED = (
    """
[image]
name = "agent-supervised"
kernel = {kernel}
compression = "none"
[handover]
supervise = WORDS
grace_s = 5
[initramfs]
files = "app"
[tee]
snp = "simulated"
vtpm = "required"
""".replace("WORDS", str(_WORDS))
    + ATTEST.replace("1000UNIT", "0")
)

_REQUIRED = """
[image]
name = "agent-required"
kernel = {kernel}
compression = "none"
[root]
source = "../smallfs"
overlay = "none"
[tee]
snp = "required"
vtpm = "none"
"""

MANIFESTS = {
    "agent-systemd": ("6.12", _SYSTEMD),
    "agent-foreign": ("6.12", _FOREIGN),
    "agent-supervised": ("6.1", _SUPERVISED),
    "agent-required": ("6.12", _REQUIRED),
}

_MASKED = (
    "getty.target getty@.service serial-getty@.service console-getty.service "
    "systemd-logind.service systemd-random-seed.service systemd-pstore.service "
    "ldconfig.service systemd-sysusers.service systemd-update-done.service "
    "systemd-journal-catalog-update.service systemd-firstboot.service systemd-rfkill.service "
    "proc-sys-fs-binfmt_misc.automount sys-kernel-debug.mount sys-kernel-tracing.mount "
    "dev-hugepages.mount dev-mqueue.mount e2scrub_all.timer e2scrub_reap.service fstrim.timer "
    "dpkg-db-backup.timer apt-daily.timer apt-daily-upgrade.timer"
)


def bundle(forge: Forge, name: str) -> Path:
    """The bundle ``name``, built where no worker has built it yet."""
    place = forge.base / name
    with forge._locked(name):
        if not (place / "bundle").exists():
            place.mkdir(exist_ok=True)
            series, text = MANIFESTS[name]
            _SOURCES.get(name, lambda *_: None)(place, forge.token)
            manifest = place / "troth.toml"
            manifest.write_text(text.replace("{kernel}", forge._kernel(series)))
            subprocess.run([TROTH, "build", manifest, "-o", place / "bundle"], check=True)
    return place / "bundle"


def _systemd(place: Path, token: str) -> None:
    app = place / "app"
    app.mkdir()
    compile_guest("agent", app / "agent", token)
    shutil.copyfile(SOURCES / "agent-check", app / "check")
    (app / "check").chmod(0o755)
    unit = SOURCES / "agent-check.service"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=essential", "--include=systemd-sysv",
         "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
         "--dpkgopt=path-exclude=/usr/share/locale/*",
         '--customize-hook=mkdir -p "$1/opt/app"',
         f"--customize-hook=copy-in {app / 'agent'} {app / 'check'} /opt/app",
         f"--customize-hook=copy-in {unit} /etc/systemd/system",
         '--customize-hook=chmod 0755 "$1/opt/app" "$1/opt/app/agent" "$1/opt/app/check"',
         '--customize-hook=chroot "$1" systemctl --quiet enable agent-check.service',
         f'--customize-hook=chroot "$1" systemctl --quiet mask {_MASKED}',
         '--customize-hook=chroot "$1" systemctl --quiet set-default multi-user.target',
         '--customize-hook=: > "$1/etc/machine-id"; : > "$1/etc/fstab"',
         "--skip=output/dev",
         '--customize-hook=rm -rf "$1"/var/cache/* "$1"/var/log/* "$1"/etc/resolv.conf',
         "bookworm", place / "rootfs.tar"],
        check=True, env=os.environ | {"SOURCE_DATE_EPOCH": "1735689600", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip


def _foreign(place: Path, token: str) -> None:
    """Musl, no Python; where glibc and its programs would be there is something else."""
    root = place / "rootfs"
    for name in ("sbin", "lib", "lib64", "usr/bin", "usr/lib/python3.11", "etc"):
        (root / name).mkdir(parents=True)
    subprocess.run(
        ["musl-gcc", "-D_GNU_SOURCE", f'-DTOKEN="{token}"', "-O1", "-w", "-s", "-o",
         root / "sbin/init", SOURCES / "agent.c"],
        check=True,
    )  # fmt: skip
    shutil.copyfile("/lib/x86_64-linux-musl/libc.so", root / "lib/ld-musl-x86_64.so.1")
    for name in ("lib/ld-musl-x86_64.so.1", "lib64/ld-linux-x86-64.so.2", "usr/bin/python3"):
        (root / name).touch()
        (root / name).chmod(0o755)
    for name in ("lib64/ld-linux-x86-64.so.2", "usr/bin/python3", "usr/lib/python3.11/os.py"):
        (root / name).write_bytes(b"nothing that anybody could run\n")


def _supervised(place: Path, token: str) -> None:
    (place / "app").mkdir()
    compile_guest("agent", place / "app/run", token)


_SOURCES = {
    "agent-systemd": _systemd,
    "agent-foreign": _foreign,
    "agent-supervised": _supervised,
}

# SPDX-License-Identifier: Apache-2.0
"""Programs of the build host, run by name with an environment of our own.

Serves the rooms of ``image`` that lean on the distribution's tools. A missing
program is a ``HostError`` that names the package; a failing one a
``BuildError`` that quotes its last words. Never passes the caller's locale,
time zone or Python variables on: output must not depend on them.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from troth.errors import BuildError, HostError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: Which Debian package brings a program.
PACKAGES = {
    "as": "binutils",
    "debugfs": "e2fsprogs",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "dpkg-query": "dpkg",
    "fakeroot": "fakeroot",
    "fsck.erofs": "erofs-utils",
    "ld": "binutils",
    "lz4": "lz4",
    "mkfs.erofs": "erofs-utils",
    "mkfs.ext4": "e2fsprogs",
    "mksquashfs": "squashfs-tools",
    "strip": "binutils",
    "unsquashfs": "squashfs-tools",
    "xz": "xz-utils",
    "zstd": "zstd",
}

_NO_APT = "on a machine without apt: kernel = { vmlinuz = ..., modules = ... }"
#: What to do where installing a package is not the answer.
REMEDIES = {"apt-cache": _NO_APT, "apt-get": _NO_APT}

_KEPT = ("PATH", "HOME", "TMPDIR", "http_proxy", "https_proxy", "no_proxy", "APT_CONFIG")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment that programs get: the caller's place, nobody's language."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    # mkfs and debugfs live in sbin, which is not on everybody's path.
    kept["PATH"] = kept.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return {**kept, "LC_ALL": "C.UTF-8", "TZ": "UTC", **(extra or {})}


def run(
    argv: Sequence[str | Path],
    *,
    stdin: bytes = b"",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: int = 600,
) -> bytes:
    """Standard output of ``argv``, run to its end.

    ``env``: the whole environment, default ``environment()``. Raises
    ``HostError`` ``program-missing``; ``BuildError`` ``program-failed``
    (non-zero exit, the end of standard error in the message) and
    ``program-timeout``.
    """
    name = os.path.basename(argv[0])
    try:
        done = subprocess.run(
            [os.fspath(word) for word in argv],
            input=stdin,
            capture_output=True,
            cwd=cwd,
            env=dict(environment() if env is None else env),
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        remedy = REMEDIES.get(name, f"apt-get install {PACKAGES.get(name, name)}")
        raise HostError(
            "program-missing",
            f"the program {name} is not on this machine",
            hint=remedy,
        ) from None
    except PermissionError as error:
        raise HostError("program-missing", f"{name} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise BuildError(
            "program-timeout", f"{name} did not end within {timeout_s} seconds"
        ) from None
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()[-4:]
        raise BuildError(
            "program-failed",
            f"{name} ended with {done.returncode}: {' / '.join(words) or 'it said nothing'}",
        )
    return done.stdout


def start(argv: Sequence[str], *, stdin: int) -> subprocess.Popen[bytes]:
    """A decompressor reading descriptor ``stdin``; its output is the process's ``stdout``.

    The caller bounds what it reads, ends the process and judges its exit
    status. Raises ``HostError`` ``program-missing``.
    """
    try:
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
    except FileNotFoundError:
        raise HostError(
            "program-missing",
            f"the program {argv[0]} is not on this machine",
            hint=f"apt-get install {PACKAGES.get(argv[0], argv[0])}",
        ) from None

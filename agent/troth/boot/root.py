# SPDX-License-Identifier: Apache-2.0
"""Stage 10: the verified root read-only, what may be written above it, further volumes in it."""

from __future__ import annotations

import errno
import os

from troth.boot.state import LOWER, SYSROOT, UPPER
from troth.errors import Refusal
from troth.linux.mount import MS_NODEV, MS_NOSUID, MS_RDONLY, TIGHT, bind, mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.state import State
    from troth.documents.policy import Volume


def run(state: State) -> None:
    """Build /sysroot; raise ``Refusal`` ``fs-unsupported``, ``root-mount`` or ``volume-mount``."""
    policy = state.policy
    root, *volumes = policy.volumes
    os.mkdir(LOWER)
    _mount_verified(state, root, target=LOWER, flags=MS_NODEV)
    if policy.overlay == "tmpfs":
        os.mkdir(UPPER)
        mount("tmpfs", UPPER, flags=TIGHT, data="mode=0755,size=50%")
    if policy.overlay == "tmpfs" and "/" in policy.overlay_paths:
        _overlay("/", 0, target=SYSROOT)
    else:
        bind(LOWER, SYSROOT, flags=MS_RDONLY | MS_NODEV)
        if policy.overlay == "tmpfs":
            for number, path in enumerate(policy.overlay_paths):
                _overlay(path, number, target=SYSROOT + path)
    for volume in volumes:
        _mount_verified(state, volume, target=SYSROOT + volume.mount, flags=MS_NODEV | MS_NOSUID)
    _recheck(state)


def _mount_verified(state: State, volume: Volume, *, target: str, flags: int) -> None:
    code = "root-mount" if volume.mount == "/" else "volume-mount"
    try:
        mount(
            volume.file_system,
            target,
            source=state.maps[volume.name].node,
            flags=flags | MS_RDONLY,
            data=volume.options,
        )
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP):
            raise Refusal(
                "fs-unsupported",
                f"{volume.name}: this kernel cannot mount its {volume.file_system}",
            ) from error
        raise Refusal(
            code, f"{volume.name}: {volume.file_system} at {volume.mount}: {error.strerror}"
        ) from error


def _overlay(path: str, number: int, *, target: str) -> None:
    """Writable layer over LOWER``path``: everything in it is lost at power-off."""
    lower = LOWER if path == "/" else LOWER + path
    place = f"{UPPER}/{number}"
    try:
        status = os.stat(lower)
        os.mkdir(place)
        for name in ("upper", "work"):
            os.mkdir(f"{place}/{name}")
        # The upper directory's own attributes become those of the merged one.
        os.chown(f"{place}/upper", status.st_uid, status.st_gid)
        os.chmod(f"{place}/upper", status.st_mode & 0o7777)
        options = f"lowerdir={lower},upperdir={place}/upper,workdir={place}/work,xino=on"
        mount("overlay", target, flags=MS_NODEV, data=options)
    except OSError as error:
        raise Refusal("root-mount", f"overlay over {path}: {error.strerror}") from error


def _recheck(state: State) -> None:
    """Mounting read metadata: the maps must still be verified."""
    from troth.linux.dm import Control

    control = Control()
    try:
        for name, made in state.maps.items():
            status = control.status(made.name)
            if status[0].text.split()[:1] != ["V"]:
                raise Refusal("verity-data", f"{name}: corruption was met while mounting")
    finally:
        control.close()

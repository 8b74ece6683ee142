# SPDX-License-Identifier: Apache-2.0
"""Stage 10: the verified root read-only, what may be written above it, further volumes in it."""

from __future__ import annotations

import errno
import os

from troth.boot.state import LOWER, SYSROOT, UPPER
from troth.errors import Refusal
from troth.linux.mount import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, TIGHT, bind, mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.state import State
    from troth.documents.policy import Volume
    from troth.documents.policy_keys import Encrypted

NO_OVERLAY, IN_MEMORY = "none", "tmpfs"


def run(state: State) -> None:
    """Build /sysroot; raise ``Refusal`` ``fs-unsupported``, ``root-mount`` or ``volume-mount``."""
    policy = state.policy
    root, *volumes = policy.volumes
    os.mkdir(LOWER)
    _mount_verified(state, root, target=LOWER, flags=MS_NODEV)
    if policy.overlay != NO_OVERLAY:
        os.mkdir(UPPER)
        _mount_upper(state)
    if "/" in policy.overlay_paths:
        _overlay("/", target=SYSROOT)
    else:
        bind(LOWER, SYSROOT, flags=MS_RDONLY | MS_NODEV)
        for path in policy.overlay_paths:
            _overlay(path, target=SYSROOT + path)
    for volume in volumes:
        _mount_verified(state, volume, target=SYSROOT + volume.mount, flags=MS_NODEV | MS_NOSUID)
    for sealed in policy.encrypted:
        if sealed.mount:
            _mount_encrypted(state, sealed, target=SYSROOT + sealed.mount)
    _recheck(state)


def _mount_upper(state: State) -> None:
    """What the writable layer lies on: memory, or a volume that nobody else can write."""
    name = state.policy.overlay
    if name == IN_MEMORY:
        mount("tmpfs", UPPER, flags=TIGHT, data="mode=0755,size=50%")
        return
    for sealed in state.policy.encrypted:
        if sealed.name == name:
            _mount_encrypted(state, sealed, target=UPPER)


def _mount_encrypted(state: State, volume: Encrypted, *, target: str) -> None:
    flags = TIGHT & ~MS_NOEXEC if volume.executable else TIGHT
    try:
        mount(
            volume.file_system,
            target,
            source=state.opened[volume.name].node,
            flags=flags,
            data="errors=remount-ro",
        )
    except OSError as error:
        raise Refusal(
            "volume-mount",
            f"{volume.name}: {volume.file_system} at {volume.mount or target}: {error.strerror}",
        ) from error


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


def _overlay(path: str, *, target: str) -> None:
    """Writable layer over LOWER``path``; it lasts as long as what UPPER lies on."""
    lower = LOWER if path == "/" else LOWER + path
    place = upper_of(path)
    try:
        status = os.stat(lower)
        os.makedirs(f"{place}/work", exist_ok=True)
        if not os.path.isdir(f"{place}/upper"):
            os.mkdir(f"{place}/upper")
            # The upper directory's own attributes become those of the merged one.
            os.chown(f"{place}/upper", status.st_uid, status.st_gid)
            os.chmod(f"{place}/upper", status.st_mode & 0o7777)
        options = f"lowerdir={lower},upperdir={place}/upper,workdir={place}/work,xino=on"
        mount("overlay", target, flags=MS_NODEV, data=options)
    except OSError as error:
        raise Refusal("root-mount", f"overlay over {path}: {error.strerror}") from error


def upper_of(path: str) -> str:
    """The directory of the writable layer over ``path``: by name, so that it is found again."""
    return UPPER + "/" + path.replace("%", "%25").replace("/", "%2F")


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

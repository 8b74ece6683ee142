# SPDX-License-Identifier: Apache-2.0
"""The gate to libc: system calls that ``os`` does not have.

Serves PID 1 first. It speaks to ``_ctypes`` directly because importing the
``ctypes`` package costs ten times the instructions of everything done here
(it builds dozens of types nobody asked for). Each function has one prototype
below; a failing call raises ``OSError`` with the kernel's errno.

x86-64 only: the system call numbers are of that architecture
(arch/x86/entry/syscalls/syscall_64.tbl).
"""

from __future__ import annotations

import _ctypes
import os

SYS_PIVOT_ROOT = 155
SYS_ADD_KEY = 248
SYS_KEYCTL = 250
SYS_FINIT_MODULE = 313
SYS_OPENAT2 = 437


def _simple(code: str) -> type:
    """The C type with this struct code, as ctypes' own package would declare it."""
    return type(code, (_ctypes._SimpleCData,), {"_type_": code})  # noqa: SLF001 - its only name


_INT, _LONG, _UNSIGNED_LONG, _TEXT = _simple("i"), _simple("l"), _simple("L"), _simple("z")
_FLAGS = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
_LIBC = _ctypes.dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type]  # None: this process


def _prototype(name: str, result: type, *arguments: type) -> object:
    """The libc function ``name``, callable with exactly these types."""
    kind = type(
        name,
        (_ctypes.CFuncPtr,),
        {"_flags_": _FLAGS, "_restype_": result, "_argtypes_": arguments},
    )
    return kind(_ctypes.dlsym(_LIBC, name))


_mount = _prototype("mount", _INT, _TEXT, _TEXT, _TEXT, _UNSIGNED_LONG, _TEXT)
_umount2 = _prototype("umount2", _INT, _TEXT, _INT)
_pivot_root = _prototype("syscall", _LONG, _LONG, _TEXT, _TEXT)
_reboot = _prototype("reboot", _INT, _INT)
_unshare = _prototype("unshare", _INT, _INT)
_prctl = _prototype("prctl", _INT, _INT, *(_UNSIGNED_LONG,) * 4)
_finit_module = _prototype("syscall", _LONG, _LONG, _INT, _TEXT, _INT)
_openat2 = _prototype("syscall", _LONG, _LONG, _INT, _TEXT, _TEXT, _UNSIGNED_LONG)
_add_key = _prototype("syscall", _LONG, _LONG, _TEXT, _TEXT, _TEXT, _UNSIGNED_LONG, _INT)
_keyctl = _prototype("syscall", _LONG, _LONG, *(_LONG,) * 3)


def _call(function: object, *arguments: object, where: str | None = None) -> int:
    result: int = function(*arguments)  # type: ignore[operator]
    if result < 0:
        number = _ctypes.get_errno()
        raise OSError(number, os.strerror(number), where)
    return result


def mount(source: str, target: str, kind: str, *, flags: int = 0, data: str = "") -> None:
    """mount(2). ``flags``: MS_* bits of ``linux.mount``."""
    _call(
        _mount,
        source.encode(),
        target.encode(),
        kind.encode() or None,
        flags,
        data.encode() or None,
        where=target,
    )


def umount2(target: str, *, flags: int = 0) -> None:
    """umount2(2). ``flags``: MNT_* bits of ``linux.mount``."""
    _call(_umount2, target.encode(), flags, where=target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _call(_pivot_root, SYS_PIVOT_ROOT, new_root.encode(), put_old.encode(), where=new_root)


def reboot(command: int) -> None:
    """reboot(2) with a LINUX_REBOOT_CMD_* of ``linux.power``."""
    _call(_reboot, command)


def prctl(option: int, argument: int = 0) -> int:
    """prctl(2) with one argument, the others zero."""
    return _call(_prctl, option, argument, 0, 0, 0)


def unshare(flags: int) -> None:
    """unshare(2) with CLONE_NEW* bits."""
    _call(_unshare, flags)


def finit_module(fd: int, *, flags: int = 0, where: str = "") -> None:
    """finit_module(2) without parameters."""
    _call(_finit_module, SYS_FINIT_MODULE, fd, b"", flags, where=where)


def openat2(directory_fd: int, path: str, *, how: bytes) -> int:
    """openat2(2). ``how``: 24 bytes, struct open_how (flags, mode, resolve), little endian.

    The bytes contain NULs; the prototype passes their address, the length is
    given beside it.
    """
    return _call(_openat2, SYS_OPENAT2, directory_fd, path.encode(), how, len(how), where=path)


def add_key(kind: str, description: str, payload: bytes, *, keyring: int) -> int:
    """add_key(2): the serial number of the key."""
    return _call(
        _add_key, SYS_ADD_KEY, kind.encode(), description.encode(), payload, len(payload), keyring,
        where=description,
    )  # fmt: skip


def keyctl(operation: int, first: int, second: int) -> int:
    """keyctl(2) with two arguments."""
    return _call(_keyctl, SYS_KEYCTL, operation, first, second)

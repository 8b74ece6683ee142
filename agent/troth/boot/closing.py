# SPDX-License-Identifier: Apache-2.0
"""Closing the kernel: what the host or a later root could still reach through it (S33).

Switching sysrq off waits for a grace period of the kernel, so it is started
first and in the background; the rest is closed at the handover, when no
module has to be loaded any more.
"""

from __future__ import annotations

import _thread

from troth.errors import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.policy import Policy

#: Sysctl -> value. A kernel without the knob has nothing to close.
_CLOSED = (
    ("kernel/kexec_load_disabled", b"1"),
    ("kernel/panic_on_oops", b"1"),
    ("kernel/core_pattern", b"|/bin/false"),
)
_SYSRQ = "/proc/sys/kernel/sysrq"
_LOCKDOWN = "/sys/kernel/security/lockdown"
_WAIT_S = 10.0

_sysrq_closed = _thread.allocate_lock()
_sysrq_error: list[OSError] = []


def begin() -> None:
    """Start switching sysrq off: the host's serial line can send its break at any time."""
    _sysrq_closed.acquire()
    _thread.start_new_thread(_close_sysrq, ())


def _close_sysrq() -> None:
    try:
        _write(_SYSRQ, b"0")
    except FileNotFoundError:
        # A kernel without sysrq.
        return
    except OSError as error:
        _sysrq_error.append(error)
    finally:
        _sysrq_closed.release()


def finish(policy: Policy) -> None:
    """Close the rest and wait for sysrq. Raises ``Refusal`` ``lockdown`` or ``kernel-open``."""
    try:
        for name, value in _CLOSED:
            try:
                _write(f"/proc/sys/{name}", value)
            except FileNotFoundError:
                continue
        if policy.modules_disabled:
            _write("/proc/sys/kernel/modules_disabled", b"1")
    except OSError as error:
        raise Refusal("kernel-open", f"{error.filename}: {error.strerror}") from error
    if policy.lockdown != "none":
        try:
            _write(_LOCKDOWN, policy.lockdown.encode())
        except OSError as error:
            # EPERM also where it is locked as far already: by its command line, or by the
            # kernel itself under Secure Boot (security/lockdown/lockdown.c).
            if not _locked(policy.lockdown):
                raise Refusal(
                    "lockdown", f"the kernel cannot be locked down: {error.strerror}"
                ) from error
    if not _sysrq_closed.acquire(timeout=_WAIT_S) or _sysrq_error:
        raise Refusal("kernel-open", "sysrq could not be switched off")


def _locked(wanted: str) -> bool:
    """Whether the kernel says that it is locked down to ``wanted`` or further."""
    try:
        with open(_LOCKDOWN, "rb", buffering=0) as file:
            # "none [integrity] confidentiality": the level in force stands in brackets.
            levels = file.read(256).decode("ascii", "replace").split()
    except OSError:
        return False
    bare = [level.strip("[]") for level in levels]
    current = [index for index, level in enumerate(levels) if level.startswith("[")]
    return wanted in bare and bool(current) and current[0] >= bare.index(wanted)


def _write(path: str, value: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(value)

# SPDX-License-Identifier: Apache-2.0
"""Commands to a running simulated platform: JSON, one object a line each way.

Serves tests, demonstrations and people with ``troth run --sim-control SOCKET``.
Whoever reaches the socket is the host, so nothing is refused for rights; a
command that is wrong changes nothing. Must never show a key or a secret.

Source: ``docs/simulated.md``, "The control socket".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi.secrets_page import Svsm
from troth.documents import strict
from troth.errors import FormatError, TrothError
from troth.record import replace
from troth.simulated import faults

if TYPE_CHECKING:
    from troth.documents.strict import Reader
    from troth.simulated.host import Host
    from troth.simulated.launch import Launch

MAX_LINE_BYTES = 64 << 10

_HEX = {
    "measurement": 48,
    "host_data": 32,
    "family_id": 16,
    "image_id": 16,
    "id_key_digest": 48,
    "author_key_digest": 48,
    "current_tcb": 8,
    "committed_tcb": 8,
    "launch_tcb": 8,
}
_NUMBERS = (
    "policy",
    "guest_svn",
    "report_version",
    "platform_info",
    "launch_mit_vector",
    "current_mit_vector",
    "tsc_scale",
    "tsc_offset",
    "tsc_factor",
)
_FLAGS = ("author_key", "mask_chip_id", "mask_chip_key", "vlek")
_FIRMWARE = ("current_firmware", "committed_firmware")
_SVSM_SIZE_BYTES = 16 << 20
_SVSM_BASE = 0x80_0000_0000


def answer(line: bytes, host: Host) -> bytes:
    """Do what ``line`` says; the line to send back, with its newline.

    Never raises for what is in the line: the answer then has ``ok`` false, and
    ``code`` and ``message`` of the error.
    """
    try:
        tree = {"ok": True, **_do(line, host)}
    except TrothError as error:
        tree = {"ok": False, "code": error.code, "message": error.message}
    return strict.canonical(tree) + b"\n"


def _do(line: bytes, host: Host) -> dict[str, object]:
    top = strict.Reader(strict.parse(line, limit_bytes=MAX_LINE_BYTES), where="command")
    command = top.text("command", allowed=tuple(_COMMANDS))
    return _COMMANDS[command](top, host)


def _fault(top: Reader, host: Host) -> dict[str, object]:
    kind = top.text("kind")
    count = top.integer("count") if top.has("count") else 1
    value = top.integer("value") if top.has("value") else None
    top.close()
    return {"fault": _fault_tree(host.set_fault(kind, count=count, value=value))}


def _clear(top: Reader, host: Host) -> dict[str, object]:
    top.close()
    host.faults.clear()
    return {}


def _status(top: Reader, host: Host) -> dict[str, object]:
    top.close()
    processor = host.processor
    return {
        "launched": processor is not None,
        "counters": dict(host.counters),
        "messages": list(processor.counts) if processor is not None else [0, 0, 0, 0],
        "report_id": processor.report_id.hex() if processor is not None else None,
        "faults": [_fault_tree(fault) for fault in host.faults.pending()],
        "root_sha256": host.root_sha256,
    }


def _kinds(top: Reader, _host: Host) -> dict[str, object]:
    top.close()
    known = faults.KINDS.items()
    return {"kinds": {name: {"does": kind.does, "value": kind.value} for name, kind in known}}


def _launch(top: Reader, host: Host) -> dict[str, object]:
    changes = _changes(top, host.launch)
    top.close()
    if changes:
        host.relaunch(replace(host.launch, **changes))
    return {"launch": launch_tree(host.launch)}


def _secrets(top: Reader, host: Host) -> dict[str, object]:
    top.close()
    host.allow_secrets()
    return {}


_COMMANDS = {
    "fault": _fault,
    "clear-faults": _clear,
    "fault-kinds": _kinds,
    "status": _status,
    "launch": _launch,
    "allow-secrets": _secrets,
}
COMMANDS = tuple(_COMMANDS)


def _changes(top: Reader, launch: Launch) -> dict[str, object]:
    changes: dict[str, object] = {}
    for name, size_bytes in _HEX.items():
        if top.has(name):
            changes[name] = bytes.fromhex(top.digest(name, size_bytes=size_bytes))
    for name in _NUMBERS:
        if top.has(name):
            changes[name] = _number(top, name)
    for name in _FLAGS:
        if top.has(name):
            changes[name] = top.boolean(name)
    for name in _FIRMWARE:
        if top.has(name):
            changes[name] = _version(top.text(name))
    if top.has("guest_vmpl"):
        level = top.integer("guest_vmpl", maximum=3)
        changes["svsm"] = svsm(level) if level else None
    return {name: value for name, value in changes.items() if value != getattr(launch, name)}


def svsm(guest_vmpl: int) -> Svsm:
    """A service module above a guest at ``guest_vmpl``, 1 to 3, with memory of its own."""
    return Svsm(
        base=_SVSM_BASE,
        size_bytes=_SVSM_SIZE_BYTES,
        calling_area=_SVSM_BASE + _SVSM_SIZE_BYTES - 4096,
        max_version=1,
        guest_vmpl=guest_vmpl,
    )


def _number(top: Reader, name: str) -> int:
    """A JSON integer, or hex text behind 0x for what JSON numbers cannot hold."""
    if not isinstance(top.raw(name), str):
        return top.integer(name)
    text = top.text(name)
    digits = text.removeprefix("0x")
    if digits == text or not 1 <= len(digits) <= 16 or not set(digits) <= set("0123456789abcdef"):
        raise FormatError("sim-control", f"{name}: {text[:40]!r} is no number such as 0x30000")
    return int(digits, 16)


def _version(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    if len(parts) != 3 or not all(p.isascii() and p.isdecimal() and len(p) <= 3 for p in parts):
        raise FormatError("sim-control", f"{text[:40]!r} is no firmware version such as 1.55.50")
    return tuple(int(part) for part in parts)


def _fault_tree(fault: faults.Fault) -> dict[str, object]:
    return {"kind": fault.kind, "count": fault.count, "value": fault.value}


def launch_tree(launch: Launch) -> dict[str, object]:
    """``launch`` as the JSON object that the command ``launch`` shows and takes."""
    tree: dict[str, object] = {}
    for name in _HEX:
        raw: bytes | None = getattr(launch, name)
        if raw is not None:
            tree[name] = raw.hex()
    for name in _NUMBERS:
        tree[name] = f"{getattr(launch, name):#x}"
    for name in _FLAGS:
        tree[name] = getattr(launch, name)
    for name in _FIRMWARE:
        tree[name] = ".".join(str(number) for number in getattr(launch, name))
    tree["guest_vmpl"] = launch.svsm.guest_vmpl if launch.svsm is not None else 0
    return tree

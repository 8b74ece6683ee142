# SPDX-License-Identifier: Apache-2.0
"""/run/troth/state/boot.json: what PID 1 leaves behind for the guest's verbs.

PID 1 prints it without this module (``boot.handover``); a boot test holds both
against each other. Written before the handover, never changed afterwards.
"""

from __future__ import annotations

from troth.documents import strict
from troth.errors import FormatError
from troth.record import record

PATH = "/run/troth/state/boot.json"
SCHEMA = "troth-boot-v1"


@record
class BootState:
    """``handover``: the next init; ``tpm_kind``: "" where no TPM was used; ``events``: so far;
    ``software_register``: 48 bytes in hex; ``stages``: (name, milliseconds);
    ``host_data``, ``report_id``: 32 bytes in hex of the guest's own report, "" where
    the policy wants none; ``tpm_clock``: resets, restarts and milliseconds of the
    TPM before the first event, None where the policy wants no quotes.
    """  # noqa: D205 - the fields are the summary

    handover: str
    tpm_kind: str
    events: int
    software_register: str
    stages: tuple[tuple[str, int], ...]
    host_data: str = ""
    report_id: str = ""
    tpm_clock: tuple[int, int, int] | None = None


def parse(data: bytes, *, where: str = PATH) -> BootState:
    """The state in ``data``; ``FormatError`` ``json-*``, ``boot-state``."""
    top = strict.Reader(strict.parse(data, where=where), where=where)
    top.text("schema", allowed=(SCHEMA,))
    state = BootState(
        handover=top.text("handover"),
        tpm_kind=top.text("tpm_kind"),
        events=top.integer("events"),
        software_register=top.digest("software_register", size_bytes=48),
        stages=_stages(top.raw("stages"), where),
        host_data=_digest_if_any(top, "host_data"),
        report_id=_digest_if_any(top, "report_id"),
        tpm_clock=clock(top.raw("tpm_clock"), where),
    )
    top.close()
    return state


def _digest_if_any(top: strict.Reader, key: str) -> str:
    return top.digest(key, size_bytes=32) if top.text(key) else ""


def clock(tree: object, where: str) -> tuple[int, int, int] | None:
    """The value of ``tpm_clock``. ``FormatError`` ``boot-state``."""
    match tree:
        case None:
            return None
        case [int(resets), int(restarts), int(clock_ms)] if min(tree) >= 0:
            return resets, restarts, clock_ms
        case _:
            raise FormatError("boot-state", "a clock is three numbers, or null", where=where)


def _stages(tree: object, where: str) -> tuple[tuple[str, int], ...]:
    found = []
    for item in tree if isinstance(tree, list) else [None]:
        match item:
            case [str(name), int(duration_ms)]:
                found.append((name, duration_ms))
            case _:
                raise FormatError("boot-state", "stages are pairs of name and time", where=where)
    return tuple(found)

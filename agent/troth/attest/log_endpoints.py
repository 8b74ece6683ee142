# SPDX-License-Identifier: Apache-2.0
"""What was measured, and events of applications, for whoever asks at the sockets.

Serves ``endpoints``. Must never block: what reads the TPM or waits for the log's
lock goes to a worker.

Source: DESIGN section 7; ``documents.openapi``; docs/agent.md.
"""

from __future__ import annotations

from troth.attest import answers, bodies, rights
from troth.attest.http import FilePart, Response
from troth.errors import FormatError, HostError, TrothError
from troth.registers import measurements as measured

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.attest.exchange import Exchange
    from troth.attest.parts import Parts
    from troth.registers.runtime import RuntimeLog

MAX_EVENT_BYTES = 1024
MAX_LOG_WORK = 32
"""How many requests may wait for the log and the TPM."""
_ROOTS_OWN = 2
"""How many of these are root's alone: others must not keep it from adding events."""

_EVENT = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")
_EVENT_CHARS = 64
_LOG_RETRY_S = 1


def measurements(parts: Parts, exchange: Exchange) -> None:
    """GET /v1/measurements."""
    log = log_of(parts)

    def shown(outcome: object) -> Response:
        if isinstance(outcome, measured.Measurements):
            return answers.json(_measurements(outcome, broken=bool(log.broken)))
        raise _odd(outcome)

    _log_work(parts, exchange, lambda: _measure(log), shown)


def event_log(parts: Parts, exchange: Exchange) -> None:
    """GET /v1/event-log."""
    log = log_of(parts)
    exchange.answer(
        Response(
            200,
            FilePart(log.fd, log.size_bytes),
            media="application/x-ndjson",
            fields=(("Troth-Log", whole(log)),),
        )
    )


def extend(parts: Parts, exchange: Exchange) -> None:
    """POST /v1/extend."""
    rights.need(exchange, "extend", "add events")
    log = log_of(parts)
    body = bodies.read(exchange.request)
    event = body.text("event")
    if not 1 <= len(event) <= _EVENT_CHARS or not _EVENT.issuperset(event):
        raise bodies.wrong("event is not 1 to 64 of a-z 0-9 . -")
    data = bodies.hex_of(body, "data", most_bytes=MAX_EVENT_BYTES)
    body.close()
    # Who speaks comes first and from the agent: nobody can speak for another.
    content = f"{exchange.peer.text()} event={event} data={data.hex()}".encode("ascii")

    def shown(outcome: object) -> Response:
        if isinstance(outcome, int):
            return answers.json({"recnum": outcome, "software_register": log.register.hex()})
        raise _odd(outcome)

    _log_work(parts, exchange, lambda: log.extend(exchange.peer.uid, content), shown)


def whole(log: RuntimeLog) -> str:
    """The word for whether the log can be what this guest measured."""
    return "broken" if log.broken else "whole"


def log_of(parts: Parts) -> RuntimeLog:
    """The log. ``HostError`` ``no-event-log`` on a machine that troth did not boot."""
    if parts.log is None:
        raise HostError("no-event-log", "this machine was not booted by troth")
    return parts.log


def _log_work(
    parts: Parts,
    exchange: Exchange,
    work: Callable[[], object],
    shown: Callable[[object], Response],
) -> None:
    worker = parts.log_worker
    most = MAX_LOG_WORK if exchange.peer.uid == 0 else MAX_LOG_WORK - _ROOTS_OWN
    if worker.pending >= most:
        exchange.answer(answers.later(_LOG_RETRY_S, "too many ask for the log"))
        return

    def done(outcome: object) -> None:
        if isinstance(outcome, TrothError):
            exchange.answer(answers.refused(outcome))
        else:
            exchange.answer(shown(outcome))

    worker.submit(work, done)
    exchange.wait(None)


def _odd(outcome: object) -> TypeError:
    return TypeError(f"a {type(outcome).__name__} came from the worker")


def _measure(log: RuntimeLog) -> measured.Measurements:
    """In a worker's thread."""
    try:
        return measured.read(log.path, tpm_used=log.tpm_used)
    except FormatError as error:
        raise HostError("log-broken", str(error), where=log.path) from None


def _measurements(found: measured.Measurements, *, broken: bool) -> dict[str, object]:
    return {
        "events": found.events,
        "software_register": found.software_register,
        "registers": [
            {
                "bank": value.bank,
                "index": value.index,
                "replayed": value.replayed,
                "observed": value.observed,
            }
            for value in found.registers
        ],
        "tpm": found.tpm,
        "log": "broken" if broken else "whole",
    }

# SPDX-License-Identifier: Apache-2.0
"""Reports and evidence, for whoever asks at the sockets.

Serves ``endpoints``. Every input is checked here before anything is asked of the
platform, and who asks is written down by the agent. Must never block: the answer
comes when the platform has given its own.

Source: DESIGN section 7; ``documents.openapi``; docs/agent.md.
"""

from __future__ import annotations

import binascii

from troth.abi import guest_payload
from troth.attest import answers, bodies, log_endpoints, rights
from troth.attest.evidence import EvidenceQuestion, Made
from troth.attest.http import Response
from troth.attest.provider import Answer
from troth.attest.slots import Question
from troth.documents import binding, report_answer
from troth.documents.report_answer import ReportAnswer
from troth.errors import HostError, TrothError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from troth.attest.exchange import Exchange
    from troth.attest.parts import Parts
    from troth.attest.slots import Asked

    T = TypeVar("T")

RAW_SCHEMA = "troth-raw-report-v1"

_KEYS = {
    "auto": guest_payload.KEY_SELECTION_AUTO,
    "vcek": guest_payload.KEY_SELECTION_VCEK,
    "vlek": guest_payload.KEY_SELECTION_VLEK,
}
_SHA256_BYTES = 32


def report(parts: Parts, exchange: Exchange) -> None:
    """POST /v1/report."""
    body = bodies.read(exchange.request)
    nonce = bodies.hex_of(body, "nonce", most_bytes=binding.MAX_NONCE_BYTES + 1)
    user_data = b""
    if body.has("user_data"):
        user_data = bodies.hex_of(body, "user_data", most_bytes=binding.MAX_USER_DATA_BYTES)
    body.close()
    question = Question(
        binding.report_binding(nonce, user_data), None, guest_payload.KEY_SELECTION_AUTO
    )

    def shown(found: Answer) -> Response:
        answer = ReportAnswer(
            found.report, found.certificates, found.provider, nonce, user_data, found.manifest
        )
        return Response(200, report_answer.print_(answer))

    _ask(parts, exchange, question, Answer, shown)


def raw_report(parts: Parts, exchange: Exchange) -> None:
    """POST /v1/raw-report."""
    rights.need(exchange, "raw", "choose REPORT_DATA")
    body = bodies.read(exchange.request)
    report_data = bodies.hex_of(body, "report_data", most_bytes=binding.BINDING_BYTES)
    if len(report_data) != binding.BINDING_BYTES:
        raise bodies.wrong("report_data has not 64 bytes")
    vmpl = body.integer("vmpl", maximum=3) if body.has("vmpl") else None
    key = body.text("key", allowed=tuple(_KEYS)) if body.has("key") else "auto"
    body.close()

    def shown(found: Answer) -> Response:
        return answers.json(
            {
                "schema": RAW_SCHEMA,
                "provider": found.provider,
                "report": _base64(found.report),
                "certificates": _base64(found.certificates),
                "report_data": report_data.hex(),
            }
        )

    _ask(parts, exchange, Question(report_data, vmpl, _KEYS[key]), Answer, shown)


def evidence(parts: Parts, exchange: Exchange) -> None:
    """POST /v1/evidence."""
    body = bodies.read(exchange.request)
    nonce = bodies.hex_of(body, "nonce", most_bytes=binding.MAX_NONCE_BYTES + 1)
    user_data = channel = b""
    if body.has("user_data"):
        user_data = bodies.hex_of(body, "user_data", most_bytes=binding.MAX_USER_DATA_BYTES)
    if body.has("channel_key_sha256"):
        channel = bodies.hex_of(body, "channel_key_sha256", most_bytes=_SHA256_BYTES)
    body.close()
    binding.check_nonce(nonce)
    if len(channel) not in (0, _SHA256_BYTES):
        raise bodies.wrong("channel_key_sha256 has not 32 bytes")

    # Nothing to show is no failure of the platform: it is not even asked.
    log_endpoints.log_of(parts)
    question = EvidenceQuestion(nonce, user_data, channel, exchange.peer.text())
    _ask(parts, exchange, question, Made, lambda found: Response(200, found.document))


def _ask(
    parts: Parts, exchange: Exchange, question: Asked, kind: type[T], shown: Callable[[T], Response]
) -> None:
    """Answer with what ``shown`` makes of the outcome, which is of ``kind``."""
    if parts.policy.snp == "none":
        raise HostError("no-provider", "this image is built for machines without SEV-SNP")

    def take(outcome: object) -> None:
        if isinstance(outcome, TrothError):
            exchange.answer(answers.refused(outcome))
        elif isinstance(outcome, kind):
            exchange.answer(shown(outcome))
        else:
            raise TypeError(f"a {type(outcome).__name__} came from the worker")

    reports = parts.reports
    found = reports.ask(question, exchange.peer.uid, take)
    if isinstance(found, int):
        exchange.answer(answers.later(found, "too many ask for reports"))
        return
    exchange.wait(lambda: reports.slots.leave(found, take))


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()

# SPDX-License-Identifier: Apache-2.0
"""A report with what belongs to it, as JSON: what the agent answers and ``troth report`` prints.

Serves both ends of the agent's socket. Must hold nothing secret: the asker may
show it to anyone, and who verifies it believes only the report.

Source: docs/formats.md, "A report's answer".
"""

from __future__ import annotations

import binascii

from troth.documents import binding, strict
from troth.errors import FormatError
from troth.record import record

SCHEMA = "troth-report-answer-v1"
LIMIT_BYTES = 2 << 20

_RULE = binding.REPORT_TAG.decode()
_PROVIDERS = ("configfs-tsm", "sev-guest", "azure-vtpm")


@record
class ReportAnswer:
    """``report``: 1184 bytes; ``certificates``: the host's table, empty where it gave none;
    ``provider``: which way it came; ``nonce``, ``user_data``: what the report is bound to;
    ``service``: the paravisor's whole report, whose claims hold the binding; empty elsewhere.
    """  # noqa: D205 - the fields are the summary

    report: bytes
    certificates: bytes
    provider: str
    nonce: bytes
    user_data: bytes
    service: bytes = b""


def print_(answer: ReportAnswer) -> bytes:
    """The document of ``answer``."""
    return strict.pretty(
        {
            "schema": SCHEMA,
            "provider": answer.provider,
            "report": _text(answer.report),
            "certificates": _text(answer.certificates),
            "service": _text(answer.service),
            "binding": {
                "rule": _RULE,
                "nonce": answer.nonce.hex(),
                "user_data": answer.user_data.hex(),
            },
        }
    )


def is_answer(data: bytes) -> bool:
    """Whether ``data`` can only be such a document: no report begins like JSON."""
    return data.lstrip(b" \t\r\n")[:1] == b"{"


def parse(data: bytes, *, where: str = "") -> ReportAnswer:
    """The answer in ``data``, not compared with anything.

    Raises ``FormatError``: ``json-*``, ``report-answer``.
    """
    top = strict.Reader(strict.parse(data, where=where, limit_bytes=LIMIT_BYTES), where=where)
    top.text("schema", allowed=(SCHEMA,))
    bound = top.reader("binding")
    bound.text("rule", allowed=(_RULE,))
    answer = ReportAnswer(
        report=_bytes(top.text("report"), where),
        certificates=_bytes(top.text("certificates"), where),
        provider=top.text("provider", allowed=_PROVIDERS),
        nonce=_hex(bound.text("nonce"), where),
        user_data=_hex(bound.text("user_data"), where),
        service=_bytes(top.text("service"), where) if top.has("service") else b"",
    )
    bound.close()
    top.close()
    return answer


def _text(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _bytes(text: str, where: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True) if text else b""
    except ValueError:
        raise FormatError("report-answer", "a value is not base64", where=where) from None


def _hex(text: str, where: str) -> bytes:
    if not set(text) <= set("0123456789abcdef") or len(text) % 2:
        raise FormatError("report-answer", "a value is not lower-case hex", where=where)
    return bytes.fromhex(text)

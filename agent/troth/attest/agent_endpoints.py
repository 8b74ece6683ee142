# SPDX-License-Identifier: Apache-2.0
"""The agent itself: what it is, how it is, and what its control socket commands.

Serves ``endpoints``. Must never tell a caller more of others than numbers.

Source: DESIGN section 7; ``documents.openapi``; docs/agent.md.
"""

from __future__ import annotations

from troth import __version__
from troth.attest import answers, log_endpoints, rights
from troth.attest import metrics as numbers
from troth.attest.http import Response
from troth.documents import openapi as described

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.attest.exchange import Exchange
    from troth.attest.parts import Parts

#: The answer once it was asked for: to write it takes as long as ten other requests.
_openapi: list[Response] = []


def info(parts: Parts, exchange: Exchange) -> None:
    """GET /v1/info."""
    policy, log, peer = parts.policy, parts.log, exchange.peer
    exchange.answer(
        answers.json(
            {
                "version": __version__,
                "image": policy.image_name,
                "svn": policy.svn,
                "policy_sha256": parts.policy_sha256,
                "snp": policy.snp,
                "vtpm": policy.vtpm,
                "provider": parts.reports.provider_name,
                "raw_report_data": policy.attest.raw_report_data,
                "log": "none" if log is None else log_endpoints.whole(log),
                "caller": {
                    "uid": peer.uid,
                    "gid": peer.gid,
                    "pid": peer.pid,
                    "unit": peer.unit,
                    "rights": list(exchange.rights.names()),
                },
            }
        )
    )


def openapi(_parts: Parts, exchange: Exchange) -> None:
    """GET /v1/openapi.json."""
    if not _openapi:
        _openapi.append(answers.json(described.DOCUMENT))
    exchange.answer(_openapi[0])


def healthz(parts: Parts, exchange: Exchange) -> None:
    """GET /healthz."""
    log, reasons = parts.log, []
    if log is not None and log.broken:
        reasons.append("log-broken")
    if parts.reports.last_error:
        reasons.append(parts.reports.last_error)
    tree = {"status": "degraded" if reasons else "ok", "reasons": reasons}
    exchange.answer(answers.json(tree, status=503 if reasons else 200))


def metrics(parts: Parts, exchange: Exchange) -> None:
    """GET /metrics."""
    slots, log = parts.reports.slots, parts.log
    gauges: dict[str, float] = {
        "troth_agent_connections": parts.connections(),
        "troth_agent_report_slots": slots.slots,
        "troth_agent_reports_waiting": slots.busy,
        "troth_agent_reports_promised": slots.promised,
    }
    if log is not None:
        gauges["troth_agent_log_events"] = log.count
        gauges["troth_agent_log_broken"] = float(bool(log.broken))
    exchange.answer(Response(200, parts.metrics.text(gauges), media=numbers.MEDIA))


def reload(parts: Parts, exchange: Exchange) -> None:
    """POST /v1/reload."""
    rights.need(exchange, "control", "reload the agent")
    parts.reload()
    exchange.answer(answers.json({"status": "reloaded"}))


def shutdown(parts: Parts, exchange: Exchange) -> None:
    """POST /v1/shutdown."""
    rights.need(exchange, "control", "end the agent")
    exchange.answer(answers.json({"status": "ending"}, status=202))
    parts.shutdown()

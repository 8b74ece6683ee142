# SPDX-License-Identifier: Apache-2.0
"""What each path of the sockets answers.

Serves the server, which brings complete requests of known callers. Every input
is checked here before anything is asked of platform or log. Must never block:
what may take time goes to a worker, and the answer comes when it is done.

Source: DESIGN section 7; ``documents.openapi``; docs/agent.md.
"""

from __future__ import annotations

import binascii

from troth import __version__
from troth.abi import guest_payload
from troth.attest import answers, bodies, metrics
from troth.attest.http import FilePart, Response
from troth.attest.rights import CONTROL
from troth.attest.slots import Question
from troth.documents import binding, openapi, report_answer
from troth.documents.report_answer import ReportAnswer
from troth.errors import FormatError, HostError, TrothError, UsageError
from troth.record import record
from troth.registers import measurements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.attest.exchange import Exchange
    from troth.attest.metrics import Metrics
    from troth.attest.provider import Answer
    from troth.attest.reports import Reports
    from troth.attest.worker import Worker
    from troth.documents.policy import Policy
    from troth.registers.runtime import RuntimeLog

    Handler = Callable[["Endpoints", Exchange], None]

RAW_SCHEMA = "troth-raw-report-v1"
MAX_EVENT_BYTES = 1024
MAX_LOG_WORK = 32
"""How many requests may wait for the log and the TPM."""

_EVENT = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")
_EVENT_CHARS = 64
_KEYS = {
    "auto": guest_payload.KEY_SELECTION_AUTO,
    "vcek": guest_payload.KEY_SELECTION_VCEK,
    "vlek": guest_payload.KEY_SELECTION_VLEK,
}
_LOG_RETRY_S = 1


@record
class Route:
    """One endpoint; ``control``: only at the control socket."""

    method: str
    path: str
    handler: Handler
    control: bool = False


@record
class Parts:
    """What endpoints work with. ``log`` None: a machine that troth did not boot;
    ``reload`` and ``shutdown``: what the control socket commands.
    """  # noqa: D205 - the fields are the summary

    policy: Policy
    policy_sha256: str
    reports: Reports
    log: RuntimeLog | None
    log_worker: Worker
    metrics: Metrics
    connections: Callable[[], int]
    reload: Callable[[], None]
    shutdown: Callable[[], None]


class Endpoints:
    """Answers every exchange, now or later, once."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def handle(self, exchange: Exchange) -> None:
        """Answer ``exchange``, or begin what will."""
        route = None
        try:
            route = find(exchange)
            exchange.label = route.path
            route.handler(self, exchange)
        except TrothError as error:
            fields: tuple[tuple[str, str], ...] = ()
            if error.code == "request-method":
                fields = (("Allow", ", ".join(methods(exchange))),)
            exchange.answer(answers.refused(error, fields=fields))

    # --- asking for reports ------------------------------------------------------------------

    def report(self, exchange: Exchange) -> None:
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
                found.report, found.certificates, found.provider, nonce, user_data
            )
            return Response(200, report_answer.print_(answer))

        self._ask(exchange, question, shown)

    def raw_report(self, exchange: Exchange) -> None:
        """POST /v1/raw-report."""
        _need(exchange, "raw", "choose REPORT_DATA")
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

        self._ask(exchange, Question(report_data, vmpl, _KEYS[key]), shown)

    def evidence(self, _exchange: Exchange) -> None:
        """POST /v1/evidence."""
        raise UsageError("not-in-this-version", "evidence is not made by this version")

    def _ask(
        self, exchange: Exchange, question: Question, shown: Callable[[Answer], Response]
    ) -> None:
        if self._parts.policy.snp == "none":
            raise HostError("no-provider", "this image is built for machines without SEV-SNP")

        def take(outcome: Answer | TrothError) -> None:
            if isinstance(outcome, TrothError):
                exchange.answer(answers.refused(outcome))
            else:
                exchange.answer(shown(outcome))

        reports = self._parts.reports
        found = reports.ask(question, exchange.peer.uid, take)
        if isinstance(found, int):
            exchange.answer(answers.later(found, "too many ask for reports"))
            return
        exchange.wait(lambda: reports.slots.leave(found, take))

    # --- what was measured -------------------------------------------------------------------

    def measurements(self, exchange: Exchange) -> None:
        """GET /v1/measurements."""
        log = self._log()

        def shown(outcome: object) -> Response:
            if isinstance(outcome, measurements.Measurements):
                return answers.json(_measurements(outcome, broken=bool(log.broken)))
            raise _odd(outcome)

        self._log_work(exchange, lambda: _measure(log), shown)

    def event_log(self, exchange: Exchange) -> None:
        """GET /v1/event-log."""
        log = self._log()
        exchange.answer(
            Response(
                200,
                FilePart(log.fd, log.size_bytes),
                media="application/x-ndjson",
                fields=(("Troth-Log", _whole(log)),),
            )
        )

    def extend(self, exchange: Exchange) -> None:
        """POST /v1/extend."""
        _need(exchange, "extend", "add events")
        log = self._log()
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

        self._log_work(exchange, lambda: log.extend(exchange.peer.uid, content), shown)

    def _log(self) -> RuntimeLog:
        if self._parts.log is None:
            raise HostError("no-event-log", "this machine was not booted by troth")
        return self._parts.log

    def _log_work(
        self,
        exchange: Exchange,
        work: Callable[[], object],
        shown: Callable[[object], Response],
    ) -> None:
        worker = self._parts.log_worker
        if worker.pending >= MAX_LOG_WORK:
            exchange.answer(answers.later(_LOG_RETRY_S, "too many ask for the log"))
            return

        def done(outcome: object) -> None:
            if isinstance(outcome, TrothError):
                exchange.answer(answers.refused(outcome))
            else:
                exchange.answer(shown(outcome))

        worker.submit(work, done)
        exchange.wait(None)

    # --- the agent itself --------------------------------------------------------------------

    def info(self, exchange: Exchange) -> None:
        """GET /v1/info."""
        policy, log, peer = self._parts.policy, self._parts.log, exchange.peer
        exchange.answer(
            answers.json(
                {
                    "version": __version__,
                    "image": policy.image_name,
                    "svn": policy.svn,
                    "policy_sha256": self._parts.policy_sha256,
                    "snp": policy.snp,
                    "vtpm": policy.vtpm,
                    "provider": self._parts.reports.provider_name,
                    "raw_report_data": policy.attest.raw_report_data,
                    "log": "none" if log is None else _whole(log),
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

    def openapi(self, exchange: Exchange) -> None:
        """GET /v1/openapi.json."""
        exchange.answer(answers.json(openapi.DOCUMENT))

    def healthz(self, exchange: Exchange) -> None:
        """GET /healthz."""
        log, reasons = self._parts.log, []
        if log is not None and log.broken:
            reasons.append("log-broken")
        if self._parts.reports.last_error:
            reasons.append(self._parts.reports.last_error)
        tree = {"status": "degraded" if reasons else "ok", "reasons": reasons}
        exchange.answer(answers.json(tree, status=503 if reasons else 200))

    def metrics(self, exchange: Exchange) -> None:
        """GET /metrics."""
        slots, log = self._parts.reports.slots, self._parts.log
        gauges: dict[str, float] = {
            "troth_agent_connections": self._parts.connections(),
            "troth_agent_report_slots": slots.slots,
            "troth_agent_reports_waiting": slots.busy,
            "troth_agent_reports_promised": slots.promised,
        }
        if log is not None:
            gauges["troth_agent_log_events"] = log.count
            gauges["troth_agent_log_broken"] = float(bool(log.broken))
        exchange.answer(Response(200, self._parts.metrics.text(gauges), media=metrics.MEDIA))

    def reload(self, exchange: Exchange) -> None:
        """POST /v1/reload."""
        _need(exchange, "control", "reload the agent")
        self._parts.reload()
        exchange.answer(answers.json({"status": "reloaded"}))

    def shutdown(self, exchange: Exchange) -> None:
        """POST /v1/shutdown."""
        _need(exchange, "control", "end the agent")
        exchange.answer(answers.json({"status": "ending"}, status=202))
        self._parts.shutdown()


ROUTES = (
    Route("GET", "/healthz", Endpoints.healthz),
    Route("GET", "/metrics", Endpoints.metrics),
    Route("GET", "/v1/info", Endpoints.info),
    Route("GET", "/v1/openapi.json", Endpoints.openapi),
    Route("GET", "/v1/measurements", Endpoints.measurements),
    Route("GET", "/v1/event-log", Endpoints.event_log),
    Route("POST", "/v1/report", Endpoints.report),
    Route("POST", "/v1/raw-report", Endpoints.raw_report),
    Route("POST", "/v1/evidence", Endpoints.evidence),
    Route("POST", "/v1/extend", Endpoints.extend),
    Route("POST", "/v1/reload", Endpoints.reload, control=True),
    Route("POST", "/v1/shutdown", Endpoints.shutdown, control=True),
)


def _here(exchange: Exchange) -> list[Route]:
    return [
        route
        for route in ROUTES
        if route.path == exchange.request.path and (not route.control or exchange.door == CONTROL)
    ]


def methods(exchange: Exchange) -> tuple[str, ...]:
    """The methods that the request's path has."""
    return tuple(route.method for route in _here(exchange))


def find(exchange: Exchange) -> Route:
    """The route of a request.

    Raises ``UsageError``: ``request-path``, ``request-method``, ``request-query``,
    ``request-body``.
    """
    request, here = exchange.request, _here(exchange)
    if not here:
        raise UsageError("request-path", "there is no such path", hint="see /v1/openapi.json")
    for route in here:
        if route.method == request.method:
            if request.query is not None:
                raise UsageError("request-query", "no path here takes a query")
            if route.method == "GET" and request.body:
                raise UsageError("request-body", "a GET has no body")
            return route
    raise UsageError("request-method", f"the path does not take {request.method}")


def _need(exchange: Exchange, right: str, what: str) -> None:
    if right not in exchange.rights.names():
        raise UsageError(
            "not-allowed",
            f"{exchange.peer.text()} may not {what}",
            hint="[attest] of the image's manifest says who may",
        )


def _odd(outcome: object) -> TypeError:
    return TypeError(f"a {type(outcome).__name__} came from the worker")


def _whole(log: RuntimeLog) -> str:
    return "broken" if log.broken else "whole"


def _measure(log: RuntimeLog) -> measurements.Measurements:
    """In a worker's thread."""
    try:
        return measurements.read(log.path, tpm_used=log.tpm_used)
    except FormatError as error:
        raise HostError("log-broken", str(error), where=log.path) from None


def _measurements(found: measurements.Measurements, *, broken: bool) -> dict[str, object]:
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


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()

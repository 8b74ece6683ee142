# SPDX-License-Identifier: Apache-2.0
"""Which path of the sockets is answered by what.

Serves the server, which brings complete requests of known callers. What the
paths do is in ``report_endpoints``, ``log_endpoints`` and ``agent_endpoints``.
Must never block: what may take time goes to a worker, and the answer comes when
it is done.

Source: DESIGN section 7; ``documents.openapi``; docs/agent.md.
"""

from __future__ import annotations

from troth.attest import agent_endpoints, answers, log_endpoints, report_endpoints
from troth.attest.rights import CONTROL
from troth.errors import TrothError, UsageError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.attest.exchange import Exchange
    from troth.attest.parts import Parts

    Handler = Callable[[Parts, Exchange], None]


@record
class Route:
    """One endpoint; ``control``: only at the control socket."""

    method: str
    path: str
    handler: Handler
    control: bool = False


class Endpoints:
    """Answers every exchange, now or later, once."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def handle(self, exchange: Exchange) -> None:
        """Answer ``exchange``, or begin what will."""
        try:
            route = find(exchange)
            exchange.label = route.path
            route.handler(self._parts, exchange)
        except TrothError as error:
            fields: tuple[tuple[str, str], ...] = ()
            if error.code == "request-method":
                fields = (("Allow", ", ".join(methods(exchange))),)
            exchange.answer(answers.refused(error, fields=fields))


ROUTES = (
    Route("GET", "/healthz", agent_endpoints.healthz),
    Route("GET", "/metrics", agent_endpoints.metrics),
    Route("GET", "/v1/info", agent_endpoints.info),
    Route("GET", "/v1/openapi.json", agent_endpoints.openapi),
    Route("GET", "/v1/measurements", log_endpoints.measurements),
    Route("GET", "/v1/event-log", log_endpoints.event_log),
    Route("POST", "/v1/report", report_endpoints.report),
    Route("POST", "/v1/raw-report", report_endpoints.raw_report),
    Route("POST", "/v1/evidence", report_endpoints.evidence),
    Route("POST", "/v1/extend", log_endpoints.extend),
    Route("POST", "/v1/reload", agent_endpoints.reload, control=True),
    Route("POST", "/v1/shutdown", agent_endpoints.shutdown, control=True),
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

# SPDX-License-Identifier: Apache-2.0
"""Answers in JSON, and which status an error of the tree is.

Serves the endpoints and the server. Every refusal has a stable code and one
sentence, the same as anywhere else in troth. Must never show a caller anything
but an error's own words.
"""

from __future__ import annotations

from troth.attest import http
from troth.attest.http import Response
from troth.documents import strict
from troth.errors import HostError, ProviderError, TrothError

_STATUS = http.STATUS | {
    "request-path": 404,
    "request-method": 405,
    "request-timeout": 408,
    "request-length": 411,
    "request-media": 415,
    "too-many-requests": 429,
    "not-allowed": 403,
    "caller-gone": 403,
    "caller-namespace": 403,
    "extend-quota": 403,
    "not-in-this-version": 501,
    "provider-busy": 503,
    "provider-timeout": 504,
    "quote-timeout": 504,
    "vmpck-lost": 503,
}


def json(tree: object, *, status: int = 200, fields: tuple[tuple[str, str], ...] = ()) -> Response:
    """``tree`` as an answer."""
    return Response(status, strict.pretty(tree), fields=fields)


def status_of(error: TrothError) -> int:
    """The status of ``error``: the caller's fault, this machine's, or the platform's."""
    found = _STATUS.get(error.code)
    if found is not None:
        return found
    if isinstance(error, ProviderError):
        return 502
    return 503 if isinstance(error, HostError) else 400


def refused(
    error: TrothError, *, fields: tuple[tuple[str, str], ...] = (), close: bool = False
) -> Response:
    """What a caller is told of ``error``; ``close``: and that nothing more is read from it."""
    tree = {"code": error.code, "message": error.message}
    if error.hint:
        tree["hint"] = error.hint
    return Response(status_of(error), strict.pretty(tree), fields=fields, close=close)


def later(seconds: int, message: str, *, close: bool = False) -> Response:
    """429: come back in ``seconds``, with the same request: a place may be kept for it alone."""
    hint = f"send the same request again in {seconds} s"
    error = HostError("too-many-requests", message, hint=hint)
    return refused(error, fields=(("Retry-After", str(seconds)),), close=close)

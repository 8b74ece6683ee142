# SPDX-License-Identifier: Apache-2.0
"""Yes, no and not now, in the form of the key broker protocol.

Serves ``keybroker.routes`` and ``keybroker.server``. Must never say more than its
caller chose to: what is there and not this guest's looks like what is not there.

Source: Trustee, kbs/docs/kbs_attestation_protocol.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.attest.http import Response
from troth.ciphers import sealing
from troth.documents import broker_calls, jwe, kbs_error
from troth.keybroker import release

if TYPE_CHECKING:
    from troth.documents.jwk import PublicKey
    from troth.keybroker.release import Outcome

ATTESTATION = "AttestationError"
DENIED = "PolicyDeny"
NO_TOKEN = "TokenNotFound"  # noqa: S105 - the name of an error
NO_CALL = "InvalidRequestPath"
MALFORMED = "SerdeError"
INTERNAL = "InternalError"
BUSY = "TooManyRequests"


def refusal(status: int, name: str, detail: str) -> Response:
    """A no in the form of the protocol."""
    return Response(status, kbs_error.print_(kbs_error.BrokerError(name, detail)))


def busy(status: int, detail: str) -> Response:
    """Not now: 429 or 503. The connection ends, so that another may begin."""
    body = kbs_error.print_(kbs_error.BrokerError(BUSY, detail))
    return Response(status, body, fields=(("Retry-After", "1"),), close=True)


def sealed(outcome: Outcome, key: PublicKey) -> Response:
    """What is released, for ``key`` alone; or why not."""
    if not outcome.good:
        return _denied(outcome)
    return Response(200, jwe.print_(sealing.seal(key, outcome.payload)))


def done(outcome: Outcome) -> Response:
    """A yes without content; or why not."""
    return Response(200, broker_calls.NOTHING) if outcome.good else _denied(outcome)


def _denied(outcome: Outcome) -> Response:
    code = release.NOT_GRANTED if outcome.code == release.MISSING else outcome.code
    return refusal(401, DENIED, code)

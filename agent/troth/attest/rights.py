# SPDX-License-Identifier: Apache-2.0
"""Which caller may do what, by the baked policy.

Serves the agent's endpoints. Asking for reports and reading the log is open to
whoever the socket's mode lets in; everything else is denied unless the policy
names it (SECURITY S5, S17). Must never look at anything but the caller, the
socket it came by, and the policy.
"""

from __future__ import annotations

from troth.documents.policy import NEVER, RAW_GROUP
from troth.errors import UsageError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.attest.exchange import Exchange
    from troth.attest.peers import Peer
    from troth.documents.policy import Attest

ATTEST, CONTROL = "attest", "control"


@record
class Rights:
    """What one connection may do, besides asking and reading.

    ``extend``: add events of its own; ``raw``: choose REPORT_DATA itself;
    ``control``: reload and shut down.
    """

    extend: bool
    raw: bool
    control: bool

    def names(self) -> tuple[str, ...]:
        """The words of what is granted, for ``/v1/info``."""
        return tuple(name for name in ("extend", "raw", "control") if getattr(self, name))


def rights(policy: Attest, peer: Peer, *, door: str) -> Rights:
    """Rights of ``peer`` at the socket ``door``: ATTEST or CONTROL."""
    at_control = door == CONTROL and peer.uid == 0
    return Rights(
        extend=any(
            rule.user == peer.uid and rule.unit in ("", peer.unit) for rule in policy.extend
        ),
        raw=policy.raw_report_data == RAW_GROUP or (at_control and policy.raw_report_data != NEVER),
        control=at_control,
    )


def need(exchange: Exchange, right: str, what: str) -> None:
    """Refuse with ``not-allowed`` a caller without ``right``; ``what`` it may not do."""
    if right not in exchange.rights.names():
        raise UsageError(
            "not-allowed",
            f"{exchange.peer.text()} may not {what}",
            hint="[attest] of the image's manifest says who may",
        )

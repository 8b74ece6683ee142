# SPDX-License-Identifier: Apache-2.0
"""One request with who asked it, and the one answer it gets.

Serves server and endpoints: what they hand each other. Must never be answered
twice, nor after its caller hung up.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.attest.http import Request, Response
    from troth.attest.peers import Peer
    from troth.attest.rights import Rights


class Exchange:
    """``door``: the socket it came by; ``label``: the endpoint's path for the counters."""

    __slots__ = ("_gone", "_send", "door", "label", "peer", "request", "rights")

    def __init__(
        self,
        request: Request,
        *,
        peer: Peer,
        rights: Rights,
        door: str,
        send: Callable[[Exchange, Response], None],
    ) -> None:
        self.request = request
        self.peer = peer
        self.rights = rights
        self.door = door
        self.label = "other"
        self._send: Callable[[Exchange, Response], None] | None = send
        self._gone: Callable[[], None] | None = None

    @property
    def open(self) -> bool:
        """Whether an answer is still wanted."""
        return self._send is not None

    def wait(self, gone: Callable[[], None] | None) -> None:
        """The answer comes later; ``gone`` is called if the caller hangs up before."""
        if self._send is not None:
            self._gone = gone

    def answer(self, response: Response) -> None:
        """Send ``response``; nothing happens where nobody waits for it any more."""
        send, self._send, self._gone = self._send, None, None
        if send is not None:
            send(self, response)

    def hang_up(self) -> None:
        """The caller is gone."""
        gone, self._send, self._gone = self._gone, None, None
        if gone is not None:
            gone()

# SPDX-License-Identifier: Apache-2.0
"""Sessions between a challenge and the keys: in memory, few, and short.

Serves ``keybroker.routes``. A nonce is used up by the first evidence that comes
for it, good or bad, and dies within two minutes. Must never hold more sessions than
its bounds, however many ask: those of one address cannot take them all
(SECURITY S39).
"""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING

from troth.documents import base64_text
from troth.record import record, replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.documents.jwk import PublicKey
    from troth.keybroker.release import Attested

LIFE_S = 300
NONCE_S = 120
NONCE_BYTES = 32
MAX_SESSIONS = 16384
MAX_OF_PEER = 2048
"""Begun by one address, and without good evidence yet."""
MAX_REQUESTS = 200
"""Of one session, as that of somebody who is known."""
MAX_UNPROVEN = 4
"""Of them before its evidence was good."""
SWEEP_S = 5
"""How often what has ended is looked for."""


@record
class Session:
    """``until``: on the caller's clock; ``nonce``: "" once it was used; ``guest``,
    ``tee_pubkey``, ``token``: of a guest whose evidence was good, None and "" before.
    """  # noqa: D205 - the fields are the summary

    name: str
    peer: str
    tee: str
    nonce: str
    until: float
    guest: Attested | None = None
    tee_pubkey: PublicKey | None = None
    token: str = ""

    def __repr__(self) -> str:
        return f"Session(of {self.peer})"


class Sessions:
    """All sessions; times are seconds of any clock that only goes forward.

    ``random``: that many bytes, which nobody can guess.
    """

    def __init__(self, *, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._random = random
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._of_peer: dict[str, int] = {}
        self._requests: dict[str, int] = {}
        self._swept: float | None = None

    def begin(self, peer: str, tee: str, *, now: float) -> Session | None:
        """A new session with its nonce; None where there are too many."""
        with self._lock:
            if self._swept is None or now - self._swept >= SWEEP_S:
                self._swept = now
                self._sweep(now)
            if len(self._sessions) >= MAX_SESSIONS or self._of_peer.get(peer, 0) >= MAX_OF_PEER:
                return None
            nonce = base64_text.standard(self._random(NONCE_BYTES))
            made = Session(self._random(16).hex(), peer, tee, nonce, now + NONCE_S)
            self._sessions[made.name] = made
            self._of_peer[peer] = self._of_peer.get(peer, 0) + 1
            self._requests[made.name] = 0
            return made

    def is_known(self, name: str, *, now: float) -> bool:
        """Whether one more request in the session of that name is no stranger's."""
        with self._lock:
            found = self._sessions.get(name)
            if found is None or now >= found.until:
                return False
            self._requests[name] += 1
            most = MAX_UNPROVEN if found.guest is None else MAX_REQUESTS
            return self._requests[name] <= most

    def find(self, name: str, *, now: float) -> Session | None:
        """The session of that name, while it lives."""
        with self._lock:
            found = self._sessions.get(name)
            if found is not None and now >= found.until:
                self._drop(found)
                return None
            return found

    def use_nonce(self, session: Session) -> bool:
        """Use its nonce up; False where somebody did so before."""
        with self._lock:
            found = self._sessions.get(session.name)
            if found is None or not found.nonce:
                return False
            self._sessions[session.name] = replace(found, nonce="")
            return True

    def attested(
        self, session: Session, guest: Attested, key: PublicKey, token: str, *, now: float
    ) -> None:
        """The guest's evidence was good; the session lives ``LIFE_S`` from now."""
        with self._lock:
            found = self._sessions.get(session.name)
            if found is not None and found.guest is None:
                self._fewer(found.peer)
                self._sessions[session.name] = replace(
                    session,
                    nonce="",
                    until=now + LIFE_S,
                    guest=guest,
                    tee_pubkey=key,
                    token=token,
                )

    def end(self, session: Session) -> None:
        """The session is over."""
        with self._lock:
            found = self._sessions.get(session.name)
            if found is not None:
                self._drop(found)

    def _sweep(self, now: float) -> None:
        for found in [item for item in self._sessions.values() if now >= item.until]:
            self._drop(found)

    def _drop(self, found: Session) -> None:
        del self._sessions[found.name], self._requests[found.name]
        if found.guest is None:
            self._fewer(found.peer)

    def _fewer(self, peer: str) -> None:
        left = self._of_peer[peer] - 1
        if left:
            self._of_peer[peer] = left
        else:
            del self._of_peer[peer]

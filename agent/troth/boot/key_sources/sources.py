# SPDX-License-Identifier: Apache-2.0
"""What every source of keys gives, and how the one that a URI names is found.

Serves the key worker, a process that lives for the keys of one boot. A module
is imported by its name when a volume needs it, and packed by the same table
(``documents.key_uri``). Must never choose another source than the one named:
there is no fallback.
"""

from __future__ import annotations

import sys

from troth.documents import key_uri
from troth.errors import ProviderError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from troth.abi.guest_payload import KeyRequest
    from troth.boot.key_sources.kbs_session import KbsSession
    from troth.boot.key_sources.spiffe import SpiffeIdentity
    from troth.documents.key_uri import KeyUri
    from troth.documents.policy_keys import Broker
    from troth.volumes.release import Release

    class Evidence(Protocol):
        """A way to a report."""

        def __call__(self, report_data: bytes, /) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
            """A report (1184 bytes) that carries ``report_data``, 64 bytes, and certificates.

            These are pairs of a kind, as ``cert_table.NAMES`` has it, and DER.
            """
            ...

    class KeySource(Protocol):
        """One volume's source of keys."""

        def release(self, wanted: Wanted) -> Release:
            """The key; ``ProviderError``, ``FormatError``, ``HostError`` as the source has them."""
            ...

        def commit(self, generation: int, digest: str) -> None:
            """Tell who keeps generations that the record ``digest`` (SHA-256, hex) is on the disk.

            Only after ``release`` said ``tracked``. Raises as ``release``.
            """
            ...


@record
class Wanted:
    """``volume``: UUID; ``profile``: as ``volume_key.PROFILES``; ``tcb`` and ``guest_svn``: those
    of an earlier ``Release`` of a derived key for this volume, none for the guest's own.
    """  # noqa: D205 - the fields are the summary

    volume: str
    profile: str
    tcb: int | None = None
    guest_svn: int | None = None


class Surroundings:
    """What the sources of one boot share.

    ``deadline_s``: on the monotonic clock, for all they do; ``evidence`` and
    ``derived_key``: how the platform is asked; ``sessions``: one a broker, since
    the platform is slow to give reports.
    """

    def __init__(
        self,
        brokers: tuple[Broker, ...],
        *,
        evidence: Evidence,
        derived_key: Callable[[KeyRequest], bytes],
        deadline_s: float,
    ) -> None:
        self.brokers = brokers
        self.evidence = evidence
        self.derived_key = derived_key
        self.deadline_s = deadline_s
        self.sessions: dict[str, KbsSession] = {}
        self.identities: dict[str, SpiffeIdentity] = {}

    def finish(self) -> None:
        """Tell each broker that this boot needs no key any more. ``ProviderError``."""
        for session in self.sessions.values():
            session.boot_finished()

    def close(self) -> None:
        """End the connections, and forget the keys that answers were encrypted to."""
        for identity in self.identities.values():
            identity.close()
        for session in self.sessions.values():
            session.close()
        self.identities.clear()
        self.sessions.clear()


def source(uri: KeyUri, surroundings: Surroundings) -> KeySource:
    """The source that ``uri`` names. ``ProviderError``: ``broker-unknown``."""
    name = key_uri.MODULES[uri.scheme]
    __import__(name)
    found: KeySource = sys.modules[name].make(uri, surroundings)
    return found


def broker_of(uri: KeyUri, brokers: tuple[Broker, ...]) -> Broker:
    """The broker that ``uri`` is about. ``ProviderError``: ``broker-unknown``."""
    fitting = key_uri.fitting(uri, brokers)
    if len(fitting) != 1:
        raise ProviderError(
            "broker-unknown",
            f"{uri} is for one broker of the policy, and {len(fitting)} fit",
            hint="name it as in kbs://BROKER/repository/type/tag",
        )
    return fitting[0]

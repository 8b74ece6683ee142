# SPDX-License-Identifier: Apache-2.0
"""``kbs:``: a key that a broker releases to attested guests.

Serves ``sources``. With a broker of troth the volume's state and its last
generation come along, and are committed back; another broker knows neither, so
its volumes are formatted elsewhere and old states of them pass. Must never take
a key whose label is for another volume.
"""

from __future__ import annotations

from troth.boot.key_sources import kbs_session, sources
from troth.documents import volume_key
from troth.documents.policy_keys import TROTH
from troth.errors import ProviderError
from troth.volumes.release import Release

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.key_sources.kbs_session import KbsSession
    from troth.boot.key_sources.sources import Surroundings, Wanted
    from troth.documents.key_uri import KeyUri
    from troth.documents.policy_keys import Broker
    from troth.documents.resource_path import ResourcePath


class KbsSource:
    """The resource ``path`` of the broker behind ``session``."""

    def __init__(self, session: KbsSession, path: ResourcePath) -> None:
        self._session = session
        self._path = path

    def release(self, wanted: Wanted) -> Release:
        """See ``sources.KeySource``: raises as ``KbsSession.resource``, and ``read``."""
        plaintext = self._session.resource(self._path)
        broker, identity = self._session.broker, self._session.identity
        return read(plaintext, wanted, broker=broker, identity=identity)

    def commit(self, generation: int, digest: str) -> None:
        """See ``sources.KeySource``: raises as ``KbsSession.commit``."""
        self._session.commit(self._path, generation, digest)


def make(uri: KeyUri, surroundings: Surroundings) -> KbsSource:
    """The source that ``uri`` names. ``ProviderError``: ``broker-unknown``."""
    broker = sources.broker_of(uri, surroundings.brokers)
    if uri.resource is None:
        raise ProviderError("broker-unknown", f"{uri} names no resource")
    return KbsSource(kbs_session.session_with(broker, surroundings), uri.resource)


def read(plaintext: bytes, wanted: Wanted, *, broker: Broker, identity: str) -> Release:
    """The key in what the broker released.

    Raises ``FormatError``: ``volume-key-*``, ``json-*``; ``ProviderError``
    ``broker-state`` where a broker without states says that a volume is new.
    """
    found = volume_key.parse(plaintext, where=broker.name)
    volume_key.check_volume(found, wanted.volume, wanted.profile, where=broker.name)
    tracked = broker.protocol == TROTH
    if not tracked and found.state != volume_key.IN_USE:
        # It would say so at every boot, and each would lose what the one before had written.
        raise ProviderError(
            "broker-state",
            f"broker {broker.name} keeps no states, and calls volume {wanted.volume} new",
            hint="format it with troth volume format, and store its key as in-use",
        )
    return Release(
        bytearray(found.key),
        identity,
        found.state,
        tracked,
        found.generation,
        found.digest,
    )

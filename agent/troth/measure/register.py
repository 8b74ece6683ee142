# SPDX-License-Identifier: Apache-2.0
"""The software register: one SHA-384 chain over the whole event log.

A guest without a runtime register still gets one value that stands for all
its events. It trusts guest root for its whole life (SECURITY S5). Each step
is SHA-384(old || SHA-384(type || 0x00 || content)), start 48 zero bytes.
"""

from __future__ import annotations

from troth.abi.hashes import sha384

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from troth.documents.event_log import Event

START = bytes(48)


def extend(value: bytes, kind: str, content: bytes) -> bytes:
    """The register after one event."""
    event = sha384(kind.encode() + b"\0" + content).digest()
    return sha384(value + event).digest()


def replay(events: Iterable[Event]) -> bytes:
    """The register after ``events``."""
    value = START
    for event in events:
        value = extend(value, event.kind, event.content)
    return value

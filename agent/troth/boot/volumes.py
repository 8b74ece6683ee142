# SPDX-License-Identifier: Apache-2.0
"""Stage 8: the encrypted volumes, opened by the key worker, which then ends.

Its word is compared with what the kernel shows: each map is there, of the right
name and no more writable than it should be. The digest of each volume key is
measured before anything is read from the volume. What only the keys needed
goes away here: the worker, and the network.
"""

from __future__ import annotations

from troth.abi.hashes import BANKS
from troth.boot import keys
from troth.documents import event_log
from troth.errors import VeiledRefusal
from troth.linux.dm import Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.state import State


def run(state: State) -> None:
    """Fill ``state.maps``; ``Refusal`` ``header-refused`` or ``volume-refused`` (both veiled)."""
    worker = state.key_worker
    if worker is None:
        raise RuntimeError("stage keys has left no worker")
    answers = worker.ask("open", public=keys.VOLUME_REFUSED, end_ns=state.deadline_ns)
    worker.end(state)
    state.key_worker = None
    names = [volume.name for volume in state.policy.encrypted]
    if [words[1] for words in answers if words[0] == "opened" and len(words) == 6] != names:
        raise VeiledRefusal(keys.VOLUME_REFUSED, "key-worker", "not every volume was opened")
    for _, name, map_name, minor, content, digests in answers:
        volume = keys.volume_of(state, name)
        made = Map(name=map_name, minor=int(minor))
        _check(made, readonly=not volume.file_system)
        listed = tuple(_digest(part) for part in digests.split(","))
        state.events.measure_keyed(event_log.VOLUME_KEY, bytes.fromhex(content), listed)
        state.opened[name] = made
    state.events.confirm()
    if state.network is not None:
        state.network.close()


def _digest(part: str) -> tuple[str, bytes]:
    bank, _, value = part.partition("=")
    found = bytes.fromhex(value)
    if bank not in BANKS or len(found) != BANKS[bank][1]:
        raise VeiledRefusal(keys.VOLUME_REFUSED, "key-worker", "a digest of no bank")
    return bank, found


def _check(made: Map, *, readonly: bool) -> None:
    place = f"/sys/block/dm-{made.minor}"
    with open(f"{place}/dm/name", "rb", buffering=0) as file:
        name = file.read(256).decode("ascii", "replace").strip()
    with open(f"{place}/ro", "rb", buffering=0) as file:
        closed = file.read(2).strip() == b"1"
    if name != made.name or closed != readonly:
        raise VeiledRefusal(keys.VOLUME_REFUSED, "volume-map", f"dm-{made.minor} is {name!r}")

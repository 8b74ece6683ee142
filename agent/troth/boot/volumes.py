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
from troth.linux.block import BASE
from troth.linux.dm import Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.state import State

#: Of a minor number of the device mapper, which has 20 bits.
_MOST_DIGITS = 7


def run(state: State) -> None:
    """Fill ``state.opened``; ``Refusal`` ``header-refused`` or ``volume-refused`` (both veiled)."""
    worker = state.key_worker
    if worker is None:
        raise RuntimeError("stage keys has left no worker")
    answers = worker.ask("open", public=keys.VOLUME_REFUSED, end_ns=state.deadline_ns)
    worker.end(state)
    state.key_worker = None
    keys.check_answers(state, answers, word="opened", size=6, public=keys.VOLUME_REFUSED)
    for volume, words in zip(state.policy.encrypted, answers, strict=True):
        _, name, map_name, minor, content, digests = words
        if map_name != volume.map_name or not minor.isdecimal() or len(minor) > _MOST_DIGITS:
            raise VeiledRefusal(keys.VOLUME_REFUSED, "key-worker", f"{name}: a map of another name")
        made = Map(name=map_name, minor=int(minor))
        _check(made, readonly=not volume.file_system)
        listed = tuple(_digest(part) for part in digests.split(","))
        banks = tuple(bank for bank, _ in listed)
        wanted = event_log.volume_key_content(map_name, volume.uuid)
        if (
            keys.octets(content, public=keys.VOLUME_REFUSED) != wanted
            or banks != state.events.banks
        ):
            raise VeiledRefusal(keys.VOLUME_REFUSED, "key-worker", f"{name}: another event")
        state.events.measure_keyed(event_log.VOLUME_KEY, wanted, listed)
        state.opened[name] = made
    state.events.confirm()
    if state.network is not None:
        state.network.close()


def _digest(part: str) -> tuple[str, bytes]:
    bank, _, value = part.partition("=")
    found = keys.octets(value, public=keys.VOLUME_REFUSED)
    if bank not in BANKS or len(found) != BANKS[bank][1]:
        raise VeiledRefusal(keys.VOLUME_REFUSED, "key-worker", "a digest of no bank")
    return bank, found


def _check(made: Map, *, readonly: bool) -> None:
    try:
        name = _read(f"{BASE}/dm-{made.minor}/dm/name")
        closed = _read(f"{BASE}/dm-{made.minor}/ro")
    except OSError as error:
        sentence = f"dm-{made.minor}: {error.strerror}"
        raise VeiledRefusal(keys.VOLUME_REFUSED, "volume-map", sentence) from None
    if name != made.name or (closed == "1") != readonly:
        raise VeiledRefusal(keys.VOLUME_REFUSED, "volume-map", f"dm-{made.minor} is {name!r}")


def _read(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return file.read(256).decode("ascii", "replace").strip()

# SPDX-License-Identifier: Apache-2.0
"""What an operator puts right by hand: who may have a volume, what was committed, who holds it.

Serves ``troth keybroker set``. A backup that was restored, an image that was named
wrong, a lease of a clock that was ahead: no guest can mend these, and each gives
something up, so each is told to the audit log, with what was there before, before it
is final. Must never change a key, nor make a volume new again: what a guest once
had is not formatted at a word from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents import volume_key
from troth.errors import UsageError
from troth.keybroker import resources, volume_state
from troth.record import record, replace

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from troth.keybroker.resources import Resource
    from troth.keybroker.store import Store
    from troth.keybroker.volume_state import Volume

    Told = Callable[[Resource, str], None]


@record
class Correction:
    """``images``: who may have it from now on, () for no change; ``generation``, ``digest``: of
    the record (SHA-256 in hex) that counts as committed, 0 and "" for no change; ``forget``:
    no record counts; ``free``: the lease is over.
    """  # noqa: D205 - the fields are the summary

    images: tuple[str, ...] = ()
    generation: int = 0
    digest: str = ""
    forget: bool = False
    free: bool = False


def correct(store: Store, path: str, wanted: Correction, *, told: Told) -> Resource:
    """Make ``wanted`` so at ``path``; what is there afterwards.

    ``told``: is called with that and with what was done, before it is final. Raises
    ``UsageError``: ``broker-resource``, ``broker-resource-absent``, ``broker-image``,
    ``broker-correction`` for what a secret or this state of a volume has not;
    ``FormatError`` ``volume-key-field`` for an odd generation or digest.
    """
    path = resources.check_path(path)
    with store.transaction() as rows:
        found = resources.present(rows, path)
        done = []
        if wanted.images:
            resources.regrant(rows, path, wanted.images)
            done.append(f"images {_words(found.images)} before")
        if wanted.generation or wanted.digest or wanted.forget or wanted.free:
            done += _corrected(rows, found, wanted)
        after = resources.present(rows, path)
        told(after, "; ".join(done))
    return after


def remove(store: Store, path: str, *, uuid: str, told: Told) -> Resource:
    """Forget ``path`` and its secret; ``uuid``: the volume's, where a guest had its key.

    Raises ``UsageError``: ``broker-resource``, ``broker-resource-absent``,
    ``broker-correction`` for another UUID.
    """
    path = resources.check_path(path)
    with store.transaction() as rows:
        found = resources.present(rows, path)
        volume = found.volume
        given_out = volume is not None and volume.state != volume_state.NEW
        if found.uuid != uuid and (uuid or given_out):
            raise UsageError(
                "broker-correction",
                "guests had the key of this volume, and its data end with it"
                if not uuid
                else "the volume there has another id",
                where=path,
                hint="--uuid says which volume ends",
            )
        resources.drop(rows, path)
        told(found, "")
    return found


def _corrected(rows: sqlite3.Connection, found: Resource, wanted: Correction) -> list[str]:
    """Change the state of a volume: what was done."""
    volume = found.volume
    if volume is None:
        raise _wrong(found.path, "it is a secret without states")
    changed, done = volume, []
    if wanted.generation or wanted.digest:
        volume_key.print_(
            volume_key.VolumeKey(
                found.uuid,
                found.profile,
                bytes(resources.KEY_BYTES),
                volume_key.IN_USE,
                wanted.generation,
                wanted.digest,
            )
        )
        changed = _settled(volume, wanted.generation, wanted.digest)
    elif wanted.forget:
        if volume.state != volume_state.IN_USE:
            raise _wrong(found.path, f"it is {volume.state}: no record was committed")
        changed = _settled(volume, 0, "")
    if changed != volume:
        done.append(f"generation {volume.generation}, record {volume.record or 'none'} before")
    if wanted.free:
        changed = replace(changed, until=0)
        done.append(f"free, held by {volume.holder.hex() or 'nobody'} before")
    resources.put(rows, found.path, changed)
    return done


def _settled(volume: Volume, generation: int, digest: str) -> Volume:
    """In use at that record. Whoever has the key now knows another, and may commit no more."""
    return replace(
        volume,
        state=volume_state.IN_USE,
        generation=generation,
        record=digest,
        committer=b"",
        holder=b"",
        until=0,
    )


def _words(images: Sequence[str]) -> str:
    return ", ".join(images) or "none"


def _wrong(path: str, message: str) -> UsageError:
    return UsageError("broker-correction", message, where=path, hint="see: troth keybroker list")

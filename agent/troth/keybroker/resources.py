# SPDX-License-Identifier: Apache-2.0
"""What the broker keeps for guests: keys of volumes, and resources it does not look into.

Serves the operator's verbs; ``keybroker.release`` gives them out. Each is named by
a path, and granted to images by their names, so that a newer version of an image
finds its volumes. Must never show a secret, and never replace the key of a volume:
that would be the end of its data.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from troth.documents import resource_path, volume_key
from troth.errors import FormatError, UsageError
from troth.keybroker import classes
from troth.keybroker.volume_state import Volume
from troth.record import record

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from troth.keybroker.store import Store

KEY_BYTES = 32
"""Of a key that the broker makes."""
MAX_SECRET_BYTES = 512 << 10
"""In JWE it grows by a third, and the answer has at most 1 MiB."""


@record
class Resource:
    """``path``: "repo/type/tag"; ``kept``: the secret as the database has it; ``uuid``,
    ``profile``: of a volume, "" else; ``volume``: its state, None else; ``images``: who may
    have it; ``added``: seconds since 1970.
    """  # noqa: D205 - the fields are the summary

    path: str
    kept: bytes
    added: int
    uuid: str
    profile: str
    volume: Volume | None
    images: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Resource({self.path})"


def new_key() -> bytes:
    """A key for a new volume, from the kernel."""
    return os.urandom(KEY_BYTES)


def check_path(path: str) -> str:
    """``path``, with or without "kbs:///" before it. ``UsageError`` ``broker-resource``."""
    try:
        return str(resource_path.parse(path.removeprefix("kbs:///")))
    except FormatError as error:
        raise UsageError("broker-resource", error.message, hint=error.hint) from None


def add_volume(
    store: Store,
    path: str,
    *,
    uuid: str,
    profile: str,
    key: bytes,
    images: Sequence[str],
    volume: Volume,
    at: int,
) -> Resource:
    """Take a volume in: its ``key`` under ``path``, for guests of ``images``.

    Raises ``UsageError``: ``broker-resource``, ``broker-resource-exists``, ``broker-image``;
    ``FormatError`` ``volume-key-field`` for an odd uuid, profile or key.
    """
    # What could not be released later must not come in.
    volume_key.print_(
        volume_key.VolumeKey(
            uuid, profile, key, volume_key.IN_USE, volume.generation, volume.record
        )
    )
    return _add(store, Resource(check_path(path), key, at, uuid, profile, volume, tuple(images)))


def add_opaque(
    store: Store, path: str, secret: bytes, *, images: Sequence[str], at: int
) -> Resource:
    """Take ``secret`` in under ``path``, for guests of ``images``. Raises as ``add_volume``."""
    if len(secret) > MAX_SECRET_BYTES:
        raise UsageError(
            "broker-resource", f"{len(secret)} bytes, at most {MAX_SECRET_BYTES}", where=path
        )
    return _add(store, Resource(check_path(path), secret, at, "", "", None, tuple(images)))


def grant(store: Store, path: str, images: Sequence[str]) -> Resource:
    """Let guests of further ``images`` have what is at ``path``.

    Raises ``UsageError``: ``broker-resource``, ``broker-resource-absent``, ``broker-image``.
    """
    path = check_path(path)
    with store.transaction() as rows:
        _check_images(rows, images)
        found = present(rows, path)
        _grant(rows, path, images)
    return found


def every(store: Store) -> tuple[Resource, ...]:
    """All of them, by path."""
    with store.reading() as rows:
        found = [str(row[0]) for row in rows.execute("SELECT path FROM resources ORDER BY path")]
        return tuple(item for path in found if (item := find(rows, path)) is not None)


def find(rows: sqlite3.Connection, path: str) -> Resource | None:
    """The resource of that path, inside a transaction."""
    row = rows.execute(
        "SELECT secret, added, uuid, profile, state, generation, record, committer, holder, "
        "until, lease_s, format_s, taken_over FROM resources WHERE path = ?",
        (path,),
    ).fetchone()
    if row is None:
        return None
    secret, added, uuid, profile, state, *rest = row
    images = rows.execute("SELECT image FROM grants WHERE path = ? ORDER BY image", (path,))
    return Resource(
        path,
        bytes(secret),
        added,
        uuid or "",
        profile or "",
        None if state is None else Volume(state, *rest),
        tuple(str(row[0]) for row in images),
    )


def present(rows: sqlite3.Connection, path: str) -> Resource:
    """As ``find``. ``UsageError`` ``broker-resource-absent`` where there is none."""
    found = find(rows, path)
    if found is None:
        raise UsageError(
            "broker-resource-absent",
            "no resource has this path",
            where=path,
            hint="troth keybroker list shows what is there",
        )
    return found


def regrant(rows: sqlite3.Connection, path: str, images: Sequence[str]) -> None:
    """Let guests of ``images`` and of no others have what is at ``path``, inside a transaction.

    Raises ``UsageError`` ``broker-image``.
    """
    _check_images(rows, images)
    rows.execute("DELETE FROM grants WHERE path = ?", (path,))
    _grant(rows, path, images)


def drop(rows: sqlite3.Connection, path: str) -> None:
    """Forget what is at ``path``, inside a transaction; not who had it, who gets it no more."""
    rows.execute("DELETE FROM grants WHERE path = ?", (path,))
    rows.execute("DELETE FROM resources WHERE path = ?", (path,))


def path_of_volume(rows: sqlite3.Connection, uuid: str) -> str:
    """The path of the volume with that UUID; "" where there is none."""
    row = rows.execute("SELECT path FROM resources WHERE uuid = ?", (uuid,)).fetchone()
    return "" if row is None else str(row[0])


def put(rows: sqlite3.Connection, path: str, volume: Volume) -> None:
    """Keep the state of a volume, inside a transaction."""
    names = volume.__match_args__
    changes = ", ".join(f"{name} = ?" for name in names)
    rows.execute(
        f"UPDATE resources SET {changes} WHERE path = ?",  # noqa: S608 - names of our own fields
        (*(getattr(volume, name) for name in names), path),
    )


def purpose(path: str) -> str:
    """What the secret of ``path`` is sealed for."""
    return f"resource {path}"


def _add(store: Store, made: Resource) -> Resource:
    kept = store.seal(made.kept, purpose=purpose(made.path))
    state = made.volume
    with store.transaction() as rows:
        _check_images(rows, made.images)
        if find(rows, made.path) is not None or (made.uuid and path_of_volume(rows, made.uuid)):
            raise UsageError(
                "broker-resource-exists",
                "a resource with this path or volume id is here already",
                where=made.path,
                hint="a key is never replaced: its volume could not be opened any more",
            )
        rows.execute(
            "INSERT INTO resources (path, secret, added, uuid, profile, state) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                made.path,
                kept,
                made.added,
                made.uuid or None,
                made.profile or None,
                state and state.state,
            ),
        )
        if state is not None:
            put(rows, made.path, state)
        _grant(rows, made.path, made.images)
    return made


def _grant(rows: sqlite3.Connection, path: str, images: Sequence[str]) -> None:
    rows.executemany(
        "INSERT OR IGNORE INTO grants VALUES (?, ?)", [(path, image) for image in images]
    )


def _check_images(rows: sqlite3.Connection, images: Sequence[str]) -> None:
    for image in images:
        if not classes.known(rows, image):
            raise UsageError(
                "broker-image",
                f"the image {image} is not known",
                hint="add its class first: --reference SIGNED --key PUB",
            )

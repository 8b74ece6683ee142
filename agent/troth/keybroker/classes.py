# SPDX-License-Identifier: Apache-2.0
"""Classes of guests that may have keys: an image and its security version, by signed values.

Serves the operator's verbs and ``keybroker.appraisal``. A guest belongs to the class
whose values name its launch digest, whatever it says of itself. Retiring goes one
way: what is older than a retired version is retired with it, and cannot come back
(SECURITY S21). Must never take values that no accepted key has signed, nor values
whose launch digest does not root the boot chain (S2).
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from troth.documents import reference_document
from troth.documents.result import REAL, SIMULATED
from troth.documents.verdict import FAIL
from troth.errors import FormatError, UsageError
from troth.keybroker import store as stores
from troth.record import record
from troth.signing import keys as key_files
from troth.signing import reference

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from troth.documents.reference_document import Document
    from troth.documents.reference_values import ReferenceValues
    from troth.keybroker.store import Store
    from troth.signing.keys import PublicKey

PENDING, ACTIVE, RETIRED = "pending", "active", "retired"
#: A name becomes the last part of a SPIFFE ID.
_NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._")


@record
class ImageClass:
    """``document``: the signed values as they came; ``keys``: SPKIs (DER) of who may sign them;
    ``added``: seconds since 1970.
    """  # noqa: D205 - the fields are the summary

    image: str
    svn: int
    state: str
    document: bytes
    keys: tuple[bytes, ...]
    added: int

    def public_keys(self) -> tuple[PublicKey, ...]:
        """The keys, read."""
        return tuple(key_files.load_public(key) for key in self.keys)


def kind_of(values: ReferenceValues) -> str:
    """The kind of database that ``values`` belong into."""
    return SIMULATED if values.flags.simulated or values.platform == SIMULATED else REAL


def judged(document: Document, keys: Sequence[PublicKey], *, at: int) -> ReferenceValues:
    """The values in ``document``, which a broker can rely on at ``at`` (seconds since 1970).

    Raises ``FormatError`` ``broker-class`` where no key has signed them, where they
    are not in force, or where nothing in them roots a boot chain; those of the document.
    """
    judgement = reference.judge(document, keys=keys, at_s=at)
    failed = [item for item in judgement.findings if item.verdict == FAIL]
    if judgement.values is None or failed:
        said = "; ".join(f"[{item.code}] {item.detail}" for item in failed)
        raise FormatError(
            "broker-class",
            f"these reference values do not count: {said}",
            where=document.where,
            hint="troth reference sign signs them; --key names the public half",
        )
    values = judgement.values
    if not values.image_name or not _NAME.issuperset(values.image_name):
        raise FormatError(
            "broker-class",
            f"the image name {values.image_name[:40]!r} is not letters, digits, - . and _",
            where=document.where,
        )
    if not any(launch.roots_boot_chain for launch in values.in_force):
        raise FormatError(
            "broker-class",
            "no launch digest here covers kernel, initramfs and command line",
            where=document.where,
            hint="no key is ever released for it: build with igvm = true, or for OVMF with "
            "kernel hashes",
        )
    return values


def add(
    store: Store, document: Document, keys: Sequence[PublicKey], *, pending: bool, at: int
) -> ImageClass:
    """Take the class of ``document`` in, or newer values of a class that is there.

    Raises as ``judged``; ``UsageError``: ``broker-kind``, ``broker-retired``,
    ``broker-class-overlap`` where a launch digest is another class's.
    """
    values = judged(document, keys, at=at)
    stores.check_kind(store, kind_of(values), f"the image {values.image_name}")
    found = ImageClass(
        values.image_name,
        values.svn,
        PENDING if pending else ACTIVE,
        document.data,
        tuple(key.spki for key in keys),
        at,
    )
    with store.transaction() as rows:
        rows.execute("INSERT OR IGNORE INTO images (name) VALUES (?)", (found.image,))
        floor = _floor(rows, found.image)
        if found.svn < floor:
            raise UsageError(
                "broker-retired",
                f"{found.image} below svn {floor} is retired, and this is svn {found.svn}",
                hint="build the image with a higher [image] svn",
            )
        rows.execute(
            "INSERT INTO classes VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "state = excluded.state, document = excluded.document, keys = excluded.keys, "
            "added = excluded.added",
            (*_key(found), found.state, found.document, _keys_text(found.keys), at),
        )
        rows.execute("DELETE FROM launches WHERE image = ? AND svn = ?", _key(found))
        for digest in sorted({launch.digest for launch in values.in_force}):
            _take(rows, digest, found)
    return found


def of_launch(store: Store, digest: str) -> ImageClass | None:
    """The class with the launch digest ``digest`` (hex), whatever its state."""
    with store.reading() as rows:
        row = rows.execute(
            f"{_SELECT} JOIN launches USING (image, svn) WHERE digest = ?", (digest,)
        ).fetchone()
    return None if row is None else _from(row)


def state_of(rows: sqlite3.Connection, image: str, svn: int) -> str:
    """The state of a class inside a transaction; "" where there is none."""
    row = rows.execute(
        "SELECT state FROM classes WHERE image = ? AND svn = ?", (image, svn)
    ).fetchone()
    return "" if row is None else str(row[0])


def known(rows: sqlite3.Connection, image: str) -> bool:
    """Whether any class of ``image`` was ever added."""
    return rows.execute("SELECT 1 FROM images WHERE name = ?", (image,)).fetchone() is not None


def every(store: Store) -> tuple[ImageClass, ...]:
    """All classes, by name and version."""
    with store.reading() as rows:
        found = rows.execute(f"{_SELECT} ORDER BY image, svn").fetchall()
    return tuple(_from(row) for row in found)


def activate(store: Store, image: str, svn: int | None) -> tuple[int, ...]:
    """Let pending classes of ``image`` have keys: all, or that of ``svn``. Their versions.

    Raises ``UsageError`` ``broker-image`` where none is pending.
    """
    with store.transaction() as rows:
        found = _versions(rows, image, svn, (PENDING,))
        if not found:
            raise _no_image(image, "has no pending class of that version")
        for number in found:
            rows.execute(
                "UPDATE classes SET state = ? WHERE image = ? AND svn = ?", (ACTIVE, image, number)
            )
    return found


def retire(store: Store, image: str, svn: int | None) -> tuple[int, ...]:
    """Take the keys from ``image``: every version, or ``svn`` and all below. Their versions.

    No version below can come back. Raises ``UsageError`` ``broker-image`` for what is
    not there.
    """
    with store.transaction() as rows:
        if not known(rows, image):
            raise _no_image(image, "is not known")
        there = _versions(rows, image, None, (PENDING, ACTIVE, RETIRED))
        last = max(there) if svn is None else svn
        if last > max(there):
            # Every version that is built next would be refused before anybody knew why.
            raise _no_image(image, f"has no version {last} yet; the highest is {max(there)}")
        found = tuple(
            number for number in _versions(rows, image, None, (PENDING, ACTIVE)) if number <= last
        )
        floor = max(_floor(rows, image), last + 1)
        rows.execute("UPDATE images SET min_svn = ? WHERE name = ?", (floor, image))
        rows.execute(
            "UPDATE classes SET state = ? WHERE image = ? AND svn < ?", (RETIRED, image, floor)
        )
    return found


_SELECT = "SELECT image, svn, state, document, keys, added FROM classes"


def _from(row: tuple[str, int, str, bytes, str, int]) -> ImageClass:
    image, svn, state, document, keys, added = row
    spkis = tuple(base64.b64decode(key) for key in json.loads(keys))
    return ImageClass(image, svn, state, document, spkis, added)


def read(found: ImageClass) -> Document:
    """The document of a class."""
    return reference_document.read(found.document, where=f"{found.image} svn {found.svn}")


def _keys_text(keys: tuple[bytes, ...]) -> str:
    return json.dumps([base64.b64encode(key).decode() for key in keys])


def _key(found: ImageClass) -> tuple[str, int]:
    return (found.image, found.svn)


def _floor(rows: sqlite3.Connection, image: str) -> int:
    return int(rows.execute("SELECT min_svn FROM images WHERE name = ?", (image,)).fetchone()[0])


def _versions(
    rows: sqlite3.Connection, image: str, svn: int | None, states: tuple[str, ...]
) -> tuple[int, ...]:
    found = rows.execute(
        "SELECT svn, state FROM classes WHERE image = ? ORDER BY svn", (image,)
    ).fetchall()
    return tuple(
        number for number, state in found if state in states and (svn is None or number == svn)
    )


def _take(rows: sqlite3.Connection, digest: str, found: ImageClass) -> None:
    row = rows.execute("SELECT image, svn FROM launches WHERE digest = ?", (digest,)).fetchone()
    if row is not None:
        raise UsageError(
            "broker-class-overlap",
            f"the launch digest {digest[:16]}... is that of {row[0]} svn {row[1]} already",
            hint="a guest has one class: give the image its own name and svn when it is built",
        )
    rows.execute("INSERT INTO launches VALUES (?, ?, ?)", (digest, *_key(found)))


def _no_image(image: str, said: str) -> UsageError:
    return UsageError(
        "broker-image", f"the image {image} {said}", hint="troth keybroker list shows what is there"
    )

# SPDX-License-Identifier: Apache-2.0
"""The broker's database: one SQLite file, one writer, simulated or real for life.

Serves ``keybroker.classes``, ``resources`` and ``release``, which own the tables'
rows. Every decision is one transaction that is on the disk before anybody hears
of it, so a broker that is killed at any moment has released nothing twice. Must
never mix platforms: what was made for simulated guests stays so (SECURITY S23).

Format: docs/formats.md, "Key broker database".
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
from typing import TYPE_CHECKING

from troth.documents.result import REAL, SIMULATED
from troth.errors import FormatError, HostError, UsageError
from troth.signing import sealed_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE_NAME = "broker.sqlite3"
SCHEMA_VERSION = 1
KINDS = (REAL, SIMULATED)

_APPLICATION = 0x74724B42
"""``application_id`` of the file: "trKB"."""
_BUSY_S = 10.0
_MASTER = "the master key"
_GIVE = "--passphrase-file FILE"

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE images (
    name TEXT PRIMARY KEY, min_svn INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE classes (
    image TEXT NOT NULL REFERENCES images (name), svn INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'retired')),
    document BLOB NOT NULL, keys TEXT NOT NULL, added INTEGER NOT NULL,
    PRIMARY KEY (image, svn)
) STRICT, WITHOUT ROWID;
CREATE TABLE launches (
    digest TEXT PRIMARY KEY, image TEXT NOT NULL, svn INTEGER NOT NULL,
    FOREIGN KEY (image, svn) REFERENCES classes (image, svn)
) STRICT, WITHOUT ROWID;
CREATE TABLE resources (
    path TEXT PRIMARY KEY, secret BLOB NOT NULL, added INTEGER NOT NULL,
    uuid TEXT UNIQUE, profile TEXT,
    state TEXT CHECK (state IN ('new', 'formatting', 'in-use')),
    generation INTEGER NOT NULL DEFAULT 0, record TEXT NOT NULL DEFAULT '',
    committer BLOB NOT NULL DEFAULT x'', holder BLOB NOT NULL DEFAULT x'',
    until INTEGER NOT NULL DEFAULT 0, lease_s INTEGER NOT NULL DEFAULT 0,
    format_s INTEGER NOT NULL DEFAULT 0, taken_over INTEGER NOT NULL DEFAULT 0,
    CHECK ((uuid IS NULL) = (state IS NULL) AND (uuid IS NULL) = (profile IS NULL))
) STRICT, WITHOUT ROWID;
CREATE TABLE grants (
    path TEXT NOT NULL REFERENCES resources (path), image TEXT NOT NULL,
    PRIMARY KEY (path, image)
) STRICT, WITHOUT ROWID;
CREATE TABLE releases (
    report_id BLOB NOT NULL, path TEXT NOT NULL, key_sha256 BLOB NOT NULL,
    at INTEGER NOT NULL, image TEXT NOT NULL, svn INTEGER NOT NULL,
    PRIMARY KEY (report_id, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE finished (report_id BLOB PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE svids (
    serial TEXT PRIMARY KEY, spki_sha256 BLOB NOT NULL, report_id BLOB NOT NULL,
    image TEXT NOT NULL, svn INTEGER NOT NULL, expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER for_life BEFORE UPDATE ON meta WHEN old.name = 'kind'
BEGIN SELECT RAISE(ABORT, 'a database is simulated or real for life'); END;
"""


class Store:
    """An open database; ``kind``: one of ``KINDS``. Safe to use from several threads."""

    def __init__(self, connection: sqlite3.Connection, folder: Path, kind: str) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._master: bytes | None = None
        self._locked = True
        self.folder = folder
        self.kind = kind

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and on the disk at its end. Not to be nested."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise _unusable(self.folder, error) from None
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the database, to be read."""
        with self._lock:
            try:
                self._connection.execute("BEGIN")
                yield self._connection
            except sqlite3.Error as error:
                raise _unusable(self.folder, error) from None
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @property
    def sealed(self) -> bool:
        """Whether keys are sealed under a passphrase."""
        return self.meta("master") is not None

    def seal(self, secret: bytes, *, purpose: str) -> bytes:
        """What is kept of ``secret``."""
        if self._master is None:
            self._refuse_locked()
            return secret
        return sealed_secrets.seal(self._master, secret, purpose=purpose)

    def unseal(self, kept: bytes, *, purpose: str) -> bytes:
        """The secret of what is kept. ``FormatError`` ``sealed-secret``."""
        if self._master is None:
            self._refuse_locked()
            return kept
        return sealed_secrets.open_(self._master, kept, purpose=purpose)

    def _refuse_locked(self) -> None:
        """Nothing may go beside a seal because the database was opened without its key."""
        if self._locked:
            raise _passphrase(self.folder, "the keys in this database are sealed", _GIVE)

    def meta(self, name: str) -> bytes | None:
        """The value that was put under ``name``."""
        with self.reading() as rows:
            found = rows.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else bytes(found[0])

    def put_meta(self, name: str, value: bytes) -> None:
        """Keep ``value`` under ``name``."""
        with self.transaction() as rows:
            rows.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def close(self) -> None:
        """No call may follow."""
        with self._lock:
            self._connection.close()

    def unlock(self, passphrase: bytes | None) -> None:
        """Take the master key out of its wrapping. Raises ``UsageError`` ``broker-passphrase``."""
        salt, wrapped = self.meta("salt"), self.meta("master")
        if wrapped is None or salt is None:
            if passphrase is not None:
                raise _passphrase(
                    self.folder,
                    "this database was made without a passphrase",
                    "leave out --passphrase-file",
                )
            self._locked = False
            return
        if passphrase is None:
            raise _passphrase(self.folder, "the keys in this database are sealed", _GIVE)
        try:
            self._master = sealed_secrets.open_(
                sealed_secrets.stretch(passphrase, salt), wrapped, purpose=_MASTER
            )
        except FormatError:
            raise _passphrase(
                self.folder, "the passphrase is another", "give the file it was made with"
            ) from None


def open_(folder: Path, *, passphrase: bytes | None = None, needs_keys: bool = True) -> Store:
    """The database in ``folder``; ``needs_keys``: whether secrets will be put in or taken out.

    Raises ``UsageError`` ``broker-absent``, ``broker-passphrase``; ``HostError``
    ``broker-mode`` where others could read it, ``broker-database``;
    ``FormatError`` ``broker-format`` for another file or a later version.
    """
    path = folder / FILE_NAME
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(
            "broker-absent",
            f"no broker's database is here: {error.strerror}",
            where=str(folder),
            hint="troth keybroker add --db DIR --reference SIGNED --key PUB makes one",
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        raise HostError(
            "broker-mode",
            "others may read the keys in this file",
            where=str(path),
            hint=f"chmod 600 {path}",
        )
    store = Store(_connect(path, folder), folder, "")
    try:
        store.kind = _kind(store, path)
        if needs_keys:
            store.unlock(passphrase)
    except BaseException:
        store.close()
        raise
    return store


def create(folder: Path, kind: str, *, passphrase: bytes | None = None) -> Store:
    """A new database of ``kind`` in ``folder``, which is made too where it is missing.

    Raises ``HostError`` ``broker-database``; ``UsageError`` ``broker-exists``.
    """
    path = folder / FILE_NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None
    try:
        # The rights come before the content; SQLite gives its own files the same.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise UsageError(
            "broker-exists", "a database is here already, or is being made", where=str(path)
        ) from None
    except OSError as error:
        raise _unusable(folder, error) from None
    store = Store(_connect(path, folder), folder, kind)
    salt = os.urandom(sealed_secrets.SALT_BYTES)
    try:
        with store.transaction() as rows:
            for statement in _statements(_TABLES):
                rows.execute(statement)
            rows.execute("INSERT INTO meta VALUES ('kind', ?)", (kind.encode(),))
            if passphrase is not None:
                wrapped = sealed_secrets.seal(
                    sealed_secrets.stretch(passphrase, salt),
                    os.urandom(sealed_secrets.KEY_BYTES),
                    purpose=_MASTER,
                )
                rows.execute("INSERT INTO meta VALUES ('salt', ?)", (salt,))
                rows.execute("INSERT INTO meta VALUES ('master', ?)", (wrapped,))
            # Last, and in the same transaction: a file without them is no database of ours.
            rows.execute(f"PRAGMA application_id = {_APPLICATION}")
            rows.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        store.unlock(passphrase)
    except BaseException:
        store.close()
        raise
    return store


def check_kind(store: Store, kind: str, what: str) -> None:
    """Raise ``UsageError`` ``broker-kind`` unless ``what``, of ``kind``, may come in."""
    if kind != store.kind:
        raise UsageError(
            "broker-kind",
            f"{what} is of the kind {kind}, and this database is {store.kind} for life",
            where=str(store.folder),
            hint="keep simulated and real guests in two directories",
        )


def _connect(path: Path, folder: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")
    except sqlite3.Error as error:
        raise _unusable(folder, error) from None
    return connection


def _kind(store: Store, path: Path) -> str:
    with store.reading() as rows:
        application = rows.execute("PRAGMA application_id").fetchone()[0]
        version = rows.execute("PRAGMA user_version").fetchone()[0]
    if application != _APPLICATION or version != SCHEMA_VERSION:
        ours = application == _APPLICATION
        raise FormatError(
            "broker-format",
            f"version {version} of the database, not {SCHEMA_VERSION}"
            if ours
            else "no database of a key broker",
            where=str(path),
            hint="use the troth that made it" if ours else "name the directory of a broker",
        )
    kind = (store.meta("kind") or b"").decode("ascii", "replace")
    if kind not in KINDS:
        raise FormatError("broker-format", "it is neither real nor simulated", where=str(path))
    return kind


def _statements(text: str) -> Iterator[str]:
    """The statements of a script; ``executescript`` would commit before the first."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _passphrase(folder: Path, message: str, hint: str) -> UsageError:
    return UsageError("broker-passphrase", message, where=str(folder), hint=hint)


def _unusable(folder: Path, error: Exception) -> HostError:
    said = error.strerror if isinstance(error, OSError) else str(error)
    return HostError("broker-database", f"the database cannot be used: {said}", where=str(folder))

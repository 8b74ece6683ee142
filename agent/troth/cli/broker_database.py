# SPDX-License-Identifier: Apache-2.0
"""What the verbs of ``troth keybroker`` share: the database, the passphrase, the time.

Must hold no verb. A clock is read here only.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from troth.errors import UsageError
from troth.keybroker import store as stores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from troth.keybroker.store import Store

_MAX_PASSPHRASE_BYTES = 64 << 10


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


@contextlib.contextmanager
def opened(
    name: str, *, passphrase_file: str | None = None, needs_keys: bool = True
) -> Iterator[Store]:
    """The database in the directory ``name``; ``needs_keys``: whether secrets go in or out.

    Raises as ``keybroker.store.open_``.
    """
    found = stores.open_(Path(name), passphrase=passphrase(passphrase_file), needs_keys=needs_keys)
    try:
        yield found
    finally:
        found.close()


def exists(name: str) -> bool:
    """Whether the directory ``name`` has a database."""
    return (Path(name) / stores.FILE_NAME).exists()


def create(name: str, kind: str, *, passphrase_file: str | None) -> None:
    """Make the database. Raises as ``keybroker.store.create``."""
    stores.create(Path(name), kind, passphrase=passphrase(passphrase_file)).close()


def passphrase(name: str | None) -> bytes | None:
    """The content of the file ``name``, without a last newline.

    Raises ``UsageError`` ``broker-passphrase``.
    """
    if name is None:
        return None
    data = read(name, _MAX_PASSPHRASE_BYTES, code="broker-passphrase").removesuffix(b"\n")
    if not data:
        raise UsageError("broker-passphrase", "the file is empty", where=name)
    return data


def read(name: str, limit_bytes: int, *, code: str) -> bytes:
    """The file ``name``; ``UsageError`` ``code`` where it cannot be read, or is larger."""
    try:
        with Path(name).open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise UsageError(code, f"cannot be read: {error.strerror}", where=name) from None
    if len(data) > limit_bytes:
        raise UsageError(code, f"more than {limit_bytes} bytes", where=name)
    return data

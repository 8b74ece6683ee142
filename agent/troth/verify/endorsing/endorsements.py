# SPDX-License-Identifier: Apache-2.0
"""The certificates and revocation lists that a verifier was given.

Serves ``verify.endorsing.chain``. They come from a directory, from a host's certificate
table, from anywhere: none of them is trusted for being here, a root least of
all. What a file holds is told by its content. Files that hold something else
are named, and are no reason to stop.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from troth.errors import FormatError, UsageError
from troth.record import record
from troth.signing import certificate_files
from troth.signing.certificates import MAX_FILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from troth.signing.certificates import Certificate
    from troth.signing.revocation_lists import RevocationList

MAX_FILES = 4096
"""In one directory; more than a fleet's keys is a wrong path."""


@record
class Endorsements:
    """Each certificate and list once.

    ``foreign``: (name, reason) of what was there and is neither.
    """

    certificates: tuple[Certificate, ...]
    lists: tuple[RevocationList, ...] = ()
    foreign: tuple[tuple[str, str], ...] = ()


def collect(files: Iterable[tuple[str, bytes]]) -> Endorsements:
    """What ``files``, pairs of name and content, hold."""
    certificates: dict[bytes, Certificate] = {}
    lists: dict[bytes, RevocationList] = {}
    foreign: list[tuple[str, str]] = []
    for name, data in files:
        try:
            found = certificate_files.load_any(data, where=name)
        except FormatError as error:
            foreign.append((name, error.message))
            continue
        certificates.update((item.der, item) for item in found.certificates)
        lists.update((item.der, item) for item in found.lists)
    return Endorsements(tuple(certificates.values()), tuple(lists.values()), tuple(foreign))


def read_directory(folder: Path) -> Endorsements:
    """What the files of ``folder`` hold, hidden ones and sub-directories left out.

    Raises ``UsageError`` ``certs-directory``: it cannot be read, or holds more
    than ``MAX_FILES`` files.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise UsageError(
            "certs-directory", f"cannot be read: {error.strerror}", where=str(folder)
        ) from None
    if len(names) > MAX_FILES:
        raise UsageError(
            "certs-directory",
            f"{len(names)} files; {MAX_FILES} at most are looked at",
            where=str(folder),
        )
    files: list[tuple[str, bytes]] = []
    unread: list[tuple[str, str]] = []
    for name in names:
        try:
            data = _read(folder / name)
        except OSError as error:
            unread.append((name, error.strerror or type(error).__name__))
            continue
        if data is not None:
            files.append((name, data))
    found = collect(files)
    return Endorsements(found.certificates, found.lists, (*unread, *found.foreign))


def _read(path: Path) -> bytes | None:
    """At most one byte more than a file may have; None for what is no file."""
    # Without O_NONBLOCK a fifo would hold the verifier for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)

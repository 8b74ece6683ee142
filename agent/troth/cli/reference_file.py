# SPDX-License-Identifier: Apache-2.0
"""What the verbs of ``troth reference`` share: the file, the keys, the time.

Must hold no verb. A clock is read here only, and only where no time is given.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from troth.documents import instant, reference_document, reference_values
from troth.errors import FormatError, UsageError
from troth.signing import keys, reference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from troth.documents.reference_document import Document
    from troth.signing.keys import PublicKey
    from troth.signing.reference import Judgement

    class Trust(Protocol):
        """The options that say whom to believe, and when."""

        file: str
        key: list[str]
        allow_unsigned: bool
        at: str | None


def path_of(name: str) -> Path:
    """The file that ``name`` means: itself, or the values in a bundle directory."""
    path = Path(name)
    return path / reference_values.FILE_NAME if path.is_dir() else path


def read(name: str) -> Document:
    """The document in the file or bundle directory ``name``; ``UsageError`` ``reference-file``."""
    path = path_of(name)
    try:
        with path.open("rb") as file:
            data = file.read(reference_document.MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            "reference-file",
            f"cannot be read: {error.strerror}",
            where=str(path),
            hint="name reference-values.json, a signed file, or a bundle directory",
        ) from None
    return reference_document.read(data, where=str(path))


def moment(text: str | None, *, option: str) -> int:
    """Seconds since 1970 of an option's text, of now where there is none."""
    if text is None:
        return int(time.time())
    try:
        return instant.parse(text)
    except FormatError as error:
        raise UsageError("time-form", f"{option}: {error.message}", hint=error.hint) from None


def public_keys(names: Sequence[str]) -> list[PublicKey]:
    """The keys in the files ``names``."""
    return [keys.load_public(keys.read_file(name), where=name) for name in names]


def judge(options: Trust, *, at_s: int, min_svn: int | None = None) -> Judgement:
    """The file of ``options``, judged; ``UsageError`` ``reference-key-missing`` without trust."""
    if not options.key and not options.allow_unsigned:
        raise UsageError(
            "reference-key-missing",
            "nobody is named whose signature counts",
            hint="--key PEM of whoever builds the image, or --allow-unsigned",
        )
    return reference.judge(
        read(options.file),
        keys=public_keys(options.key),
        at_s=at_s,
        min_svn=min_svn,
        allow_unsigned=options.allow_unsigned,
    )

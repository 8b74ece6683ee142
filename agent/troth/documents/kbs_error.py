# SPDX-License-Identifier: Apache-2.0
"""How a key broker says no.

Serves ``keybroker``, which prints it, and ``boot.key_sources``, which shows it
on a console: so what is read is cut and made printable. Must never make a guest
decide anything but to stop. Source: Trustee, kbs/docs/kbs_attestation_protocol.md,
"Error information"; RFC 7807.
"""

from __future__ import annotations

import json

from troth.documents import strict
from troth.errors import FormatError
from troth.record import record

TYPE_URL = "https://github.com/confidential-containers/kbs/errors/"
MAX_DETAIL_CHARACTERS = 300
_MAX_NAME_CHARACTERS = 64
_MAX_BODY_BYTES = 64 << 10


@record
class BrokerError:
    """``name``: the last part of its type, such as ``PolicyDeny``; ``detail``: a sentence."""

    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}" if self.detail else self.name


def print_(error: BrokerError) -> bytes:
    """The body that says ``error``."""
    tree = {"type": TYPE_URL + error.name, "detail": error.detail}
    return json.dumps(tree, separators=(",", ":")).encode()


def parse(data: bytes, *, where: str = "") -> BrokerError:
    """The error in ``data``, short and printable whatever came. ``FormatError``: ``json-*``.

    Other brokers may add members; they are passed over.
    """
    own = strict.Reader(strict.parse(data, where=where, limit_bytes=_MAX_BODY_BYTES), where=where)
    name = printable(own.text("type").rpartition("/")[2], most=_MAX_NAME_CHARACTERS)
    return BrokerError(name or "unnamed", printable(own.text("detail")))


def printable(text: str, *, most: int = MAX_DETAIL_CHARACTERS) -> str:
    """``text`` for a console: ASCII, one line, at most ``most`` characters."""
    clean = "".join(letter if " " <= letter <= "~" else "?" for letter in text[: most + 1])
    return clean if len(clean) <= most else clean[: most - 3] + "..."


def said(data: bytes) -> str:
    """What ``data`` says for people, also where it is no error document."""
    try:
        return str(parse(data))
    except FormatError:
        return printable(data[:MAX_DETAIL_CHARACTERS].decode("latin-1")) or "no reason was given"

# SPDX-License-Identifier: Apache-2.0
"""What a broker releases for one volume, in plain text: the key and what it belongs to.

Serves ``troth keybroker``, which prints it, and the guest's key sources, which
read it. The label is bound to the key by a MAC under that key: whoever labels a
key for a volume knew it, so a resource that somebody exchanged by its URL is
refused. A MAC is no proof of who sent it: that is the pinned identity of the
broker. Must never be printed where people read; ``repr`` leaves the key out.

Format: docs/formats.md, "Volume key".
"""

from __future__ import annotations

from troth.abi import hkdf, keyed_digest
from troth.documents import base64_text, strict
from troth.errors import FormatError
from troth.record import record

SCHEMA = "troth-volume-key-v1"
MAX_DOCUMENT_BYTES = 4096
KEY_BYTES = (32, 64)
"""Least and most."""
IN_USE = "in-use"
FORMATTING = "formatting"
STATES = (IN_USE, FORMATTING)
PROFILES = tuple(
    f"{form}/{integrity}/4096"
    for form in ("headerless", "luks2")
    for integrity in ("hmac", "aes-gcm", "none")
)

_LABEL = b"troth-resource-v1"
_UUID_PARTS = (8, 4, 4, 4, 12)


@record
class VolumeKey:
    """``volume``: UUID; ``profile``: one of ``PROFILES``; ``key``: 32 to 64 bytes; ``state``:
    one of ``STATES``; ``generation`` and ``digest`` of the volume's last committed record:
    its SHA-256 in hex, empty exactly where the generation is 0.
    """  # noqa: D205 - the fields are the summary

    volume: str
    profile: str
    key: bytes
    state: str = IN_USE
    generation: int = 0
    digest: str = ""

    def __repr__(self) -> str:
        return f"VolumeKey({self.volume}, {self.profile}, {self.state}, {self.generation})"


def is_volume_id(text: str) -> bool:
    """Whether ``text`` is a UUID in lower case."""
    parts = text.split("-")
    sizes = tuple(len(part) for part in parts)
    return sizes == _UUID_PARTS and set("0123456789abcdef").issuperset("".join(parts))


def print_(value: VolumeKey) -> bytes:
    """The document of ``value``, canonical. ``FormatError``: ``volume-key-field``."""
    _check(value, "")
    tree = _labelled(value)
    return strict.canonical(tree | {"mac": _mac(value.key, tree)})


def parse(data: bytes, *, where: str = "") -> VolumeKey:
    """The key in ``data``, with a label that was made by somebody who knew it.

    Raises ``FormatError``: ``volume-key-mac``, ``volume-key-field``, ``json-*``.
    """
    own = strict.Reader(
        strict.parse(data, where=where, limit_bytes=MAX_DOCUMENT_BYTES), where=where
    )
    own.text("schema", allowed=(SCHEMA,))
    key = base64_text.from_standard(own.text("key"))
    found = VolumeKey(
        own.text("volume"),
        own.text("profile"),
        b"" if key is None else key,
        own.text("state"),
        own.integer("generation"),
        own.text("record"),
    )
    mac = own.digest("mac", size_bytes=32)
    own.close()
    _check(found, where)
    if not keyed_digest.equal(mac, _mac(found.key, _labelled(found))):
        raise FormatError(
            "volume-key-mac",
            "the label of a volume key was not made with that key",
            where=where,
            hint="the broker's resource was changed, or put together from two",
        )
    return found


def check_volume(value: VolumeKey, volume: str, profile: str, *, where: str = "") -> None:
    """Raise ``FormatError`` ``volume-key-other`` unless ``value`` is for this use."""
    if (value.volume, value.profile) != (volume, profile):
        raise FormatError(
            "volume-key-other",
            f"a key for volume {value.volume} ({value.profile}) came for {volume} ({profile})",
            where=where,
            hint="what the broker has under this name belongs to another volume, or another use",
        )


def _check(value: VolumeKey, where: str) -> None:
    hexadecimal = set("0123456789abcdef")
    wrong = ""
    if not is_volume_id(value.volume):
        wrong = "volume is no UUID in lower case"
    elif value.profile not in PROFILES:
        wrong = "profile is unknown"
    elif not KEY_BYTES[0] <= len(value.key) <= KEY_BYTES[1]:
        wrong = "key is not 32 to 64 bytes of base64"
    elif value.state not in STATES:
        wrong = "state is unknown"
    elif not 0 <= value.generation <= strict.MAX_INTEGER:
        wrong = "generation is out of range"
    elif len(value.digest) != (64 if value.generation else 0):
        wrong = "record is no digest, or one without a generation"
    elif not hexadecimal.issuperset(value.digest):
        wrong = "record is not lower-case hex"
    if wrong:
        raise FormatError("volume-key-field", wrong, where=where)


def _labelled(value: VolumeKey) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "volume": value.volume,
        "profile": value.profile,
        "key": base64_text.standard(value.key),
        "state": value.state,
        "generation": value.generation,
        "record": value.digest,
    }


def _mac(key: bytes, tree: dict[str, object]) -> str:
    own = hkdf.hkdf_sha256(key, _LABEL, size_bytes=32)
    return keyed_digest.digest(own, strict.canonical(tree)).hex()

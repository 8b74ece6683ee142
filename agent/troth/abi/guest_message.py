# SPDX-License-Identifier: Apache-2.0
"""The sealed page between a guest and its secure processor: header, sums, checks.

Serves the simulated platform, which has both ends of it (a real guest leaves
its end to the kernel). A page passes through the host's hands: it is copied
before anything is read, and what it says of itself is compared with what is
expected before it is decrypted. There is no cryptography here: the caller gives
an ``Aead``. Must never seal two payloads under one sequence number and key:
AES-GCM loses both then. Whoever has to ask again sends the same page again, or
destroys the key.

Source: AMD SEV Secure Nested Paging Firmware ABI Specification (56860) 1.58,
section 8.26, "SNP_GUEST_REQUEST", and table "Message Header Format";
little-endian.
"""

from __future__ import annotations

import struct

from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Aead(Protocol):
        """AES-256-GCM under one VMPCK."""

        def encrypt(self, iv: bytes, aad: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
            """The ciphertext, as long as ``plaintext``, and the tag of 16 bytes."""
            ...

        def decrypt(self, iv: bytes, aad: bytes, ciphertext: bytes, tag: bytes) -> bytes:
            """The plaintext; raises ``wrong_tag()`` where the tag does not hold."""
            ...


PAGE_BYTES = 4096
HEADER_BYTES = 96
MAX_PAYLOAD_BYTES = PAGE_BYTES - HEADER_BYTES
KEY_BYTES = 32
TAG_BYTES = 16
IV_BYTES = 12
AAD_BYTES = 48
MAX_VMPCK = 3

# Types of requests; a response has the next number.
CPUID_REQUEST = 1
KEY_REQUEST = 3
REPORT_REQUEST = 5
EXPORT_REQUEST = 7
IMPORT_REQUEST = 9
ABSORB_REQUEST = 11
VMRK_REQUEST = 13
TSC_INFO_REQUEST = 17

LAST_COUNT = 0xFFFFFFFF
"""A key's stored count of messages has 32 bits; at this one it is used up."""

_ALGORITHM_AES_256_GCM = 1
_HEADER_VERSION = 1
#: authtag (16 used), sequence, reserved, algo, hdr_version, hdr_sz, type, version, msg_sz,
#: reserved, vmpck, reserved
_HEADER = struct.Struct("<16s16sQ8sBBHBBHIB35s")
_AAD_AT = 0x30


@record
class Header:
    """What a message says before its payload.

    ``sequence``: from 1, odd in requests and even in responses; ``kind``: the
    message type; ``version``: the message's own; ``vmpck``: number of the key.
    """

    sequence: int
    kind: int
    version: int
    vmpck: int


def answer_to(request: Header) -> Header:
    """What the header of the response to ``request`` must be."""
    return Header(request.sequence + 1, request.kind + 1, request.version, request.vmpck)


def next_sequence(count: int) -> int:
    """The number of the next request under a key after ``count`` messages.

    The page of secrets keeps that count; a completed round adds 2. Raises ``FormatError``
    ``guest-message-sequence`` where the key is used up.
    """
    if not 0 <= count < LAST_COUNT:
        raise FormatError("guest-message-sequence", f"after {count} messages the key is used up")
    return count + 1


def iv(sequence: int) -> bytes:
    """The 12 bytes of the initialisation vector of message ``sequence``."""
    return sequence.to_bytes(8, "little") + bytes(4)


def wrong_tag() -> FormatError:
    """What ``Aead.decrypt`` raises: ``guest-message-tag``."""
    return FormatError("guest-message-tag", "the message is not sealed with this key")


def seal(header: Header, payload: bytes, aead: Aead) -> bytes:
    """The page of 4096 bytes with ``payload`` (at most 4000) encrypted and authenticated.

    Raises ``FormatError``: ``guest-message-sequence``, ``guest-message-length``,
    ``guest-message-field`` for a number its field does not hold.
    """
    if not 1 <= header.sequence < 1 << 64:
        raise FormatError("guest-message-sequence", f"{header.sequence} is no sequence number")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise _too_long(len(payload), MAX_PAYLOAD_BYTES)
    fields = (header.kind, header.version)
    if not all(0 <= field < 1 << 8 for field in fields) or not 0 <= header.vmpck <= MAX_VMPCK:
        raise FormatError("guest-message-field", f"no message has the header {header}")
    aad = _pack(header, len(payload), tag=b"")[_AAD_AT:]
    ciphertext, tag = aead.encrypt(iv(header.sequence), aad, payload)
    return (_pack(header, len(payload), tag=tag) + ciphertext).ljust(PAGE_BYTES, b"\0")


def peek(page: bytes) -> Header:
    """What ``page`` says of itself, well-formed but not believed.

    For the firmware's end, which learns from it which key to take. Raises
    ``FormatError``: ``guest-message-page``, ``guest-message-length``,
    ``guest-message-header``, ``guest-message-vmpck``, ``guest-message-reserved``.
    """
    copy = _copied(page)
    found, size_bytes = _read(copy)
    _check_length(size_bytes, MAX_PAYLOAD_BYTES)
    _check_form(copy, found, vmpcks=range(MAX_VMPCK + 1))
    return found


def open_(
    page: bytes, expected: Header, aead: Aead, *, max_payload_bytes: int = MAX_PAYLOAD_BYTES
) -> bytes:
    """The payload of ``page``, at most ``max_payload_bytes``, if it is the one ``expected``.

    Raises ``FormatError``, looking in this order: ``guest-message-page``,
    ``-sequence``, ``-type``, ``-version``, ``-length``, ``-header``, ``-vmpck``,
    ``-reserved``, ``-tag``. After any of them the key is to be destroyed.
    """
    copy = _copied(page)
    found, size_bytes = _read(copy)
    _same("guest-message-sequence", "number", found.sequence, expected.sequence)
    _same("guest-message-type", "type", found.kind, expected.kind)
    _same("guest-message-version", "version", found.version, expected.version)
    _check_length(size_bytes, max_payload_bytes)
    _check_form(copy, found, vmpcks=range(expected.vmpck, expected.vmpck + 1))
    ciphertext = copy[HEADER_BYTES : HEADER_BYTES + size_bytes]
    return aead.decrypt(
        iv(found.sequence), copy[_AAD_AT:HEADER_BYTES], ciphertext, copy[:TAG_BYTES]
    )


def _pack(header: Header, size_bytes: int, *, tag: bytes) -> bytes:
    return _HEADER.pack(
        tag,
        b"",
        header.sequence,
        b"",
        _ALGORITHM_AES_256_GCM,
        _HEADER_VERSION,
        HEADER_BYTES,
        header.kind,
        header.version,
        size_bytes,
        0,
        header.vmpck,
        b"",
    )


def _copied(page: bytes) -> bytes:
    """``page`` as bytes of our own: the host may write to shared memory at any time."""
    copy = bytes(page)
    if len(copy) != PAGE_BYTES:
        raise FormatError(
            "guest-message-page", f"a message is one page of {PAGE_BYTES} bytes, not {len(copy)}"
        )
    return copy


def _read(copy: bytes) -> tuple[Header, int]:
    _, _, sequence, _, _, _, _, kind, version, size_bytes, _, vmpck, _ = _HEADER.unpack_from(copy)
    return Header(sequence, kind, version, vmpck), size_bytes


def _same(code: str, what: str, value: int, wanted: int) -> None:
    if value != wanted:
        raise FormatError(code, f"the message has {what} {value}, expected is {wanted}")


def _check_length(size_bytes: int, limit_bytes: int) -> None:
    limit_bytes = min(limit_bytes, MAX_PAYLOAD_BYTES)
    if size_bytes > limit_bytes:
        raise _too_long(size_bytes, limit_bytes)


def _too_long(size_bytes: int, limit_bytes: int) -> FormatError:
    return FormatError(
        "guest-message-length", f"a payload of {size_bytes} bytes, at most {limit_bytes} fit"
    )


def _check_form(copy: bytes, found: Header, *, vmpcks: range) -> None:
    """What must be the same in every message, and the number of the key."""
    _, tag_rest, _, gap, algorithm, version, header_bytes, _, _, _, word, _, rest = (
        _HEADER.unpack_from(copy)
    )
    if version != _HEADER_VERSION:
        raise FormatError("guest-message-header", f"header version {version} is not known")
    if header_bytes != HEADER_BYTES:
        raise FormatError("guest-message-header", f"a header of {header_bytes} bytes")
    if algorithm != _ALGORITHM_AES_256_GCM:
        raise FormatError("guest-message-header", f"algorithm {algorithm} is not AES-256-GCM")
    if found.vmpck not in vmpcks:
        raise FormatError("guest-message-vmpck", f"the message names VMPCK {found.vmpck}")
    if word or any(tag_rest) or any(gap) or any(rest):
        raise FormatError("guest-message-reserved", "reserved bytes of the header are not zero")

# SPDX-License-Identifier: Apache-2.0
"""Where the public key stands in an X.509 certificate.

Serves the comparison of a broker's key with the pinned digest, where reading
whole certificates would cost a boot more than the rest of the handshake. Strict
DER only, each field by its place and tag: what another reader could understand
in another way is refused. Must never be taken for a check of a certificate.

Source: RFC 5280, section 4.1; ITU-T X.690, section 10.1.
"""

from __future__ import annotations

from troth.errors import FormatError

MAX_CERTIFICATE_BYTES = 1 << 16

_SEQUENCE, _INTEGER, _VERSION = 0x30, 0x02, 0xA0
# After version and serial number: algorithm, issuer, validity, subject.
_BEFORE_THE_KEY = 4


def public_key_info(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of ``certificate``, both DER. ``FormatError``: ``der-value``."""
    if len(certificate) > MAX_CERTIFICATE_BYTES:
        raise _refused(f"a certificate of {len(certificate)} bytes")
    start, end, after = _value(certificate, 0, _SEQUENCE, len(certificate))
    if after != len(certificate):
        raise _refused("something stands behind the certificate")
    at, end, _after = _value(certificate, start, _SEQUENCE, end)
    if certificate[at : at + 1] == bytes([_VERSION]):
        at = _value(certificate, at, _VERSION, end)[2]
    at = _value(certificate, at, _INTEGER, end)[2]
    for _ in range(_BEFORE_THE_KEY):
        at = _value(certificate, at, _SEQUENCE, end)[2]
    return certificate[at : _value(certificate, at, _SEQUENCE, end)[2]]


def _value(data: bytes, at: int, tag: int, end: int) -> tuple[int, int, int]:
    """Where the content of the value at ``at`` begins and ends, and where the next one begins."""
    if at + 2 > end or data[at] != tag:
        raise _refused(f"no value of tag {tag:#04x} at {at}")
    length, start = data[at + 1], at + 2
    if length & 0x80:
        octets = length & 0x7F
        if not 1 <= octets <= 3 or start + octets > end:
            raise _refused("a length in a form that is not allowed here")
        length = int.from_bytes(data[start : start + octets], "big")
        if length < 0x80 or not data[start]:
            raise _refused("a length that is longer than it must be")
        start += octets
    if start + length > end:
        raise _refused("a value that ends behind what holds it")
    return start, start + length, start + length


def _refused(said: str) -> FormatError:
    return FormatError("der-value", f"not a certificate in DER: {said}")

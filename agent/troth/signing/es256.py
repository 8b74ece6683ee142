# SPDX-License-Identifier: Apache-2.0
"""Signatures of tokens: ECDSA P-256 with SHA-256 in the form of JOSE.

Serves ``keybroker.tokens``. A key lives as long as the process that made it. Must
never be kept: whoever had it could write a token with a key of his own.

Source: RFC 7518, section 3.4 (r and s of 32 bytes each).
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

_SIZE = 32
SIGNATURE_BYTES = 2 * _SIZE


class TokenKey:
    """A new key. ``point``: its public x and y, 32 bytes each."""

    __slots__ = ("_key", "point")

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        numbers = self._key.public_key().public_numbers()
        self.point = (numbers.x.to_bytes(_SIZE, "big"), numbers.y.to_bytes(_SIZE, "big"))

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes over ``data``."""
        r, s = utils.decode_dss_signature(self._key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(_SIZE, "big") + s.to_bytes(_SIZE, "big")

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Whether ``signature`` is this key's over ``data``."""
        if len(signature) != SIGNATURE_BYTES:
            return False
        r, s = (int.from_bytes(part, "big") for part in (signature[:_SIZE], signature[_SIZE:]))
        try:
            der = utils.encode_dss_signature(r, s)
            self._key.public_key().verify(der, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True

# SPDX-License-Identifier: Apache-2.0
"""HMAC without OpenSSL, and the comparison of secrets.

Serves records, derivations and events of volumes, some of them in guests whose image holds
no libcrypto: ``hmac`` and ``hashlib`` would bring five megabytes of it for a few hundred
bytes to authenticate. Must never be given much to do: it is Python around the interpreter's
own C functions.

Source: RFC 2104.
"""

from __future__ import annotations

from _operator import _compare_digest as equal

from troth.abi.hashes import BANKS

_OUTER = bytes(byte ^ 0x5C for byte in range(256))
_INNER = bytes(byte ^ 0x36 for byte in range(256))

__all__ = ["digest", "equal"]


def digest(key: bytes, data: bytes, bank: str = "sha256") -> bytes:
    """The HMAC of ``data`` under ``key`` with the hash of ``bank``, a name of ``hashes.BANKS``."""
    function = BANKS[bank][0]
    block_bytes = function().block_size
    if len(key) > block_bytes:
        key = function(key).digest()
    key = key.ljust(block_bytes, b"\0")
    inner = function(key.translate(_INNER) + data).digest()
    return function(key.translate(_OUTER) + inner).digest()

# SPDX-License-Identifier: Apache-2.0
"""Hash functions without OpenSSL.

PID 1 hashes a few kilobytes; ``hashlib`` would bring five megabytes of
libcrypto into the initramfs for it. The interpreter's own C modules carry the
same functions (they were renamed in Python 3.12).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha1, sha256, sha384, sha512
else:
    from _sha1 import sha1

    try:
        from _sha256 import sha256
        from _sha512 import sha384, sha512
    except ImportError:
        from _sha2 import sha256, sha384, sha512

#: Name as in event logs -> (function, digest size in bytes).
BANKS = {"sha1": (sha1, 20), "sha256": (sha256, 32), "sha384": (sha384, 48), "sha512": (sha512, 64)}

__all__ = ["BANKS", "digest", "sha1", "sha256", "sha384", "sha512", "zero"]


def digest(bank: str, data: bytes) -> bytes:
    """The digest of ``data`` in ``bank``."""
    return BANKS[bank][0](data).digest()


def zero(bank: str) -> bytes:
    """A register of ``bank`` as it starts."""
    return bytes(BANKS[bank][1])

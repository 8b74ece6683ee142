# SPDX-License-Identifier: Apache-2.0
"""AES-256-GCM for the messages between a guest and a simulated secure processor.

Serves ``simulated.processor``; the guest's own half takes the kernel's cipher
instead. It is the ``Aead`` of ``abi.guest_message``. Must never choose an IV:
whoever counts the messages does, and never twice the same.

Source: NIST SP 800-38D; AMD 56860 1.58, section 8.26 (tag of 16 bytes, IV of 12).
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from troth.abi import guest_message
from troth.errors import FormatError


class AesGcm:
    """The cipher under one ``key`` of 32 bytes. ``FormatError`` ``guest-message-key`` else."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        if len(key) != guest_message.KEY_BYTES:
            raise FormatError("guest-message-key", f"a VMPCK of {len(key)} bytes")
        self._cipher = AESGCM(key)

    def encrypt(self, iv: bytes, aad: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
        """The ciphertext, as long as ``plaintext``, and the tag of 16 bytes."""
        sealed = self._cipher.encrypt(iv, plaintext, aad)
        return sealed[: -guest_message.TAG_BYTES], sealed[-guest_message.TAG_BYTES :]

    def decrypt(self, iv: bytes, aad: bytes, ciphertext: bytes, tag: bytes) -> bytes:
        """The plaintext; ``FormatError`` ``guest-message-tag`` where the tag does not hold."""
        try:
            return self._cipher.decrypt(iv, ciphertext + tag, aad)
        except InvalidTag:
            raise guest_message.wrong_tag() from None

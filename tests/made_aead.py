# SPDX-License-Identifier: Apache-2.0
"""AES-256-GCM for the tests of guest messages, by ``cryptography``."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from troth.abi import guest_message


class AesGcm:
    """Seals and opens, and fails where one number would seal two payloads."""

    def __init__(self, key):
        self._gcm = AESGCM(key)
        self.sealed = {}

    def encrypt(self, iv, aad, plaintext):
        assert self.sealed.setdefault(iv, plaintext) == plaintext, "two plaintexts, one number"
        found = self._gcm.encrypt(iv, plaintext, aad)
        return found[:-16], found[-16:]

    def decrypt(self, iv, aad, ciphertext, tag):
        try:
            return self._gcm.decrypt(iv, ciphertext + tag, aad)
        except InvalidTag:
            raise guest_message.wrong_tag() from None

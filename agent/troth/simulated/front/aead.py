# SPDX-License-Identifier: Apache-2.0
"""AES-256-GCM by the kernel: AF_ALG, so that no cryptographic library is packed.

Serves ``driver``, as its ``Aead``. The key stays in the kernel and goes with
this object. Must never ask for more bytes than a result has: AF_ALG waits for
more input then, for ever.

Source: Linux, Documentation/crypto/userspace-if.rst, "AEAD Cipher API".
"""

from __future__ import annotations

import _socket
import errno

from troth.abi import guest_message

_TYPE, _NAME = "aead", "gcm(aes)"
#: Of one operation; far above what a message takes.
_TIMEOUT_S = 10.0


class KernelAead:
    """AES-256-GCM under ``key``. ``OSError`` where the kernel lacks it."""

    def __init__(self, key: bytes) -> None:
        self._socket = _socket.socket(
            _socket.AF_ALG, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC, 0
        )
        self._socket.bind((_TYPE, _NAME))
        self._socket.setsockopt(_socket.SOL_ALG, _socket.ALG_SET_KEY, key)
        self._socket.setsockopt(
            _socket.SOL_ALG, _socket.ALG_SET_AEAD_AUTHSIZE, None, guest_message.TAG_BYTES
        )

    def encrypt(self, iv: bytes, aad: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
        """Ciphertext and tag. ``OSError``."""
        result_bytes = len(aad) + len(plaintext) + guest_message.TAG_BYTES
        found = self._run(_socket.ALG_OP_ENCRYPT, iv, (aad, plaintext), result_bytes)
        sealed = found[len(aad) :]
        return sealed[: len(plaintext)], sealed[len(plaintext) :]

    def decrypt(self, iv: bytes, aad: bytes, ciphertext: bytes, tag: bytes) -> bytes:
        """The plaintext. ``FormatError`` ``guest-message-tag``, ``OSError``."""
        result_bytes = len(aad) + len(ciphertext)
        try:
            found = self._run(_socket.ALG_OP_DECRYPT, iv, (aad, ciphertext, tag), result_bytes)
        except OSError as error:
            if error.errno == errno.EBADMSG:
                raise guest_message.wrong_tag() from None
            raise
        return found[len(aad) :]

    def _run(self, operation: int, iv: bytes, parts: tuple[bytes, ...], result_bytes: int) -> bytes:
        """The result, which begins with a copy of the associated data, parts[0]."""
        # A socket of its own: after a failed tag the old one is in no state to be used.
        # What socket.accept() calls as well.
        fd, _ = self._socket._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        worker = _socket.socket(_socket.AF_ALG, _socket.SOCK_SEQPACKET, 0, fd)
        try:
            worker.settimeout(_TIMEOUT_S)
            worker.sendmsg_afalg(parts, op=operation, iv=iv, assoclen=len(parts[0]))
            found = worker.recv(result_bytes)
        finally:
            worker.close()
        if len(found) != result_bytes:
            raise OSError(errno.EIO, f"{len(found)} bytes of AES-GCM, not {result_bytes}")
        return found

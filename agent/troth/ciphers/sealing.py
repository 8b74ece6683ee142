# SPDX-License-Identifier: Apache-2.0
"""Encryption to whatever key a guest offers.

Serves the broker. Must never be imported by a guest, which needs one of the two.
"""

from __future__ import annotations

from troth.ciphers import key_agreement, key_transport
from troth.documents import jwk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.jwe import Jwe
    from troth.documents.jwk import PublicKey


def seal(public: PublicKey, plaintext: bytes) -> Jwe:
    """``plaintext`` encrypted to ``public``. ``FormatError``: ``jwk-form``, ``jwk-curve``."""
    if isinstance(public, jwk.EcPublicKey):
        return key_agreement.seal(public, plaintext)
    return key_transport.seal(public, plaintext)

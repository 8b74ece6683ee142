# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: what a broker encrypted, and opening it."""

from functools import cache

from troth.ciphers import key_agreement, key_transport
from troth.ciphers.key_agreement import AgreementKey
from troth.documents import jwe, jwk
from troth.errors import FormatError


@cache
def own() -> AgreementKey:
    return AgreementKey()


SEEDS = [
    jwe.print_(key_agreement.seal(own().public, b"key")),
    jwe.print_(key_agreement.seal(AgreementKey(jwk.P521).public, b"key")),
    jwe.print_(key_transport.seal(key_transport.TransportKey().public, b"key")),
]


def fuzz(data: bytes) -> None:
    try:
        found = jwe.parse(data)
    except FormatError:
        return
    if jwe.parse(jwe.print_(found)) != found:
        raise AssertionError("it does not survive printing")
    try:
        plain = own().open(found)
    except FormatError:
        return
    if plain != b"key":
        raise AssertionError("another text opens")

# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: key files and DER signatures; what loads must be one of the two kinds of key."""

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from troth.errors import FormatError
from troth.signing import keys

SEC1 = ec.derive_private_key(0x5EED, ec.SECP384R1()).private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.TraditionalOpenSSL,
    serialization.NoEncryption(),
)
SPKI = bytes.fromhex("302a300506032b6570032100") + bytes(31) + b"\1"
SEEDS = [SEC1, SPKI, bytes.fromhex("3006020101020102")]


def fuzz(data: bytes) -> None:
    for where in ("", "file"):
        try:
            key = keys.load(data, where=where)
        except FormatError:
            continue
        public = keys.public_half(key)
        again = keys.load(public.spki)
        if again != public or public.algorithm not in (keys.P384, keys.ED25519):
            raise ValueError("a key does not come back the same")
        public.verify(data, data)
    try:
        r, s = keys.signature_numbers(data)
    except FormatError:
        return
    if keys.signature_der(r, s) != data:
        raise ValueError("two forms of one signature")

# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: a TPM's quote, key and signature; what is read prints as it was."""

import struct

from troth.abi import tpm_attest
from troth.errors import FormatError

#: A quote of PCR 11 in SHA-256, an ECC P-256 key and an ECDSA signature, byte for byte.
QUOTE = (
    struct.pack(">IH", 0xFF544347, 0x8018)
    + struct.pack(">H", 34) + b"\x00\x0b" + b"\x22" * 32
    + struct.pack(">H", 4) + b"more"
    + struct.pack(">QIIB", 1000, 7, 3, 1) + struct.pack(">Q", 0x2019102300163636)
    + bytes.fromhex("00000001 000b 03 000800") + struct.pack(">H", 32) + b"\x55" * 32
)  # fmt: skip
ECC_PUBLIC = (
    bytes.fromhex("0023 000b 00050472 0000 0010 0018 000b 0003 0010")
    + b"\x00\x20" + b"\x01" * 32 + b"\x00\x20" + b"\x02" * 32
)  # fmt: skip
RSA_PUBLIC = (
    bytes.fromhex("0001 000b 00050472 0000 0010 0014 000b 0800 00000000 0100")
    + b"\xc1" + b"\x05" * 255
)  # fmt: skip
EK_PUBLIC = (
    bytes.fromhex("0001 000b 000300b2 0020") + b"\x77" * 32
    + bytes.fromhex("0006 0080 0043 0010 0800 00000000 0100") + b"\xc1" + b"\x05" * 255
)  # fmt: skip
ECDSA = bytes.fromhex("0018 000b 0020") + b"\x03" * 32 + b"\x00\x20" + b"\x04" * 32
RSASSA = bytes.fromhex("0014 000b 0100") + b"\x06" * 256

PAIRS = (
    (tpm_attest.parse_quote, tpm_attest.print_quote),
    (tpm_attest.parse_public, tpm_attest.print_public),
    (tpm_attest.parse_signature, tpm_attest.print_signature),
)
SEEDS = [QUOTE, ECC_PUBLIC, RSA_PUBLIC, EK_PUBLIC, ECDSA, RSASSA]


def fuzz(data: bytes) -> None:
    for parse, print_ in PAIRS:
        try:
            found = parse(data)
        except FormatError:
            continue
        if print_(found) != data:
            raise AssertionError(f"{parse.__name__}: prints as something else")
    try:
        tpm_attest.name(data)
        tpm_attest.parse_public_2b(data)
    except FormatError:
        pass

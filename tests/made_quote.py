# SPDX-License-Identifier: Apache-2.0
"""Quotes of a TPM that is not there: keys, attestations and signatures written by offsets."""

import functools
import hashlib
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from troth.documents.evidence import Counters, PcrValue, TpmPart

#: fixedTPM fixedParent sensitiveDataOrigin userWithAuth noDA restricted sign
ATTRIBUTES = 0x00050472
ALGORITHMS = {"sha1": (4, 20), "sha256": (11, 32), "sha384": (12, 48), "sha512": (13, 64)}
HASHES = {
    "sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}  # fmt: skip
CURVES = {"p256": (3, 32, ec.SECP256R1()), "p384": (4, 48, ec.SECP384R1())}


def sized(value):
    return struct.pack(">H", len(value)) + value


@functools.cache
def rsa_key(bits):
    return rsa.generate_private_key(65537, bits)


@functools.cache
def ecc_key(curve):
    return ec.generate_private_key(CURVES[curve][2])


class Ak:
    """An attestation key; ``area`` is its TPMT_PUBLIC."""

    def __init__(self, kind="p256", *, attributes=ATTRIBUTES, algorithm="sha256", scheme=None):
        self.hash = algorithm
        self.scheme = scheme or ("ecdsa" if kind in CURVES else "rsassa")
        number = {"ecdsa": 0x18, "rsassa": 0x14, "rsapss": 0x16}[self.scheme]
        self.number = number
        head = struct.pack(
            ">HHIHHHH", 0x23 if kind in CURVES else 1, 11, attributes, 0, 0x10, number,
            ALGORITHMS[algorithm][0],
        )  # fmt: skip
        if kind in CURVES:
            self.key = ecc_key(kind)
            curve, size, _ = CURVES[kind]
            point = self.key.public_key().public_numbers()
            tail = struct.pack(">HH", curve, 0x10)
            tail += sized(point.x.to_bytes(size, "big")) + sized(point.y.to_bytes(size, "big"))
        else:
            self.key = rsa_key(kind)
            modulus = self.key.public_key().public_numbers().n.to_bytes(kind // 8, "big")
            tail = struct.pack(">HI", kind, 0) + sized(modulus)
        self.area = head + tail

    @property
    def name(self):
        return b"\x00\x0b" + hashlib.sha256(self.area).digest()

    def sign(self, data):
        """A TPMT_SIGNATURE over ``data``."""
        head = struct.pack(">HH", self.number, ALGORITHMS[self.hash][0])
        way = HASHES[self.hash]
        if self.scheme == "ecdsa":
            r, s = utils.decode_dss_signature(self.key.sign(data, ec.ECDSA(way)))
            size = (self.key.key_size + 7) // 8
            return head + sized(r.to_bytes(size, "big")) + sized(s.to_bytes(size, "big"))
        if self.scheme == "rsassa":
            return head + sized(self.key.sign(data, padding.PKCS1v15(), way))
        pss = padding.PSS(padding.MGF1(way), salt_length=padding.PSS.MAX_LENGTH)
        return head + sized(self.key.sign(data, pss, way))


def qualifying(nonce, name):
    """troth-quote-v1, by hand."""
    fields = ((2, b"troth-quote-v1"), (3, nonce), (6, name))
    data = b"".join(struct.pack("<BI", kind, len(value)) + value for kind, value in fields)
    return hashlib.sha256(data).digest()


def attest(pcrs, *, extra, algorithm="sha256", clock=(5000, 3, 1), magic=0xFF544347, kind=0x8018):
    """A TPMS_ATTEST over ``pcrs``, {(bank, index): value}."""
    banks = list(dict.fromkeys(bank for bank, _ in sorted(pcrs)))
    body = struct.pack(">I", len(banks))
    values = b""
    for bank in banks:
        indexes = sorted(index for own, index in pcrs if own == bank)
        bitmap = sum(1 << index for index in indexes).to_bytes(3, "little")
        body += struct.pack(">HB", ALGORITHMS[bank][0], 3) + bitmap
        values += b"".join(pcrs[bank, index] for index in indexes)
    return (
        struct.pack(">IH", magic, kind)
        + sized(b"\x00\x0b" + bytes(32))
        + sized(extra)
        + struct.pack(">QIIB", *clock, 1)
        + bytes(8)
        + body
        + sized(hashlib.new(algorithm, values).digest())
    )


def part(pcrs, *, nonce, ak=None, counters=(3, 1, 4000), extra=None, **words):
    """A TpmPart whose every check holds, but for what the arguments change."""
    ak = ak or Ak()
    data = attest(
        pcrs,
        extra=qualifying(nonce, ak.name) if extra is None else extra,
        algorithm=ak.hash,
        **words,
    )
    return TpmPart(
        ak_public=ak.area,
        attest=data,
        signature=ak.sign(data),
        pcrs=tuple(PcrValue(bank, index, value) for (bank, index), value in sorted(pcrs.items())),
        counters=None if counters is None else Counters(*counters),
    )

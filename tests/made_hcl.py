# SPDX-License-Identifier: Apache-2.0
"""The paravisor's index, written field by field after its source, apart from the reader."""

import base64
import hashlib
import json
import struct
from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa

import made_report

MACHINE = {"secure-boot": True, "tpm-enabled": True, "vmUniqueId": "A-B"}


def b64(number):
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwk(kid, numbers):
    return {"kid": kid, "kty": "RSA", "e": b64(numbers.e), "n": b64(numbers.n)}


@cache
def ak_key():
    """A private key that plays the paravisor's AK."""
    return rsa.generate_private_key(65537, 2048)


def claims(user_data=bytes(64), *, ak=None, **changes):
    numbers = (ak or ak_key()).public_key().public_numbers()
    tree = {
        "keys": [jwk("HCLAkPub", numbers)],
        "vm-configuration": MACHINE,
        "user-data": user_data.hex().upper(),
    }
    return json.dumps(tree | changes).encode()


def bound(body, algorithm="sha256"):
    """REPORT_DATA of a report whose claims are ``body``."""
    return hashlib.new(algorithm, body).digest().ljust(64, b"\0")


def blob(body, hardware=None, *, pad=2000, report_type=2, version=1, hash_type=1):
    """The index: a header, the hardware's report, a second header, claims, zeros."""
    if hardware is None:
        hardware = made_report.report(report_data=bound(body))
    head = b"HCLA" + struct.pack("<4I12x", version, 1236 + len(body), 2, 0)
    second = struct.pack("<5I", 20 + len(body), 1, report_type, hash_type, len(body))
    return (head + hardware + second + body).ljust(pad, b"\0")

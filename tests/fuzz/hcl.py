# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: the paravisor's report, and its claims."""

import struct

from troth.abi import hcl
from troth.documents import hcl_claims
from troth.errors import FormatError


def fuzz(data: bytes) -> None:
    for candidate in (data, _report(data), _report(data[:1000])):
        try:
            found = hcl.parse(candidate)
        except FormatError:
            continue
        if found.claims not in candidate or len(found.report_data) != 64:
            raise AssertionError("claims that were not in the report")
        _claims(found.claims)
    _claims(data)


def _claims(data: bytes) -> None:
    try:
        hcl_claims.parse(data)
    except FormatError:
        return


def _report(claims: bytes) -> bytes:
    head = b"HCLA" + struct.pack("<4I12x", 1, 1236 + len(claims), 2, 0)
    return head + bytes(1184) + struct.pack("<5I", 20 + len(claims), 1, 2, 1, len(claims)) + claims


SEEDS = [
    _report(b'{"keys": []}'),
    b'{"keys": [{"kid": "HCLAkPub", "kty": "RSA", "n": "AQAB", "e": "AQAB"}], "user-data": ""}',
]

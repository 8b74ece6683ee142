# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: the host's certificate table."""

from troth.abi import cert_table
from troth.errors import FormatError

SEEDS = [
    cert_table.build(
        (cert_table.Entry(cert_table.VCEK, b"vcek"), cert_table.Entry(cert_table.ASK, b"ask"))
    )
]


def fuzz(data: bytes) -> None:
    try:
        entries = cert_table.parse(data)
    except FormatError:
        return
    if sum(len(entry.blob) for entry in entries) > len(data):
        raise AssertionError("more bytes come out than went in")
    if cert_table.parse(cert_table.build(entries)) != entries:
        raise AssertionError("the table does not survive being built")

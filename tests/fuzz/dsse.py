# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: DSSE envelopes, and the statement and values inside them."""

from __future__ import annotations

import base64

from made_values import SIGNED_VALUES, VALUES
from troth.documents import dsse, reference_values_json, statement
from troth.errors import FormatError

SEEDS = [
    dsse.print_(
        dsse.Envelope(
            dsse.IN_TOTO, reference_values_json.to_statement(SIGNED_VALUES),
            (dsse.Signature("aa", b"\1"), dsse.Signature("", b"\2" * 64)),
        )
    ),
    reference_values_json.to_statement(VALUES),
]  # fmt: skip


def fuzz(data: bytes) -> None:
    try:
        envelope = dsse.parse(data)
    except FormatError:
        payload = data
    else:
        # One content, one spelling: what was read prints to the same content again.
        if dsse.parse(dsse.print_(envelope)) != envelope:
            raise AssertionError("an envelope does not survive printing")
        if base64.b64encode(envelope.payload) not in data:
            raise AssertionError("a payload had another spelling")
        payload = envelope.payload
    for read in (statement.parse, reference_values_json.from_statement):
        try:
            read(payload)
        except FormatError:
            continue

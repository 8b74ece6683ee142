# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: reference-values.json; what is accepted must survive printing and signing."""

from __future__ import annotations

from made_values import SIGNED_VALUES, VALUES
from troth.documents import reference_values_json
from troth.errors import FormatError

SEEDS = [reference_values_json.print_(VALUES), reference_values_json.print_(SIGNED_VALUES)]


def fuzz(data: bytes) -> None:
    try:
        values = reference_values_json.parse(data)
    except FormatError:
        return
    if reference_values_json.parse(reference_values_json.print_(values)) != values:
        raise AssertionError("values do not survive printing")
    payload = reference_values_json.to_statement(values)
    try:
        again = reference_values_json.from_statement(payload)
    except FormatError as error:
        if error.code != "statement-subject":  # values without any artefact have no statement
            raise
        return
    if again != values:
        raise AssertionError("values do not survive being signed")

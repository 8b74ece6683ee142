# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: result.json. What parses prints as itself, and never calls a failed check a pass."""

from __future__ import annotations

from troth.cli.explain import text
from troth.documents import result
from troth.errors import FormatError

SEEDS = [
    b'{"at":"2026-06-01T00:00:00Z","checks":[{"code":"vmpl","expected":"0","hint":"","observed":"0"'
    b',"required":true,"verdict":"pass"}],"overall":"pass","platform":"real","policy":{"permissive"'
    b':false,"sha256":"' + b"cd" * 32 + b'"},"schema":"troth-result-v1","subject":{"kind":'
    b'"snp-report","sha256":"' + b"ab" * 32 + b'"},"warnings":[{"code":"a","text":"b"}]}',
]


def fuzz(data: bytes) -> None:
    try:
        found = result.parse(data)
    except FormatError:
        return
    if result.parse(result.print_(found)) != found:
        raise RuntimeError("a result prints as another")
    if found.overall == "pass" and any(check.verdict == "fail" for check in found.checks):
        raise RuntimeError("a result passes with a failed check")
    text(found)

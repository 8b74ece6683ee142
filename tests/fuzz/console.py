# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: console bytes of a hostile guest."""

from __future__ import annotations

from troth.machine.console import Neutraliser, Parser


def fuzz(data: bytes) -> None:
    """Whatever the bytes: events and text, no exception, nothing that steers a terminal."""
    parser = Parser()
    list(parser.feed(data))
    list(parser.close())
    shown = Neutraliser().feed(data)
    if any(not (c.isprintable() or c in "\n\t") for c in shown):
        raise RuntimeError("a control character got through")

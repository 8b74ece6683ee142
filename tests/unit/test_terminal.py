# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import re

import pytest

from troth.cli.terminal import Terminal


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_one_line_a_step():
    stream = io.StringIO()
    terminal = Terminal(stream)
    with terminal.step("image"):
        with terminal.step("kernel"):
            terminal.bar("tree")(1, 2)
        terminal.line("note")
    text = re.sub(r"\d+ ms", "N ms", stream.getvalue())
    assert text == "  kernel: N ms\n  note\nimage: N ms\n"


def test_on_a_terminal_the_line_is_updated_and_removed():
    stream = Screen()
    terminal = Terminal(stream)
    with terminal.step("image"):
        update = terminal.bar("tree")
        update(0, 2_000_000)
        update(2_000_000, 2_000_000)
        update(0, 0)
    shown = stream.getvalue()
    assert "100 %  2 of 2 MB" in shown
    assert shown.splitlines()[-1].split("\x1b[K")[-1].startswith("image: ")


def test_a_failed_step_says_so():
    stream = io.StringIO()
    with pytest.raises(ValueError, match="x"), Terminal(stream).step("a\x1b[2Jb"):
        raise ValueError("x")
    assert stream.getvalue().startswith("a�[2Jb: failed after ")


def test_a_passing_bar_leaves_nothing():
    for stream, want in ((Screen(), "\r\x1b[K"), (io.StringIO(), "")):
        with Terminal(stream).passing_bar("hashing") as update:
            update(1, 2)
            update(2, 2)
        assert stream.getvalue().endswith(want)
        assert ("100 %" in stream.getvalue()) == bool(want)
        assert want or not stream.getvalue()

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from troth.machine import console
from troth.machine.console import Handover, Neutraliser, Panic, Parser, Refused, Stage, WorkloadExit

P = b"[    1.234567] "
BOOT = P + b"troth: stage mounts ok 12\r\n"
HANDOVER = P + b"troth: handover /sbin/init\n"


def events(*chunks: bytes) -> list[console.Event]:
    parser = Parser()
    found = [event for chunk in chunks for event in parser.feed(chunk)]
    return found + list(parser.close())


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (BOOT, Stage("mounts", 12.0, "", 1.234567)),
        (b"troth: stage mounts ok 12\n", Stage("mounts", 12.0, "", None)),
        (
            P + b"troth: stage keys failed key-refused record-mac\n",
            Stage("keys", None, "key-refused", 1.234567),
        ),
        (P + b"troth: stage tee failed tpm-absent\n", Stage("tee", None, "tpm-absent", 1.234567)),
        (HANDOVER, Handover("/sbin/init", 1.234567)),
        (b"troth: refused a-b: It is: so.\r\n", Refused("a-b", "It is: so.")),
        (P + b"troth: refused a-b: It is so.\n", Refused("a-b", "It is so.")),
        (b"[   12.345678][    T1] troth: stage x ok 1\n", Stage("x", 1.0, "", 12.345678)),
        (
            P + b"Kernel panic - not syncing: dm-verity device corrupted\n",
            Panic("verity-panic", "dm-verity device corrupted"),
        ),
        (P + b"Kernel panic - not syncing: No init\n", Panic("kernel-panic", "No init")),
        (b"troth: refused no-newline: x", Refused("no-newline", "x")),
        (b"\x1b[2J\x1b[01;01H" + BOOT, Stage("mounts", 12.0, "", 1.234567)),
    ],
)
def test_lines_become_events(line, event):
    assert events(line) == [event]


@pytest.mark.parametrize(
    "line",
    [
        b" troth: stage mounts ok 12\n",
        b"x troth: stage mounts ok 12\n",
        b"troth: stage Mounts ok 12\n",
        b"troth: stage mounts ok -1\n",
        b"troth: stage mounts ok 12 \n",
        b"troth: stage keys failed key-refused record-mac more\n",
        b"troth: stage keys failed key-refused Record\n",
        b"troth: stage keys failed key-refused \n",
        b"troth: refused A: x\n",
        b"troth: refused a\n",
        b"troth: handover sbin/init\n",
        b"Kernel panic - not syncing: without prefix\n",
        b"troth: workload exited 0\n",
        P + b"troth: workload exited 0\n",  # nothing was handed over yet
        BOOT[:-2] + b"x" * 5000 + b"\n",
    ],
)
def test_lines_that_are_not_ours(line):
    assert events(line) == []


def test_a_quoted_label_cannot_speak_before_the_handover():
    hostile = P + b"disk label is " + P + b"troth: handover /bin/evil\n"
    panic = P + b"disk label is " + P + b"Kernel panic - not syncing: x\n"
    assert events(BOOT, hostile, panic) == events(BOOT)
    assert events(hostile) == []
    refused = b"troth: refused device-label: " + P + b"troth: handover /bin/evil\n"
    (event,) = events(refused)
    assert isinstance(event, Refused)
    assert event.code == "device-label"


def test_after_the_handover_only_kernel_lines_count():
    late = (
        b"troth: refused forged: x\n"
        + P + b"troth: refused forged: x\n"
        + P + b"troth: stage tee failed x\n"
        + P + b"troth: stage handover failed x\n"
        + b"troth: refused x: forged\n"
        + P + b"troth: handover /other\n"
        + b"troth: workload exited 0\n"
        + b"open line" + P + b"troth: workload exited 7\n"
        + b"x" * 9000 + P + b"troth: workload exited 9\n"
        + b"open" + P + b"Kernel panic - not syncing: dm-verity device corrupted\n"
    )  # fmt: skip
    assert events(HANDOVER + late)[1:] == [
        WorkloadExit(7),
        WorkloadExit(9),
        Panic("verity-panic", "dm-verity device corrupted"),
    ]


FAILED = P + b"troth: stage handover failed init-refused\n"
REFUSED = b"\r\ntroth: refused init-refused: /sbin/init: Exec format error\r\n"


def test_a_handover_that_fails_is_a_refusal():
    kernel = P + b"a kernel line\n"
    found = events(HANDOVER, kernel, FAILED, kernel, REFUSED, REFUSED)
    assert found[1:] == [
        Stage("handover", None, "init-refused", 1.234567),
        Refused("init-refused", "/sbin/init: Exec format error"),
    ]


def test_once_another_has_spoken_the_handover_stands():
    assert events(HANDOVER, b"systemd 252 running\n", FAILED, REFUSED) == events(HANDOVER)
    assert events(HANDOVER, REFUSED, FAILED, REFUSED) == events(HANDOVER)
    assert events(HANDOVER, P + b"troth: stage tee failed x\n", REFUSED) == events(HANDOVER)


def test_nothing_of_the_boot_counts_after_a_refusal():
    assert events(b"troth: refused a: x\n", BOOT, HANDOVER, b"troth: refused b: y\n") == [
        Refused("a", "x")
    ]


def test_a_panic_after_a_verity_error_is_verity():
    error = P + b"device-mapper: verity: 254:0: data block 1 is corrupted\n"
    assert events(error, P + b"Kernel panic - not syncing: Attempted to kill init!\n") == [
        Panic("verity-panic", "Attempted to kill init!")
    ]


def test_stages_are_bounded():
    assert len(events(BOOT * 1000)) == console.MAX_STAGES


def test_memory_is_bounded():
    parser = Parser()
    for _ in range(200):
        assert list(parser.feed(b"x" * 10_000)) == []
        assert len(parser._line) <= console.MAX_LINE_BYTES


PIECES = st.sampled_from([
    BOOT, HANDOVER, P, b"troth: ", b"refused a: b", b"\n", b"\r", b"\x1b[", b"\x1b", b"m",
    b"x" * 600, b"troth: workload exited 3\n", b"Kernel panic - not syncing: y\n",
    "\u00e9\u202e".encode(), b"\xff",
])  # fmt: skip
CONSOLE = st.lists(PIECES | st.binary(max_size=20), max_size=30).map(b"".join)


@settings(max_examples=150, deadline=None)
@given(CONSOLE, st.lists(st.integers(0, 2000), max_size=6))
def test_cutting_changes_nothing(data, cuts):
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    chunks = [data[a:b] for a, b in itertools.pairwise(places)]
    assert events(*chunks) == events(data)
    one, many = Neutraliser(), Neutraliser()
    assert "".join(many.feed(chunk) for chunk in chunks) == one.feed(data)


@settings(max_examples=150, deadline=None)
@given(CONSOLE | st.binary(max_size=300))
def test_nothing_shown_steers_a_terminal(data):
    shown = Neutraliser().feed(data)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert shown.count("\n") <= data.count(b"\n")


def test_plain_text_is_shown_as_it_is():
    assert Neutraliser().feed("grün ● ok\tx\r\n".encode()) == "grün ● ok\tx\n"
    assert Neutraliser().feed(b"a\x1b[0;32mb\x1b[0mc\x1bcd\x07\x9b") == "abcd��"


def test_a_line_break_ends_an_escape_sequence():
    assert Neutraliser().feed(b"\x1b[31\nnext") == "\nnext"
    assert Neutraliser().feed(b"\x1b[" + b"1" * 200 + b"z").endswith("1z")

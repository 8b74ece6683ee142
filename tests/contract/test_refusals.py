# SPDX-License-Identifier: Apache-2.0
"""Each way PID 1 can refuse is seen in a guest, or it is said here why it is not.

A ``VeiledRefusal`` has two codes: the public one of its stage, which counts like any
other, and an exact one for the operator, which a guest or a unit test must show.
"""

import ast
import re
from functools import cache
from pathlib import Path

from troth.boot import keys

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "agent" / "troth"
GUEST_ROOMS = ("boot", "registers", "linux")

#: Codes without a guest of their own: what it would take, and what tests them instead.
NOT_IN_A_GUEST = {
    "agent-start": "a fresh /run would have to refuse a file (test_agent_start)",
    "entropy": "without rdrand the interpreter does not start (test_a_machine_without_a_seed)",
    "kernel-open": "the kernel would have to refuse its own sysctl",
    "lockdown": "a kernel without lockdown: Debian's have it",
    "root-unit-shadowed": "build refuses such a root first (test_root_lint)",
    "tpm-ambiguous": "QEMU gives a guest one TPM",
    "tpm-answer": "a TPM that refuses an extend: test_tpm_wire reads such answers",
    "tpm-mismatch": "a TPM that forgets an extend (test_event_log)",
    "verity-map": "the kernel would have to make another map than it was asked for",
}

#: Where the codes of a veiled refusal stand among the arguments of what makes one: public, exact.
#: The key worker makes none itself: PID 1 takes both words from it.
VEILED = {"VeiledRefusal": (0, 1), "_Failed": (0, 1)}


@cache
def modules():
    """(file name, module) of the guest rooms."""
    return [
        (path.name, ast.parse(path.read_text("utf-8")))
        for room in GUEST_ROOMS
        for path in sorted((PACKAGE / room).rglob("*.py"))
    ]


@cache
def raised():
    """Every public code that a ``Refusal`` in a guest room may carry."""
    codes = {}
    for name, module in modules():
        for node in ast.walk(module):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            given = []
            if called == "Refusal" or called in VEILED:
                given = node.args[:1]
            elif called in ("refuse", "fail.refuse"):
                given = node.args[1:2]
            # What to refuse with is said beforehand to whoever may have to.
            given += [word.value for word in node.keywords if word.arg == "public"]
            for code in (code for item in given for code in _codes(item, module)):
                codes[code] = f"{name}:{node.lineno}"
    return codes


@cache
def exact():
    """Every exact code that stands in a guest room itself; others are those of other errors."""
    codes = {}
    for name, module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in VEILED:
                for code in _codes(node.args[VEILED[ast.unparse(node.func)][1]], module):
                    codes[code] = f"{name}:{node.lineno}"
    return codes


@cache
def named():
    """Upper-case names of the guest rooms -> the texts that they stand for."""
    found = {}
    for _name, module in modules():
        for item in module.body:
            if not isinstance(item, ast.Assign):
                continue
            for target in item.targets:
                pairs = [(target, item.value)]
                if isinstance(target, ast.Tuple) and isinstance(item.value, ast.Tuple):
                    pairs = zip(target.elts, item.value.elts, strict=True)
                for name, value in pairs:
                    if isinstance(name, ast.Name) and isinstance(value, ast.Constant):
                        found.setdefault(name.id, set()).add(value.value)
    return found


def _codes(node, module):
    """The constants an argument stands for; a name stands for all that is assigned to it."""
    if isinstance(node, ast.Constant):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return _codes(node.body, module) + _codes(node.orelse, module)
    if isinstance(node, ast.Attribute):
        return list(named().get(node.attr, ())) if node.attr.isupper() else []
    if not isinstance(node, ast.Name):
        return []
    if node.id.isupper():
        return list(named().get(node.id, ()))
    found = []
    for item in ast.walk(module):
        if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == node.id:
            found += _codes(item.value, module)
    return found


@cache
def seen(room="boot"):
    """Text constants of the boot tests, or of the tests in ``room``."""
    found = set()
    for path in (REPOSITORY / "tests" / room).glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_each_refusal_is_seen_in_a_guest():
    codes = raised()
    assert len(codes) > 25
    shown = seen()
    unseen = {
        code: at for code, at in codes.items() if code not in shown and code not in NOT_IN_A_GUEST
    }
    assert not unseen


def test_each_veiled_refusal_has_a_code_of_its_stage():
    assert set(keys.PUBLIC) <= set(raised())


def test_each_exact_code_is_shown():
    """In a guest with ``[fail] detail = "console"``, or where its refusal is made."""
    codes = exact()
    assert {"key-worker", "volume-map", "kernel-answer"} <= set(codes)
    shown = seen() | seen("unit")
    assert not {code: at for code, at in codes.items() if code not in shown}


def test_an_exact_code_is_none_that_the_host_reads():
    """Else a public line could be taken for a veiled one, and the other way round."""
    assert not set(exact()) & set(raised())


def test_the_exceptions_are_needed():
    codes, shown = raised(), seen()
    gone = [code for code in NOT_IN_A_GUEST if code not in codes]
    assert not gone, "no longer raised in a guest"
    assert not [code for code in NOT_IN_A_GUEST if code in shown], "now seen in a guest"


def test_codes_have_one_form():
    for code, at in (raised() | exact()).items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code), at
        assert len(code) <= 64, at  # the console parser's bound

# SPDX-License-Identifier: Apache-2.0
"""Each way PID 1 can refuse is seen in a guest, or it is said here why it is not."""

import ast
import re
from pathlib import Path

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


def raised():
    """Every code that a ``Refusal`` in a guest room may carry."""
    codes = {}
    for room in GUEST_ROOMS:
        for path in (PACKAGE / room).glob("*.py"):
            module = ast.parse(path.read_text("utf-8"))
            for node in ast.walk(module):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "Refusal":
                    for code in _codes(node.args[0], module):
                        codes[code] = f"{path.name}:{node.lineno}"
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "refuse":
                    for code in _codes(node.args[1], module):
                        codes[code] = f"{path.name}:{node.lineno}"
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "fail.refuse":
                    for code in _codes(node.args[1], module):
                        codes[code] = f"{path.name}:{node.lineno}"
    return codes


def _codes(node, module):
    """The constants an argument stands for; a name stands for all that is assigned to it."""
    if isinstance(node, ast.Constant):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return _codes(node.body, module) + _codes(node.orelse, module)
    if not isinstance(node, ast.Name):
        return []
    found = []
    for item in ast.walk(module):
        if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == node.id:
            found += _codes(item.value, module)
    return found


def seen():
    """Text constants of the boot tests."""
    found = set()
    for path in (REPOSITORY / "tests" / "boot").glob("test_*.py"):
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


def test_the_exceptions_are_needed():
    codes, shown = raised(), seen()
    gone = [code for code in NOT_IN_A_GUEST if code not in codes]
    assert not gone, "no longer raised in a guest"
    assert not [code for code in NOT_IN_A_GUEST if code in shown], "now seen in a guest"


def test_codes_have_one_form():
    for code, at in raised().items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code), at
        assert len(code) <= 64, at  # the console parser's bound

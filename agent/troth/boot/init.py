# SPDX-License-Identifier: Apache-2.0
"""PID 1: run the stages of the table in order, and end the boot at the first doubt.

Never returns: a stage hands over, or ``fail`` ends the machine.
"""

from __future__ import annotations

import sys
import time

import troth_baked
from troth.boot import fail
from troth.boot.state import State
from troth.documents.policy import from_tree
from troth.documents.stages import stages_of
from troth.errors import TrothError


def main(environ: dict[str, str]) -> None:
    """Boot. ``environ``: the environment the kernel started PID 1 with."""
    state = State(environ, sys.argv[1:], time.monotonic_ns())
    try:
        state.policy = from_tree(troth_baked.POLICY)
        state.deadline_ns = state.started_ns + state.policy.fail.deadline_s * 1_000_000_000
        state.guard = fail.Deadline(state)
        for name, module in stages_of(state.policy):
            fail.stay_if_ending()
            state.stage = name
            begun = time.monotonic_ns()
            # The table is data; importing by name is what makes a stage the unit of packing.
            __import__(module)
            sys.modules[module].run(state)
            duration_ms = (time.monotonic_ns() - begun) // 1_000_000
            state.times_ms.append((name, duration_ms))
            state.say(f"troth: stage {name} ok {duration_ms}")
        raise RuntimeError("the last stage returned")  # noqa: TRY301 - judged like any other
    except TrothError as error:
        fail.refuse(state, error.code, str(error), exact=getattr(error, "exact", ""))
    except BaseException as error:  # noqa: BLE001 - PID 1's last line: nothing may escape
        where = _innermost(error)
        fail.refuse(state, "stage-raised", f"{type(error).__name__}: {error} ({where})")


def _innermost(error: BaseException) -> str:
    """file:line of the innermost frame, without the traceback module."""
    trace = error.__traceback__
    if trace is None:
        return "no frame"
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"

# SPDX-License-Identifier: Apache-2.0
"""``troth report``: a report bound to a nonce, from the kernel or from the agent.

Runs in a guest: packed where the policy has SNP, so it imports no more than it
needs. What is asked of the kernel is always the rule troth-report-v1: a caller
here never chooses REPORT_DATA itself.
"""

from __future__ import annotations

import sys

from troth.attest import choice
from troth.attest.client import ATTEST_SOCKET, AgentClient
from troth.attest.pacing import Pacer
from troth.cli import guest_words
from troth.documents import binding, report_answer
from troth.documents.report_answer import ReportAnswer
from troth.errors import HostError, UsageError
from troth.record import record

_TURN_S = 30.0


@record
class Options:
    """The options of the grammar, texts; none where not given."""

    nonce: str
    user_data: str | None = None
    format: str | None = None
    output: str | None = None
    socket: str | None = None
    provider: str | None = None
    vmpl: str | None = None


def report(options: Options) -> int:
    """Ask, and print or write what came.

    ``options``: these, or an object with the same attributes. Raises what its
    sources raise; ``UsageError``: ``usage``, ``nonce-length``,
    ``output-terminal``, ``output-file``.
    """
    nonce = guest_words.hex_of("--nonce", options.nonce)
    user_data = guest_words.hex_of("--user-data", options.user_data or "")
    binding.check_nonce(nonce)
    if options.socket is not None:
        if options.provider is not None or options.vmpl is not None:
            raise UsageError(
                "usage", "--provider and --vmpl are the agent's to choose, not --socket's"
            )
        answer = AgentClient(options.socket).report(nonce, user_data=user_data)
    elif options.provider is None and options.vmpl is None:
        answer = _by_agent(nonce, user_data) or _direct(nonce, user_data, options)
    else:
        answer = _direct(nonce, user_data, options)
    data = _printed(answer, options.format or "bin")
    binary = options.format in (None, "bin")
    if options.output is None and binary and sys.stdout.isatty():
        raise UsageError(
            "output-terminal",
            "a binary report is not for a terminal",
            hint="give --format hex, --format json or -o FILE",
        )
    guest_words.give(data, options.output)
    return 0


def _by_agent(nonce: bytes, user_data: bytes) -> ReportAnswer | None:
    """The guest's own agent asked; None where none answers this user."""
    try:
        return AgentClient(ATTEST_SOCKET).report(nonce, user_data=user_data)
    except HostError as error:
        if error.code != "no-agent":
            raise
        return None


def _direct(nonce: bytes, user_data: bytes, options: Options) -> ReportAnswer:
    report_data = binding.report_binding(nonce, user_data)
    allowed = choice.NAMES if options.provider is None else (options.provider,)
    source = choice.choose(allowed)
    vmpl = None if options.vmpl is None else int(options.vmpl)
    found = Pacer().run(
        lambda: source.report(report_data, vmpl=vmpl, key_selection=0), timeout_s=_TURN_S
    )
    return ReportAnswer(
        found.report, found.certificates, found.provider, nonce, user_data, found.manifest
    )


def _printed(answer: ReportAnswer, form: str) -> bytes:
    if form == "json":
        return report_answer.print_(answer)
    # Below a paravisor the hardware's report alone binds nothing that the asker knows.
    data = answer.service or answer.report
    return data if form == "bin" else data.hex().encode() + b"\n"

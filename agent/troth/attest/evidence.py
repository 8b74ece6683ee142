# SPDX-License-Identifier: Apache-2.0
"""Evidence made: log and registers, then the quote, then the report that binds them.

Serves ``attest.reports``, which runs it in the thread that asks the platform.
The order is what makes it worth something: the log is copied under its lock, the
quote is made under the same lock, and the report comes last and binds all of it,
with who asked as the agent saw it. Must never bind what it does not send, nor
believe its own TPM's quote to be over other values than it read.

Source: SECURITY S3, S28; docs/formats.md, "evidence.json" and "Bindings".
"""

from __future__ import annotations

import sys

from troth.abi import tpm_attest
from troth.documents import evidence
from troth.documents.evidence import Counters, Evidence, PcrValue, ServicePart, TpmPart
from troth.errors import HostError
from troth.measure import register
from troth.record import record, replace
from troth.registers import measurements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.attest.provider import Answer
    from troth.documents.policy import Policy
    from troth.registers.runtime import RuntimeLog
    from troth.registers.tpm import Quoted

    Ask = Callable[[bytes], Answer]
    Quoter = Callable[[bytes], Quoted]

QUOTE_WORKER = "troth.registers.quote_worker"

_SVSM = "svsm"
_KINDS = {"svsm": _SVSM, "paravisor": "azure-paravisor"}


@record
class EvidenceQuestion:
    """What one caller asks: nobody else's answer is the same, unless all of it is.

    ``caller``: as ``peers.Peer.text`` writes it; ``channel_sha256``: 32 bytes or
    empty.
    """

    nonce: bytes
    user_data: bytes
    channel_sha256: bytes
    caller: str


@record
class Made:
    """The document, evidence.json."""

    document: bytes


class EvidenceMaker:
    """``log`` None: a machine that troth did not boot; ``quoter``: as ``quoter_of`` gives it."""

    def __init__(self, policy: Policy, log: RuntimeLog | None, quoter: Quoter | None) -> None:
        self._kind = platform_kind(policy)
        self._log = log
        self._quoter = quoter

    def make(self, question: EvidenceQuestion, ask: Ask, serve: Ask | None = None) -> Made:
        """Evidence for ``question``; ``ask`` gives a report that carries 64 bytes.

        ``serve``: gives the service module's report with its manifest of the vTPM,
        asked below one only; the guest's own report then stands beside it.

        Raises ``HostError``: ``no-event-log``, ``log-broken``, ``log-busy``,
        ``tpm-library``; ``ProviderError`` of quote and report; ``FormatError``.
        """
        if self._log is None:
            raise HostError("no-event-log", "this machine was not booted by troth")
        if self._log.broken:
            raise HostError(
                "log-broken", self._log.broken, where=self._log.path,
                hint="evidence would show a log that explains nothing; reboot the guest",
            )  # fmt: skip
        found = self._snapshot(question, self._log)
        name = b"" if found.tpm is None else tpm_attest.name(found.tpm.ak_public)
        bound = evidence.binding_of(found, ak_name=name)
        answer = ask(bound)
        service = None
        if self._kind == _SVSM and serve is not None:
            own, answer = answer, serve(bound)
            service = ServicePart(answer.manifest, own.report)
        elif answer.manifest and self._kind in evidence.SERVICE_KINDS:
            service = ServicePart(answer.manifest, b"")
        found = replace(
            found, report=answer.report, certificates=answer.certificates, service=service
        )
        return Made(evidence.print_(found))

    def _snapshot(self, question: EvidenceQuestion, log: RuntimeLog) -> Evidence:
        """All but the report, of one moment as far as those go who keep to the log's lock."""
        with log.locked():
            data, events = log.copy()
            quoted = None
            if self._quoter is not None and log.tpm_used:
                quoted = self._quoter(question.nonce)
            values = _read(log) if quoted is None else quoted.pcrs
        registers = [(evidence.SOFTWARE, register.replay(events))]
        registers += [
            (evidence.pcr_name(bank, index), value) for (bank, index), value in values.items()
        ]
        return Evidence(
            platform_kind=self._kind,
            nonce=question.nonce,
            user_data=question.user_data,
            channel_sha256=question.channel_sha256,
            caller=question.caller,
            report=bytes(evidence.REPORT_BYTES),
            certificates=b"",
            event_log=data,
            log_records=len(events),
            registers=tuple(sorted(registers)),
            tpm=None if quoted is None else _part(quoted, log.tpm_clock),
        )


def platform_kind(policy: Policy) -> str:
    """The kind that ``policy`` was built for, as bindings name it."""
    if policy.snp == "simulated":
        return "simulated"
    return "direct" if policy.vtpm == "none" else _KINDS.get(policy.vtpm_kind, "direct")


def quoter_of(policy: Policy) -> Quoter | None:
    """What makes quotes for an image of ``policy``; None where it asks for none."""
    if not policy.attest.quote:
        return None
    # By name: the profile "quote" packs it, and images that do not quote are without.
    __import__(QUOTE_WORKER)
    quoter: Quoter = sys.modules[QUOTE_WORKER].quoter(policy.vtpm_kind)
    return quoter


def _read(log: RuntimeLog) -> dict[tuple[str, int], bytes]:
    """PCRs of the log as the TPM has them, without a quote: for comparison, not as proof."""
    if not log.tpm_used:
        return {}
    return {
        (value.bank, value.index): bytes.fromhex(value.observed)
        for value in measurements.read(log.path, tpm_used=True).registers
        if value.observed
    }


def _part(quoted: Quoted, clock: tuple[int, int, int] | None) -> TpmPart:
    return TpmPart(
        quoted.ak_public,
        quoted.attest,
        quoted.signature,
        tuple(PcrValue(bank, index, value) for (bank, index), value in sorted(quoted.pcrs.items())),
        None if clock is None else Counters(*clock),
    )

# SPDX-License-Identifier: Apache-2.0
"""Reports and evidence for many callers from one provider that answers one question at a time.

Serves the endpoints. The provider runs in a worker's thread, paced; the waiting
room is ``slots``. Must never begin a request while another is under way, nor
keep an answer for those who come later.
"""

from __future__ import annotations

import time

from troth.abi import guest_payload, svsm_manifest
from troth.attest.evidence import EvidenceQuestion, Made
from troth.attest.pacing import INTERVAL_S, Pacer
from troth.attest.provider import Answer
from troth.attest.provider_tsm import TsmProvider
from troth.attest.slots import Question, Slots
from troth.errors import FormatError, HostError, ProviderError, TrothError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.attest.evidence import EvidenceMaker
    from troth.attest.metrics import Metrics
    from troth.attest.provider import Provider
    from troth.attest.slots import Asked, Job
    from troth.attest.worker import Worker

    Take = Callable[["Answer | Made | TrothError"], None]

TURN_S = 60.0
"""How long the worker waits for its turn among other processes."""
LIMIT_S = 75.0
"""How long a caller waits before it is told that the platform does not answer."""


class Reports:
    """``choose`` finds the provider, when the first report is asked for and after ``forget``."""

    def __init__(
        self,
        choose: Callable[[], Provider],
        worker: Worker,
        metrics: Metrics,
        *,
        maker: EvidenceMaker,
        pacer: Pacer,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._choose = choose
        self._worker = worker
        self._metrics = metrics
        self._maker = maker
        self._pacer = pacer
        self._provider: Provider | None = None
        self._running = False
        self.slots = Slots(interval_s=interval_s)
        #: The code of the last request's error, "" after one that went well.
        self.last_error = ""

    @property
    def provider_name(self) -> str:
        """The provider in use, "" before the first report."""
        return "" if self._provider is None else self._provider.name

    def forget(self) -> None:
        """Choose the provider anew at the next request."""
        self._provider = None

    def ask(self, question: Asked, uid: int, take: Take) -> Job | int:
        """The job that calls ``take`` when it is done, or after how many seconds to come back."""
        found = self.slots.ask(question, uid, take, now_s=time.monotonic())
        if not isinstance(found, int):
            if len(found.waiters) > 1:
                self._metrics.count("troth_agent_reports_shared_total")
            self._go_on()
        return found

    def tick(self) -> None:
        """Tell those who have waited too long; called about once a second."""
        for job in self.slots.overdue(LIMIT_S, now_s=time.monotonic()):
            late = ProviderError("provider-busy", "the platform was busy for too long")
            _tell(job, late)

    def _go_on(self) -> None:
        if self._running:
            return
        job = self.slots.next()
        if job is None:
            return
        self._running = True
        begun_s = time.monotonic()
        self._worker.submit(
            lambda: self._work(job.question), lambda outcome: self._ended(job, begun_s, outcome)
        )

    def _work(self, question: Asked) -> Answer | Made:
        """In the worker's thread."""
        provider = self._provider
        if provider is None:
            provider = self._provider = self._choose()
        try:
            if isinstance(question, EvidenceQuestion):
                auto = guest_payload.KEY_SELECTION_AUTO
                return self._maker.make(
                    question,
                    lambda data: self._report(provider, Question(data, None, auto)),
                    lambda data: self._service(provider, data),
                )
            return self._report(provider, question)
        except FormatError as error:
            # Of the report that came, not of the request.
            raise ProviderError(error.code, error.message, where=error.where) from None

    def _report(self, provider: Provider, question: Question) -> Answer:
        return self._pacer.run(
            lambda: provider.report(
                question.report_data, vmpl=question.vmpl, key_selection=question.key_selection
            ),
            timeout_s=TURN_S,
        )

    def _service(self, provider: Provider, data: bytes) -> Answer:
        """What the service module says of its vTPM, asked with ``data``."""
        if not isinstance(provider, TsmProvider):
            raise HostError(
                "provider-service",
                f"{provider.name} does not reach the service module",
                hint="services need configfs-tsm, with Linux 6.10 or later",
            )
        return self._pacer.run(
            lambda: provider.service_report(data, guid=svsm_manifest.VTPM), timeout_s=TURN_S
        )

    def _ended(self, job: Job, begun_s: float, outcome: object) -> None:
        took_s = time.monotonic() - begun_s
        self._running = False
        self.slots.done(job, took_s=took_s)
        if not isinstance(outcome, Answer | Made | TrothError):
            outcome = HostError("agent-io", "the provider gave no answer")
        self.last_error = outcome.code if isinstance(outcome, TrothError) else ""
        self._metrics.count("troth_provider_seconds_total", took_s)
        self._metrics.count("troth_provider_requests_total", outcome=self.last_error or "ok")
        _tell(job, outcome)
        self._go_on()


def _tell(job: Job, outcome: Answer | Made | TrothError) -> None:
    for take in tuple(job.waiters):
        if callable(take):
            take(outcome)

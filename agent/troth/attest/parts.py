# SPDX-License-Identifier: Apache-2.0
"""What the endpoints work with, put together by the agent.

Serves ``attest.agent``, which fills it, and the modules of endpoints. Holds no
state of its own.
"""

from __future__ import annotations

from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.attest.metrics import Metrics
    from troth.attest.reports import Reports
    from troth.attest.worker import Worker
    from troth.documents.policy import Policy
    from troth.registers.runtime import RuntimeLog


@record
class Parts:
    """What endpoints work with. ``log`` None: a machine that troth did not boot;
    ``reload`` and ``shutdown``: what the control socket commands.
    """  # noqa: D205 - the fields are the summary

    policy: Policy
    policy_sha256: str
    reports: Reports
    log: RuntimeLog | None
    log_worker: Worker
    metrics: Metrics
    connections: Callable[[], int]
    reload: Callable[[], None]
    shutdown: Callable[[], None]

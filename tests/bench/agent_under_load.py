# SPDX-License-Identifier: Apache-2.0
"""The agent by itself, for ``reports``: its provider asks a processor behind a socket.

The processor is another process, so that memory and time of this one are the
agent's alone. Runs as in a guest: isolated, without site packages. Arguments:
directory of the sockets, socket of the processor, seconds between requests.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY / "agent"), str(REPOSITORY / "tests")]

import made_policy  # noqa: E402 - needs the path above
from troth.abi import snp_report  # noqa: E402 - needs the path above
from troth.abi.guest_payload import ReportRequest  # noqa: E402 - needs the path above
from troth.attest import agent  # noqa: E402 - needs the path above
from troth.attest.pacing import Pacer  # noqa: E402 - needs the path above
from troth.attest.provider import Answer, check_report  # noqa: E402 - needs the path above


class Distant:
    """A provider that sends REPORT_DATA to the processor, and gets a report."""

    name = "sev-guest"

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)

    def report(self, report_data: bytes, *, vmpl: int | None, key_selection: int) -> Answer:
        """Its report, compared with what was sent as any provider's."""
        self._socket.sendall(report_data)
        found = self._socket.recv(snp_report.REPORT_BYTES, socket.MSG_WAITALL)
        sent = ReportRequest(report_data, vmpl or 0, key_selection)
        check_report(found, sent, where="the simulated processor")
        return Answer(found, b"", b"", self.name)


def main() -> None:
    """Serve until SIGTERM."""
    directory, processor, interval = sys.argv[1:]
    interval_s = float(interval)
    agent.serve(
        agent.Settings(
            made_policy.policy(snp="required"),
            "00" * 32,
            directory=directory,
            state=f"{directory}.state",
            log=f"{directory}.log",
            choose=lambda: Distant(processor),
            pacer=Pacer(f"{directory}.turn", interval_s=interval_s),
            interval_s=interval_s,
        )
    )


if __name__ == "__main__":
    main()

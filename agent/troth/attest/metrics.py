# SPDX-License-Identifier: Apache-2.0
"""Numbers about the agent itself, as Prometheus reads them.

Serves ``GET /metrics``. Labels come from short fixed lists, so that callers
cannot make new ones. Must never hold a nonce, a digest or who asked.

Source: Prometheus, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

import os

MEDIA = "text/plain; version=0.0.4; charset=utf-8"

_HELP = {
    "troth_agent_requests_total": ("counter", "Answers, by endpoint and status."),
    "troth_agent_connections_total": ("counter", "Connections, taken or turned away, and why."),
    "troth_agent_connections": ("gauge", "Connections now."),
    "troth_agent_report_slots": ("gauge", "Requests for reports that may wait here."),
    "troth_agent_reports_waiting": ("gauge", "Requests for reports that wait or run."),
    "troth_agent_reports_promised": ("gauge", "Callers asked to come back for a report."),
    "troth_agent_reports_shared_total": ("counter", "Callers who got the answer of an equal one."),
    "troth_provider_requests_total": ("counter", "Requests to the provider, by outcome."),
    "troth_provider_seconds_total": ("counter", "Time spent on them, waiting for turns included."),
    "troth_agent_log_events": ("gauge", "Records of the event log."),
    "troth_agent_log_broken": ("gauge", "1 where the log cannot be what was measured."),
    "process_resident_memory_bytes": ("gauge", "Resident memory."),
    "process_open_fds": ("gauge", "Open descriptors."),
}
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Metrics:
    """Counters by name and label text; gauges are given when they are printed."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, float]] = {
            name: {} for name, (kind, _help) in _HELP.items() if kind == "counter"
        }

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add ``amount``; ``labels`` hold no quotes and no backslashes."""
        text = ",".join(f'{key}="{value}"' for key, value in labels.items())
        counts = self._counts[name]
        counts[text] = counts.get(text, 0) + amount

    def text(self, gauges: dict[str, float]) -> bytes:
        """The page, with ``gauges`` and those of the process."""
        values = gauges | _process()
        lines: list[str] = []
        for name, (kind, words) in _HELP.items():
            if kind == "gauge" and name not in values:
                continue
            lines += (f"# HELP {name} {words}", f"# TYPE {name} {kind}")
            if kind == "gauge":
                lines.append(f"{name} {values[name]:.15g}")
                continue
            for labels, count in sorted(self._counts[name].items()):
                lines.append(
                    f"{name}{{{labels}}} {count:.15g}" if labels else f"{name} {count:.15g}"
                )
        return ("\n".join(lines) + "\n").encode("ascii")


def _process() -> dict[str, float]:
    with open("/proc/self/statm", "rb", buffering=0) as file:
        resident_pages = int(file.read(128).split()[1])
    return {
        "process_resident_memory_bytes": resident_pages * _PAGE_BYTES,
        "process_open_fds": len(os.listdir("/proc/self/fd")),
    }

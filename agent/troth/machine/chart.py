# SPDX-License-Identifier: Apache-2.0
"""A boot drawn as SVG: kernel and stages as bars over the guest's own clock.

Serves ``troth run --chart``; read like ``systemd-analyze plot``. The drawing
needs nothing outside itself, and every text in it is escaped, since stage names
come from the guest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from troth.record import record

if TYPE_CHECKING:
    from troth.machine.outcome import Record

_ROW = 22
_LEFT = 20
_TOP = 64
_WIDTH = 900
_LABEL_ROOM = 220
_COLOURS = {"kernel": "#8a8f98", "stage": "#3d7dca", "failed": "#c8372d"}
_STYLE = (
    "text{font:12px sans-serif;fill:#222}.title{font-size:16px;font-weight:bold}"
    ".axis{fill:#666;font-size:10px}line{stroke:#ccc}.mark{stroke:#222;stroke-dasharray:3 3}"
)


@record
class Bar:
    """One row: from ``start_s`` to ``end_s`` of the guest's clock; ``kind``: a colour's name."""

    label: str
    start_s: float
    end_s: float
    kind: str


def bars(run: Record) -> tuple[Bar, ...]:
    """The rows of ``run``: the kernel up to the first stage, then every stage.

    A stage line is printed when the stage ends, so it begins its own
    milliseconds earlier. A failed one has no time: it began at the end of the
    one before. Stages without a printk time cannot be placed and are left out.
    """
    rows: list[Bar] = []
    at_s: float | None = None
    for stage in run.stages:
        if stage.guest_s is None:
            continue
        length_s = (stage.milliseconds or 0.0) / 1000
        start_s = max(0.0, stage.guest_s - length_s)
        if at_s is None:
            rows.append(Bar("kernel", 0.0, start_s, "kernel"))
        if stage.code:
            start_s = start_s if at_s is None else min(at_s, stage.guest_s)
            rows.append(Bar(f"{stage.name}: {stage.code}", start_s, stage.guest_s, "failed"))
        else:
            rows.append(Bar(f"{stage.name} ({_time(length_s)})", start_s, stage.guest_s, "stage"))
        at_s = stage.guest_s
    return tuple(rows)


def draw(run: Record, *, title: str) -> str:
    """``run`` as an SVG document."""
    rows = bars(run)
    handover_s = run.handover.guest_s if run.handover else None
    end_s = max([row.end_s for row in rows] + [handover_s or 0.0, 0.001])
    step_s = _step(end_s)
    scale = _WIDTH / end_s
    height = _TOP + _ROW * (len(rows) + 1) + 20
    verdict = run.outcome()
    summary = f"{verdict.message}; {_time(end_s)} of guest time, {run.accelerator}"
    width = _LEFT * 2 + _WIDTH + _LABEL_ROOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">',
        f"<style>{_STYLE}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        _label(_LEFT, 24, title, "title"),
        _label(_LEFT, 44, summary, ""),
    ]
    for number in range(int(end_s / step_s) + 1):
        x = _LEFT + number * step_s * scale
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{height - 20}"/>')
        parts.append(_label(x + 2, height - 8, _time(number * step_s), "axis"))
    for number, row in enumerate(rows):
        parts += _row(row, _TOP + 4 + _ROW * number, scale)
    if run.handover is not None and handover_s is not None:
        x = _LEFT + handover_s * scale
        parts.append(
            f'<line class="mark" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{height - 20}"/>'
        )
        y = _TOP + _ROW * len(rows) + 15
        parts.append(_label(x + 4, y, f"handover to {run.handover.init}", ""))
    return "\n".join([*parts, "</svg>", ""])


def _row(row: Bar, y: float, scale: float) -> list[str]:
    x = _LEFT + row.start_s * scale
    width = max((row.end_s - row.start_s) * scale, 1.0)
    fill = _COLOURS[row.kind]
    bar = f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 6}" fill="{fill}"/>'
    text = f"{row.label} ({_time(row.end_s)})" if row.kind == "kernel" else row.label
    return [bar, _label(x + 4, y + 12, text, "")]


def _label(x: float, y: float, text: str, style: str) -> str:
    name = f' class="{style}"' if style else ""
    return f'<text{name} x="{x:.1f}" y="{y}">{escape(text)}</text>'


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _step(end_s: float) -> float:
    """The distance of grid lines: the smallest of 1, 2, 5 times a power of ten below 12 lines."""
    step_s = 0.001
    while True:
        for factor in (1, 2, 5):
            if end_s / (step_s * factor) <= 12:
                return step_s * factor
        step_s *= 10

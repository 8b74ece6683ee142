# SPDX-License-Identifier: Apache-2.0
"""What a guest's console says: from arbitrary bytes to the boot's events.

Serves ``machine.runner``. The guest is not trusted here: lines are bounded,
any byte may come, and nothing kept grows with what the guest prints. Must
never let guest bytes steer the terminal: ``Neutraliser`` is the only way to it.

Who may say what
----------------
A serial console cannot authenticate its writer, so the rule is about *when*.

* Up to ``troth: handover`` only the kernel and PID 1 write. PID 1's lines come
  through /dev/kmsg, behind a printk prefix ``[    1.234567] ``; the last line
  of a refused boot comes from /dev/console and has none. Both forms count, and
  only at the beginning of a line, because a line may quote what a disk says of
  itself. (The kernel's very first line may stand behind what the firmware left
  on the screen.) Of what follows ``refused`` only a panic is still noted.
* After it the next init and the workload write as they like: stage, handover
  and ``refused`` lines are text of theirs and change nothing. Only as long as
  nobody else has spoken, so where the handover itself fails (an execve that
  the kernel refuses), does ``stage handover failed`` behind a printk prefix
  count, and ``refused`` after it.
* Two things still count then, both only behind a printk prefix, but anywhere
  in a line, since a workload may have left its last line open: a kernel panic,
  and of a supervised workload ``workload exited`` (the last one wins: PID 1
  writes it after the workload has ended). A forged panic is told from a real
  one by how the machine ended (``machine.outcome``), not by its text.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE_BYTES = 4096
#: Of a line beyond the bound only its end is kept, long enough for one of our lines.
_TAIL_BYTES = 512
MAX_STAGES = 64

_PREFIX = rb"\[ {0,4}(\d{1,8}\.\d{6})\](?:\[ *[TC]\d+\])? "
_BEGIN = re.compile(_PREFIX + rb"(.*)\Z", re.DOTALL)
_LAST = re.compile(rb".*" + _PREFIX + rb"(.*)\Z", re.DOTALL)
_STAGE_OK = re.compile(rb"troth: stage ([a-z0-9-]{1,32}) ok (\d{1,9}(?:\.\d{1,6})?)\Z")
_STAGE_FAILED = re.compile(
    rb"troth: stage ([a-z0-9-]{1,32}) failed ([a-z0-9-]{1,64})(?: [a-z0-9-]{1,64})?\Z"
)
_HANDOVER = re.compile(rb"troth: handover (/.{0,1024})\Z")
_WORKLOAD = re.compile(rb"troth: workload exited (\d{1,3})\Z")
_REFUSED = re.compile(rb"troth: refused ([a-z0-9-]{1,64}): (.*)\Z")
_PANIC = re.compile(rb"Kernel panic - not syncing: (.*)\Z")
_VERITY = re.compile(rb"device-mapper: verity: .*corrupted|dm-verity.*(?:corrupted|panic)")


@record
class Stage:
    """``troth: stage``: ``milliseconds`` where it went well, else ``code``.

    ``guest_s``: the kernel's clock at the line, None without printk prefix.
    """

    name: str
    milliseconds: float | None
    code: str
    guest_s: float | None


@record
class Handover:
    """``troth: handover``: ``init`` is what runs next."""

    init: str
    guest_s: float | None


@record
class WorkloadExit:
    """``troth: workload exited``: its exit status, as PID 1 says it."""

    status: int


@record
class Refused:
    """``troth: refused``: the stable code and one sentence."""

    code: str
    sentence: str


@record
class Panic:
    """The kernel gave up; ``code`` is "verity-panic" or "kernel-panic"."""

    code: str
    text: str


Event = Stage | Handover | WorkloadExit | Refused | Panic


class Parser:
    r"""Splits console bytes into lines and lines into events, however they are cut.

    >>> list(Parser().feed(b"[    1.000000] troth: stage mounts ok 3\r\n"))
    [Stage(name='mounts', milliseconds=3.0, code='', guest_s=1.0)]
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._overlong = False
        self._handed_over = False
        self._undisturbed = True  # nobody but kernel and PID 1 has spoken since the handover
        self._handover_failed = False
        self._refused = False
        self._kernel_spoke = False
        self._verity = False
        self._stages = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events completed by ``data``."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._append(data[start:end])
            yield from self._end_of_line()
            start = end + 1
        self._append(data[start:])

    def close(self) -> Iterator[Event]:
        """The event in a last line without newline, if there is one."""
        yield from self._end_of_line()

    def _append(self, piece: bytes) -> None:
        self._line += piece
        if self._overlong or len(self._line) > MAX_LINE_BYTES:
            self._overlong = True
            del self._line[:-_TAIL_BYTES]

    def _end_of_line(self) -> Iterator[Event]:
        line, overlong = bytes(self._line).rstrip(b"\r"), self._overlong
        self._line.clear()
        self._overlong = False
        if self._handed_over:
            event = self._late_line(line, overlong=overlong)
        else:
            event = None if overlong else self._boot_line(line)
        if event is not None:
            yield event

    def _boot_line(self, line: bytes) -> Event | None:
        begin = _BEGIN.match(line)
        if begin is None:
            event = self._said(line, None)
            if event is not None or self._kernel_spoke:
                return event
            begin = _BEGIN.search(line)
            if begin is None:
                return None
        self._kernel_spoke = True
        return self._said(begin[2], float(begin[1])) or self._kernel(begin[2])

    def _late_line(self, line: bytes, *, overlong: bool) -> Event | None:
        if self._undisturbed and not overlong:
            event = self._failed_handover(line)
            if event is not None:
                return event
        last = _LAST.match(line)
        if last is None:
            return None
        if found := _WORKLOAD.match(last[2]):
            return WorkloadExit(int(found[1]))
        return self._kernel(last[2])

    def _failed_handover(self, line: bytes) -> Event | None:
        begin = _BEGIN.match(line)
        if self._handover_failed:
            if found := _REFUSED.match(line if begin is None else begin[2]):
                self._undisturbed = False
                return Refused(_text(found[1]), _text(found[2]))
        elif begin is not None and (found := _STAGE_FAILED.match(begin[2])):
            if found[1] == b"handover":
                self._handover_failed = True
                return self._stage(Stage("handover", None, _text(found[2]), float(begin[1])))
        elif begin is None and line:
            self._undisturbed = False
        return None

    def _said(self, said: bytes, guest_s: float | None) -> Event | None:
        """PID 1's line; ``guest_s`` where it came through the kernel's log."""
        if self._refused:
            return None
        if found := _STAGE_OK.match(said):
            return self._stage(Stage(_text(found[1]), float(found[2]), "", guest_s))
        if found := _STAGE_FAILED.match(said):
            return self._stage(Stage(_text(found[1]), None, _text(found[2]), guest_s))
        if found := _REFUSED.match(said):
            self._refused = True
            return Refused(_text(found[1]), _text(found[2]))
        if found := _HANDOVER.match(said):
            self._handed_over = True
            return Handover(_text(found[1]), guest_s)
        return None

    def _stage(self, stage: Stage) -> Stage | None:
        self._stages += 1
        return stage if self._stages <= MAX_STAGES else None

    def _kernel(self, said: bytes) -> Event | None:
        """The kernel's line; only its words about dm-verity and its last ones matter."""
        if found := _PANIC.match(said):
            verity = self._verity or _VERITY.search(found[1])
            return Panic("verity-panic" if verity else "kernel-panic", _text(found[1]))
        if _VERITY.match(said):
            self._verity = True
        return None


_BREAKS = {ord("\r"): None, ord("\n"): None, ord("\t"): None}


class Neutraliser:
    """Makes guest output safe to show: text and line breaks pass, commands do not.

    Escape sequences are dropped, other control characters (bidirectional
    marks and invalid UTF-8 among them) become U+FFFD; carriage returns are
    dropped so that no line can overwrite another.
    """

    _MAX_SEQUENCE = 64

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._sequence = 0  # 0: none, 1: after ESC, from 2: characters since "ESC ["

    def feed(self, data: bytes) -> str:
        """What may be shown of ``data``; unfinished characters are kept back."""
        text = self._decoder.decode(data)
        if not self._sequence and text.translate(_BREAKS).isprintable():
            return text.replace("\r", "")  # most of a console; the rest goes one by one
        return "".join(shown for character in text if (shown := self._show(character)))

    def _show(self, character: str) -> str:
        if self._sequence and " " <= character <= "~":
            if self._sequence == 1:
                self._sequence = 2 if character == "[" else 0
                return ""
            ended = character >= "@" or self._sequence >= self._MAX_SEQUENCE
            self._sequence = 0 if ended else self._sequence + 1
            return ""
        self._sequence = 0
        if character == "\x1b":
            self._sequence = 1
            return ""
        if character == "\r":
            return ""
        if character in "\n\t" or character.isprintable():
            return character
        return "�"


def _text(data: bytes) -> str:
    """``data`` as one printable line, for documents and messages."""
    text = data.decode("utf-8", errors="replace")
    return "".join(c if c.isprintable() else "�" for c in text)

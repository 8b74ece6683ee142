# SPDX-License-Identifier: Apache-2.0
"""A hostile host between front and processor: it repeats, reorders, drops and alters frames.

It listens at a socket of its own and passes frames to the processor's. What it
does with each answer is told by a plan, one word a frame; when the plan is at
its end it passes everything. It knows frames and lengths, and no keys, like the
host of a confidential guest.
"""

import socket
import struct
import threading

HEAD = struct.Struct("<IIQQQ")
PAGE = 4096

PASS = "pass"
DROP_REQUEST = "drop-request"  # the processor never sees it; the front waits
DROP_ANSWER = "drop-answer"  # the processor has counted it; the front waits
REPEAT_REQUEST = "repeat-request"  # the processor sees it twice, the front gets the second answer
REPLAY_ANSWER = "replay-answer"  # the answer before this one, under this frame's number
SWAP = "swap"  # the answer of the request before, which was held back
ALTER_REQUEST = "alter-request"  # one bit of the sealed payload
ALTER_ANSWER = "alter-answer"
ALTER_HEADER = "alter-header"  # the sequence number that the message shows
ZERO_ANSWER = "zero-answer"
FORGE_OK = "forge-ok"  # an error made into a success with the page of before
CUT = "cut"  # the connection ends in the middle of an answer
NOISE = "noise"  # bytes that are no frame


class HostileRelay:
    """Runs in a thread until ``close``; ``plan``: what to do with the frames after the first."""

    def __init__(self, listen_at, processor_at, plan=()):
        self.plan = list(plan)
        self.requests, self.answers = [], []
        self._processor_at = str(processor_at)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(listen_at))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _run(self):
        while True:
            try:
                front, _ = self._listener.accept()
            except OSError:
                return
            with front, socket.socket(socket.AF_UNIX) as processor:
                front.settimeout(10)
                processor.settimeout(10)
                processor.connect(self._processor_at)
                try:
                    while self._one(front, processor):
                        pass
                except OSError:
                    pass

    def _one(self, front, processor):
        head = _exactly(front, HEAD.size)
        if head is None:
            return False
        _, kind, _, pages, _ = HEAD.unpack(head)
        body = _exactly(front, 0 if kind == 1 else PAGE)
        what = self.plan.pop(0) if self.plan and kind != 1 else PASS
        self.requests.append(head + body)
        if what == DROP_REQUEST:
            return True
        if what == ALTER_REQUEST:
            body = _flipped(body, 96)
        if what == NOISE:
            front.sendall(b"\xff" * HEAD.size)
            return False
        answer = self._ask(processor, head + body, kind, pages)
        if what == REPEAT_REQUEST:
            # A frame of its own number, or the processor's host would hang up at once.
            again = bytearray(head)
            struct.pack_into("<Q", again, 8, HEAD.unpack(head)[2] + 1)
            repeated = self._ask(processor, bytes(again) + body, kind, pages)
            answer = answer[:8] + head[8:16] + repeated[16:]
        before = self.answers[-1] if self.answers else answer
        self.answers.append(answer)
        given = self._twisted(what, answer, before)
        if given is None:
            return True
        front.sendall(given)
        return what != CUT

    def _ask(self, processor, frame, kind, pages):
        processor.sendall(frame)
        head = _exactly(processor, HEAD.size)
        if head is None:
            raise OSError
        return head + _exactly(processor, PAGE * (1 + (pages if kind == 3 else 0)))

    @staticmethod
    def _twisted(what, answer, before):
        at = HEAD.size
        if what == DROP_ANSWER:
            return None
        if what in (REPLAY_ANSWER, SWAP):
            return answer[:at] + before[at:][: len(answer) - at].ljust(len(answer) - at, b"\0")
        if what == ALTER_ANSWER:
            return _flipped(answer, at + 96)
        if what == ALTER_HEADER:
            return _flipped(answer, at + 0x21)
        if what == ZERO_ANSWER:
            return answer[:at] + bytes(len(answer) - at)
        if what == FORGE_OK:
            return answer[:16] + bytes(16) + before[at:][: len(answer) - at]
        if what == CUT:
            return answer[: len(answer) // 2]
        return answer


def _flipped(data, at):
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def _exactly(connection, size_bytes):
    data = b""
    while len(data) < size_bytes:
        more = connection.recv(size_bytes - len(data))
        if not more:
            return None
        data += more
    return data

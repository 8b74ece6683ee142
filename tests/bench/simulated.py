# SPDX-License-Identifier: Apache-2.0
"""scripts/bench simulated: what a simulated report costs, and that nothing grows with their number.

A day of reports, one a second, from the processor in this process; 2,000 with
certificates through its socket. Memory and descriptors are compared before and
after: growth is a failure, not a number.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY / "agent"), str(REPOSITORY / "tests")]

from made_front import Driver, Front, opened, report_request, sealed  # noqa: E402
from made_platform import platform  # noqa: E402
from troth.simulated.host import Host  # noqa: E402
from troth.simulated.launch import Launch  # noqa: E402
from troth.simulated.processor import Processor  # noqa: E402
from troth.simulated.server import Server  # noqa: E402

DAY_REPORTS = 86_400
SOCKET_REPORTS = 2_000
WARM_UP = 500
#: What the interpreter's own free lists may still move by, once warm.
ALLOWED_KIB = 1024

LAUNCH = Launch(measurement=bytes(48))


def held():
    """(resident KiB, open descriptors) of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024, len(os.listdir("/proc/self/fd"))


def timed(what, count, one):
    for _ in range(WARM_UP):
        one()
    before, began_s = held(), time.monotonic()
    for _ in range(count):
        one()
    spent_s, after = time.monotonic() - began_s, held()
    print(
        f"{what}: {count} reports, {spent_s / count * 1e3:.2f} ms each, both halves; resident "
        f"{before[0]} to {after[0]} KiB, descriptors {before[1]} to {after[1]}"
    )
    if after[0] - before[0] > ALLOWED_KIB or after[1] != before[1]:
        sys.exit(f"{what}: memory or descriptors grow")


def in_process():
    processor = Processor(LAUNCH, platform())
    key = processor.secrets_page()[0x20:0x40]
    count = 0

    def one():
        nonlocal count
        page = sealed(key, count + 1, 5, report_request(count.to_bytes(64, "little")))
        answer = processor.request(page)
        count += 2
        opened(key, answer.page, sequence=count, kind=6)

    timed("in process", DAY_REPORTS, one)


def through_the_socket():
    with tempfile.TemporaryDirectory(prefix="troth-") as folder:
        path = Path(folder) / "front"
        server = Server(Host(LAUNCH, platform()), front_socket=path)
        stop = threading.Event()
        thread = threading.Thread(target=server.serve, args=(stop.is_set,))
        thread.start()
        try:
            with Front(path) as front:
                driver = Driver(front)
                timed("through the socket", SOCKET_REPORTS, lambda: driver.report(pages=4))
        finally:
            stop.set()
            thread.join()
            server.close()


if __name__ == "__main__":
    in_process()
    through_the_socket()

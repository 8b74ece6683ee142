# SPDX-License-Identifier: Apache-2.0
"""Who gets a turn at log and TPM when many ask."""

from types import SimpleNamespace

import pytest

from troth.attest import log_endpoints
from troth.attest.peers import Peer


class Full:
    """A worker with ``pending`` pieces of work, which it does not begin."""

    def __init__(self, pending):
        self.pending = pending

    def submit(self, _work, _done):
        self.pending += 1


def ask(worker, uid):
    """The status that ``uid`` gets at once, None where it waits for its turn."""
    told = []
    exchange = SimpleNamespace(
        peer=Peer(uid, uid, 1, ""), answer=told.append, wait=lambda _hang_up: None
    )
    log = SimpleNamespace(path="", tpm_used=False, broken="")
    log_endpoints.measurements(SimpleNamespace(log=log, log_worker=worker), exchange)
    return told[0].status if told else None


def test_a_flood_leaves_root_a_place():
    worker = Full(0)
    while ask(worker, 1000) is None:
        assert worker.pending <= log_endpoints.MAX_LOG_WORK
    assert ask(worker, 1001) == 429
    assert ask(worker, 0) is None


@pytest.mark.parametrize("uid", [0, 1000])
def test_nobody_waits_without_end(uid):
    assert ask(Full(log_endpoints.MAX_LOG_WORK), uid) == 429

# SPDX-License-Identifier: Apache-2.0
"""How sources of keys ask the secure processor: in turn, within their time."""

import time

import pytest

import made_report
from troth.abi import cert_table, guest_payload
from troth.abi.guest_payload import KeyRequest
from troth.attest.pacing import Pacer
from troth.attest.provider import Answer
from troth.boot.key_sources.platform import Platform
from troth.errors import FormatError, ProviderError

TABLE = cert_table.build((cert_table.Entry(cert_table.VCEK, b"0\1"),))


class Kernel:
    """Gives reports and keys, and keeps what was asked."""

    name = "made"

    def __init__(self, certificates=TABLE):
        self.asked = []
        self.certificates = certificates

    def report(self, report_data, *, vmpl, key_selection):
        self.asked.append((report_data, vmpl, key_selection))
        return Answer(made_report.report(report_data=report_data), self.certificates, b"", "made")

    def derived_key(self, request):
        self.asked.append(request)
        return bytes(range(32))


class Times:
    """A clock that moves when somebody sleeps."""

    def __init__(self):
        self.slept_s = 0.0

    def clock(self):
        return 1000.0 + self.slept_s

    def sleep(self, seconds):
        self.slept_s += seconds


def platform(tmp_path, kernel, *, times=None, within_s=60.0):
    times = times or Times()
    pacer = Pacer(str(tmp_path / "turn"), clock=times.clock, sleep=times.sleep)
    deadline_s = time.monotonic() + within_s
    return Platform(deadline_s=deadline_s, pacer=pacer, provider=kernel, device=kernel)


def test_evidence_and_keys_take_turns(tmp_path):
    kernel, times = Kernel(), Times()
    asker = platform(tmp_path, kernel, times=times)
    report, certificates = asker.evidence(b"\7" * 64)
    assert report == made_report.report(report_data=b"\7" * 64)
    assert certificates == (("vcek", b"0\1"),)
    request = KeyRequest(fields=guest_payload.FIELD_POLICY)
    assert asker.derived_key(request) == bytes(range(32))
    assert kernel.asked == [(b"\7" * 64, None, guest_payload.KEY_SELECTION_AUTO), request]
    assert times.slept_s == pytest.approx(2.0)


def test_a_turn_that_comes_too_late_is_none(tmp_path):
    kernel = Kernel()
    asker = platform(tmp_path, kernel, within_s=1.0)
    asker.evidence(bytes(64))
    with pytest.raises(ProviderError) as caught:
        asker.evidence(bytes(64))
    assert caught.value.code == "provider-busy"
    assert len(kernel.asked) == 1


@pytest.mark.parametrize("table", [b"\1" * 40, b"\1" * 24])
def test_a_hosts_odd_table_is_told(tmp_path, table):
    with pytest.raises(FormatError) as caught:
        platform(tmp_path, Kernel(table)).evidence(bytes(64))
    assert caught.value.code.startswith("cert-table-")

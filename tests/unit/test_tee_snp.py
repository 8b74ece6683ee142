# SPDX-License-Identifier: Apache-2.0
"""What PID 1 makes of the guest's own report, and of machines that give none."""

import builtins
import io

import pytest

from made_policy import policy
from made_report import report
from troth.attest.provider import Answer
from troth.boot import tee, tee_snp
from troth.errors import FormatError, HostError, ProviderError, Refusal


class Provider:
    """Gives ``found``, or raises it; keeps what was asked."""

    def __init__(self, found):
        self.found = found
        self.asked = []

    def report(self, report_data, *, vmpl, key_selection):
        self.asked.append((report_data, vmpl, key_selection))
        if isinstance(self.found, Exception):
            raise self.found
        return Answer(self.found, b"", b"", "sev-guest")


@pytest.fixture
def chosen(monkeypatch):
    def choose(found):
        made = Provider(found)
        monkeypatch.setattr(tee_snp.choice, "choose", lambda _allowed: made)
        return made

    return choose


def refused(function, *arguments, **keywords):
    with pytest.raises(Refusal) as caught:
        function(*arguments, **keywords)
    return caught.value.code


def test_a_good_report_is_kept(chosen):
    provider = chosen(report(host_data=b"\x11" * 32, report_id=b"\x22" * 32))
    found = tee_snp.own_report(below_svsm=False)
    assert (found.host_data, found.report_id) == (b"\x11" * 32, b"\x22" * 32)
    tee_snp.own_report(below_svsm=False)
    # Nobody can have prepared an answer.
    (first, vmpl, key), (second, _, _) = provider.asked
    assert (len(first), vmpl, key) == (64, None, 0)
    assert first != second


@pytest.mark.parametrize(
    ("fields", "below_svsm", "code"),
    [
        ({"policy": 0xB0000}, False, "snp-debug"),
        ({"policy": 0x30000 | 1 << 18}, False, "snp-migrate"),
        # Bits that this version does not know hide none that it does.
        ({"policy": 1 << 63 | 1 << 19 | 0x20000}, False, "snp-debug"),
        ({"policy": 0xF0000, "vmpl": 2}, False, "snp-debug"),
        ({"vmpl": 1}, False, "snp-vmpl"),
        ({"vmpl": 0}, True, "snp-vmpl"),
        ({"vmpl": 2, "policy": 0xB0000}, True, "snp-debug"),
    ],
)
def test_what_may_have_no_secrets(chosen, fields, below_svsm, code):
    chosen(report(**fields))
    assert refused(tee_snp.own_report, below_svsm=below_svsm) == code


@pytest.mark.parametrize("vmpl", [1, 2, 3])
def test_below_a_service_module(chosen, vmpl):
    chosen(report(vmpl=vmpl))
    assert tee_snp.own_report(below_svsm=True).vmpl == vmpl


@pytest.mark.parametrize(
    "error",
    [
        ProviderError("vmpck-lost", "gone"),
        HostError("provider-device", "cannot be opened"),
        FormatError("snp-report-version", "99"),
    ],
)
def test_no_report_is_no_boot(chosen, error):
    chosen(error)
    with pytest.raises(Refusal) as caught:
        tee_snp.own_report(below_svsm=False)
    assert caught.value.code == "snp-report"
    assert caught.value.message.startswith(f"{error.code}: ")


def test_a_machine_without_snp(monkeypatch):
    def nothing(_allowed):
        raise HostError("no-provider", "nothing here gives reports: a: b; c: d")

    monkeypatch.setattr(tee_snp.choice, "choose", nothing)
    with pytest.raises(Refusal) as caught:
        tee_snp.own_report(below_svsm=False)
    assert caught.value.code == "snp-missing"
    assert "a: b; c: d" in caught.value.message


@pytest.mark.parametrize(
    ("snp", "flags", "good"),
    [
        ("none", "rdrand", True),
        ("simulated", "rdrand", True),
        ("none", "rdseed", False),
        ("required", "rdrand", False),
        ("required", "rdseed", False),
        ("required", "aes rdseed fma rdrand", True),
    ],
)
def test_processors_with_a_random_generator(monkeypatch, snp, flags, good):
    """SECURITY S32; QEMU's software processor has no rdseed."""
    text = f"processor\t: 0\nflags\t\t: fpu {flags} vme\nbugs\t\t: \n".encode()
    real = builtins.open

    def opened(path, *rest, **keywords):
        if path == "/proc/cpuinfo":
            return io.BytesIO(text)
        return real(path, *rest, **keywords)

    monkeypatch.setattr(builtins, "open", opened)
    if good:
        tee.check_entropy(policy(snp=snp))
    else:
        assert refused(tee.check_entropy, policy(snp=snp)) == "entropy"

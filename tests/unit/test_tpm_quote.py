# SPDX-License-Identifier: Apache-2.0
"""Quotes of a real (software) TPM: made by us for tpm2-tools, made by tpm2-tools for us."""

import hashlib
import struct
import subprocess
import sys

import pytest

from made_quote import qualifying
from made_tpm import swtpm, tool
from troth.abi import tpm_attest
from troth.documents.evidence import PcrValue, TpmPart
from troth.errors import HostError, ProviderError, UsageError
from troth.registers import quote_worker, tpm
from troth.verify import quote

NONCE = bytes(range(48))
#: As ``quote_worker.PROGRAM``, but this interpreter finds troth in its site-packages.
PROGRAM = (sys.executable, *quote_worker.PROGRAM[2:])


@pytest.fixture(scope="module")
def tcti(tmp_path_factory):
    pytest.importorskip("tpm2_pytss")
    with swtpm(tmp_path_factory.mktemp("t")) as found:
        tool(found, "tpm2_pcrextend", f"14:sha256={'5a' * 32},sha384={'5b' * 48}")
        yield found


def part_of(found):
    pcrs = tuple(PcrValue(*key, value) for key, value in sorted(found.pcrs.items()))
    return TpmPart(found.ak_public, found.attest, found.signature, pcrs, None)


EXTENDED = {
    ("sha256", 14): hashlib.sha256(bytes(32) + b"\x5a" * 32).digest(),
    ("sha384", 14): hashlib.sha384(bytes(48) + b"\x5b" * 48).digest(),
}


def test_our_quote_by_our_verifier(tcti):
    found = tpm.quote(tcti, NONCE)
    assert set(found.pcrs) == {
        (bank, index) for bank in ("sha256", "sha384") for index in (*range(16), 23)
    }
    assert {key: found.pcrs[key] for key in EXTENDED} == EXTENDED
    judged = quote.judge(part_of(found), nonce=NONCE, replayed=EXTENDED)
    assert {step.code: step.verdict for step in judged.steps} == dict.fromkeys(
        quote.CODES, "pass"
    ) | {"ak-in-tpm": "not-checked", "quote-counters": "not-checked"}
    # A key of the endorsement hierarchy: its TPM does not blur the counters.
    assert (judged.quote.clock.resets, judged.quote.clock.restarts) == (1, 0)
    assert tpm.quote(tcti, NONCE).ak_public == found.ak_public


def serialized(pcrs):
    """The file of tpm2_quote -o: a TPML_PCR_SELECTION and TPML_DIGESTs as they lie in memory."""
    selection = struct.pack("<I", 2)
    for number in (0x000B, 0x000C):
        selection += struct.pack("<HB4sx", number, 3, b"\xff\xff\x80\0")
    values = [pcrs[bank, index] for bank in ("sha256", "sha384") for index in tpm.PCRS]
    lists = b""
    for start in range(0, len(values), 8):
        some = values[start : start + 8]
        digests = b"".join(struct.pack("<H", len(value)) + value.ljust(64, b"\0") for value in some)
        lists += struct.pack("<I", len(some)) + digests.ljust(8 * 66, b"\0")
    return selection.ljust(132, b"\0") + struct.pack("<I", len(lists) // 532) + lists


@pytest.mark.tool
def test_our_quote_by_tpm2_checkquote(tcti, tmp_path):
    """The oracle: another reader of key, message, signature, nonce and PCRs."""
    found = tpm.quote(tcti, NONCE)
    name = tpm_attest.name(found.ak_public)
    (tmp_path / "ak.pub").write_bytes(struct.pack(">H", len(found.ak_public)) + found.ak_public)
    (tmp_path / "quote").write_bytes(found.attest)
    (tmp_path / "signature").write_bytes(found.signature)
    (tmp_path / "pcrs").write_bytes(serialized(found.pcrs))

    def check(nonce):
        tool(
            "", "tpm2_checkquote", "-u", tmp_path / "ak.pub", "-m", tmp_path / "quote",
            "-s", tmp_path / "signature", "-g", "sha256", "-q", nonce.hex(),
            "-f", tmp_path / "pcrs",
        )  # fmt: skip

    check(qualifying(NONCE, name))
    with pytest.raises(subprocess.CalledProcessError):
        check(qualifying(bytes(48), name))
    changed = found.pcrs | {("sha384", 23): b"\x01" * 48}
    (tmp_path / "pcrs").write_bytes(serialized(changed))
    with pytest.raises(subprocess.CalledProcessError):
        check(qualifying(NONCE, name))


@pytest.mark.tool
@pytest.mark.parametrize(
    ("kind", "scheme"), [("ecc", "ecdsa"), ("rsa", "rsassa"), ("rsa", "rsapss")]
)
def test_the_quote_of_tpm2_quote_by_our_verifier(tcti, tmp_path, kind, scheme):
    def run(*words):
        tool(tcti, *words, cwd=tmp_path)

    run("tpm2_createek", "-c", "ek.ctx", "-G", kind, "-u", "ek.pub")
    run("tpm2_flushcontext", "-t")
    run("tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", kind, "-g", "sha256",
        "-s", scheme, "-u", "ak.tpm2b", "-n", "ak.name")  # fmt: skip
    run("tpm2_flushcontext", "-t")
    area = tpm_attest.public_area((tmp_path / "ak.tpm2b").read_bytes())
    name = (tmp_path / "ak.name").read_bytes()
    assert tpm_attest.name(area) == name
    run("tpm2_quote", "-c", "ak.ctx", "--scheme", scheme, "-l", "sha256:11,14,15", "-g", "sha256",
        "-q", qualifying(NONCE, name).hex(), "-m", "quote", "-s", "signature",
        "-o", "pcrs", "-F", "values")  # fmt: skip
    run("tpm2_flushcontext", "-t")
    values = (tmp_path / "pcrs").read_bytes()
    tpm_part = TpmPart(
        area,
        (tmp_path / "quote").read_bytes(),
        (tmp_path / "signature").read_bytes(),
        tuple(
            PcrValue("sha256", index, values[32 * at : 32 * at + 32])
            for at, index in enumerate((11, 14, 15))
        ),
        None,
    )
    judged = quote.judge(tpm_part, nonce=NONCE, replayed={("sha256", 14): EXTENDED["sha256", 14]})
    assert {step.code: step.verdict for step in judged.steps} == dict.fromkeys(
        quote.CODES, "pass"
    ) | {"ak-in-tpm": "not-checked", "quote-counters": "not-checked"}


def test_the_key_at_a_handle(tcti, tmp_path):
    """As a paravisor keeps one: RSA, RSASSA, persistent."""
    attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign|noda"
    tool(tcti, "tpm2_createprimary", "-C", "e", "-c", "ak.ctx", "-G", "rsa2048:rsassa-sha256:null",
         "-a", attributes, cwd=tmp_path)  # fmt: skip
    tool(tcti, "tpm2_evictcontrol", "-C", "o", "-c", "ak.ctx", "0x81000003", cwd=tmp_path)
    tool(tcti, "tpm2_flushcontext", "-t")
    found = tpm.quote(tcti, NONCE, handle=tpm.PARAVISOR_AK)
    assert tpm_attest.parse_public(found.ak_public).scheme == "rsassa"
    judged = quote.judge(part_of(found), nonce=NONCE, replayed=EXTENDED)
    assert not [step for step in judged.steps if step.verdict == "fail"]
    with pytest.raises(ProviderError) as caught:
        tpm.quote(tcti, NONCE, handle=0x81000009)
    assert caught.value.code == "tpm-command"
    # Nothing of ours is left behind.
    assert tool(tcti, "tpm2_getcap", "handles-transient").stdout.strip() == b""


def test_a_process_of_its_own(tcti):
    found = quote_worker.ask(tcti, NONCE, program=PROGRAM)
    assert found.pcrs == tpm.quote(tcti, NONCE).pcrs
    assert not [
        step for step in quote.judge(part_of(found), nonce=NONCE, replayed=EXTENDED).steps
        if step.verdict == "fail"
    ]  # fmt: skip
    with pytest.raises(ProviderError) as caught:
        quote_worker.ask(tcti, NONCE, handle=0x81000009, program=PROGRAM)
    assert (caught.value.code, "0x81000009" in caught.value.message) == ("tpm-command", True)


def test_no_tpm(tmp_path):
    pytest.importorskip("tpm2_pytss")
    for name in (f"device:{tmp_path}/none", "nothing:x", f"swtpm:path={tmp_path}/none"):
        with pytest.raises(ProviderError) as caught:
            tpm.quote(name, NONCE)
        assert caught.value.code == "tpm-command"


def test_a_nonce_is_checked_first():
    with pytest.raises(UsageError) as caught:
        tpm.quote("device:/dev/none", b"short")
    assert caught.value.code == "nonce-length"


def test_an_image_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "tpm2_pytss._libtpm2_pytss", None)
    with pytest.raises(HostError) as caught:
        tpm.quote("device:/dev/none", NONCE)
    assert caught.value.code == "tpm-library"


@pytest.mark.parametrize(
    ("words", "timeout_s", "code"),
    [
        (("/bin/sh", "-c", "sleep 60"), 0.2, "quote-timeout"),
        (("/bin/sh", "-c", "echo"), 20, "quote-worker"),
        (("/bin/sh", "-c", "exit 1"), 20, "quote-worker"),
        (("/bin/sh", "-c", "echo '{\"ak_public\":1}'"), 20, "quote-worker"),
        (("/bin/sh", "-c", "yes x"), 20, "quote-worker"),
        (("/bin/sh", "-c", "head -c 100000 /dev/zero"), 20, "quote-worker"),
        (("/does/not/exist",), 20, "quote-worker"),
    ],
)
def test_processes_that_say_nothing_of_use(words, timeout_s, code):
    with pytest.raises(ProviderError) as caught:
        quote_worker.ask("device:/dev/none", NONCE, timeout_s=timeout_s, program=words)
    assert caught.value.code == code


class Restless:
    """A TPM whose PCRs somebody extends: other values at each reading, ``calm`` from one on."""

    def __init__(self, calm):
        self.calm = calm
        self.reads = 0
        self.quotes = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def banks(self):
        return ("sha1", "sha256")

    def key(self, handle):
        return bytes.fromhex("0023000b") + bytes(80)

    def read(self, banks):
        self.reads += 1
        mark = min(self.reads, self.calm)
        self.values = {(bank, index): bytes([mark]) * 32 for bank in banks for index in tpm.PCRS}
        return self.values

    def quote(self, extra, selected):
        self.quotes += 1
        values = b"".join(self.values[item.bank, index] for item in selected for index in item.pcrs)
        found = tpm_attest.Quote(
            b"", extra, tpm_attest.Clock(0, 0, 0, safe=True), 0, selected,
            hashlib.sha256(values).digest(),
        )  # fmt: skip
        return tpm_attest.print_quote(found), bytes.fromhex("0018000b000101000101")


@pytest.mark.parametrize(("calm", "quotes"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3)])
def test_pcrs_that_others_extend(monkeypatch, calm, quotes):
    model = Restless(calm)
    monkeypatch.setattr(tpm, "_Tpm", lambda _tcti: model)
    if calm == 2:
        # Between the two readings of the first try.
        quotes = 2
    if calm in (4, 6):
        quotes += 1
    if quotes > 3:
        with pytest.raises(ProviderError) as caught:
            tpm.quote("model:", NONCE)
        assert caught.value.code == "quote-unsteady"
        assert model.quotes == 3
    else:
        found = tpm.quote("model:", NONCE)
        assert model.quotes == quotes
        assert set(found.pcrs.values()) == {bytes([calm]) * 32}
    assert {bank for bank, _ in model.values} == {"sha256"}


def test_a_tpm_that_quotes_something_else(monkeypatch):
    model = Restless(1)
    honest = model.quote
    monkeypatch.setattr(tpm, "_Tpm", lambda _tcti: model)
    for lie in (
        lambda extra, selected: honest(bytes(32), selected),
        lambda extra, selected: honest(extra, (tpm_attest.Selection("sha256", (0,)),)),
        lambda extra, selected: (b"\xff" * 90, honest(extra, selected)[1]),
    ):
        model.quote = lie
        with pytest.raises(ProviderError) as caught:
            tpm.quote("model:", NONCE)
        assert caught.value.code == "quote-mismatch"
    model.banks = lambda: ("sha1",)
    with pytest.raises(ProviderError) as caught:
        tpm.quote("model:", NONCE)
    assert caught.value.code == "quote-banks"

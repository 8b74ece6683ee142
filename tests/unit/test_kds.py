# SPDX-License-Identifier: Apache-2.0
"""Fetching certificates, against a service on this machine that the tests own."""

import contextlib
import email.utils
import http.server
import os
import socket
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

import made_rsa
from made_pki import CHIP, NOW, TURIN_CHIP, Pki, holds, pem
from made_report import VECTORS, vectors
from troth.abi import snp_report
from troth.abi.snp_tcb import Tcb
from troth.cli import certs
from troth.errors import FormatError, HostError, TrothError, UsageError
from troth.verify.endorsing import endorsements, fetch, kds, kds_cache
from troth.verify.endorsing.chain import chain
from troth.verify.endorsing.fetch import Fetcher
from troth.verify.endorsing.kds import Service
from troth.verify.endorsing.kds_cache import Cache
from troth.verify.endorsing.roots import AMD_ROOTS

MAX_REQUESTS = 60


class Fake:
    """A service that answers from ``answers``: path to bytes, or to a list of (status, headers,
    body) that is used up; what was asked stands in ``asked``."""

    def __init__(self):
        self.answers, self.asked = {}, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self):
                outer.asked.append(self.path)
                answer = outer.answers.get(self.path, (404, {}, b"none"))
                if isinstance(answer, list):
                    answer = answer.pop(0) if len(answer) > 1 else answer[0]
                status, headers, body = answer if isinstance(answer, tuple) else (200, {}, answer)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.server.timeout = 0.01
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while not self._stop.is_set() and len(self.asked) < MAX_REQUESTS:
            self.server.handle_request()

    def close(self):
        self._stop.set()
        self._thread.join(10)
        self.server.server_close()

    def offer(self, pki, *, chain=None, revoked=None):
        kind, line = ("vlek" if pki.vlek else "vcek"), pki.line
        self.answers[f"/{kind}/v1/{line}/cert_chain"] = chain or pem(pki.ca, pki.ark)
        self.answers[f"/{kind}/v1/{line}/crl"] = revoked or pki.revoked()


@pytest.fixture
def fake():
    made = Fake()
    try:
        yield made
    finally:
        made.close()


class Clock:
    """Time that passes only by waiting."""

    def __init__(self):
        self.now, self.waits, self.said = NOW.timestamp(), [], []

    def pause(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def service(fake, clock):
    return Service(fake.url, pause=clock.pause, tell=clock.said.append)


def fetcher(fake, clock, folder):
    cache = Cache(folder, now=lambda: clock.now, pause=clock.pause, tell=clock.said.append)
    return Fetcher(service(fake, clock), cache, at=NOW)


def refused(call, code, kind=TrothError):
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.code == code
    return caught.value


GENOA_VCEK = f"/vcek/v1/Genoa/{CHIP.hex()}?blSPL=10&teeSPL=00&snpSPL=27&ucodeSPL=84"
TURIN_VCEK = f"/vcek/v1/Turin/{TURIN_CHIP.hex()}?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=81"


# --- paths --------------------------------------------------------------------------------


def test_paths_as_the_service_documents_them():
    assert kds.vcek_path("Genoa", CHIP, Tcb(None, 10, 0, 27, 84)) == GENOA_VCEK
    assert kds.vcek_path("Turin", TURIN_CHIP, Tcb(1, 2, 3, 4, 81)) == TURIN_VCEK
    long = kds.vcek_path("Milan", CHIP, Tcb(None, 4, 0, 24, 219))
    assert long.endswith("?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219")
    assert kds.chain_path("Milan", "vlek") == "/vlek/v1/Milan/cert_chain"
    assert kds.list_path("Turin", "vcek") == "/vcek/v1/Turin/crl"


def test_paths_that_cannot_be():
    refused(lambda: kds.vcek_path("Turin", CHIP, Tcb(1, 2, 3, 4, 81)), "kds-chip")
    refused(lambda: kds.vcek_path("Genoa", TURIN_CHIP, Tcb(None, 2, 3, 4, 81)), "kds-chip")
    refused(lambda: kds.vcek_path("Turin", TURIN_CHIP, Tcb(None, 2, 3, 4, 81)), "snp-tcb")
    with pytest.raises(ValueError, match="hierarchy"):
        kds.chain_path("Milan", "../x")


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://kds.example", True),
        ("https://kds.example/mirror/", True),
        ("https://kds.example:8443", True),
        ("http://127.0.0.1:8080", True),
        ("http://127.8.8.8", True),
        ("http://[::1]:80", True),
        ("http://localhost:80", True),
        ("http://kds.example", False),
        ("http://127.0.0.1.kds.example", False),
        ("http://10.0.0.1", False),
        ("ftp://127.0.0.1", False),
        ("file:///etc/passwd", False),
        ("kds.example", False),
        ("https://", False),
        ("https://user@kds.example", False),
        ("https://kds.example?x=1", False),
        ("https://kds.example#x", False),
        ("https://kds.example:99999", False),
        ("https://kds.example:0", False),
        ("https://[::1", False),
        ("https://kds.example/a b", False),
        ("https://kds.example/\n", False),
        ("", False),
    ],
)
def test_which_services_are_asked(url, good):
    if good:
        assert Service(url).url == url.rstrip("/")
    else:
        refused(lambda: Service(url), "kds-service", UsageError)


def test_the_default_service_is_amds():
    assert Service().url == "https://kdsintf.amd.com"


# --- single requests ------------------------------------------------------------------------


def test_an_answer(fake, clock):
    fake.answers["/x?y=1"] = b"body"
    assert service(fake, clock).get("/x?y=1") == b"body"
    assert clock.waits == []


def test_busy_services_are_waited_for(fake, clock):
    fake.answers["/x"] = [(429, {"Retry-After": "7"}, b""), (429, {}, b""), (200, {}, b"done")]
    assert service(fake, clock).get("/x") == b"done"
    assert clock.waits == [7.0, 10.0]
    assert "7 s" in clock.said[0]


def test_busy_services_may_name_a_date(fake, clock):
    date = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    fake.answers["/x"] = [(429, {"Retry-After": date}, b""), (200, {}, b"done")]
    assert service(fake, clock).get("/x") == b"done"
    assert 15 < clock.waits[0] <= 20


def test_busy_for_ever(fake, clock):
    fake.answers["/x"] = (429, {"Retry-After": "5"}, b"")
    refused(lambda: service(fake, clock).get("/x"), "kds-busy", HostError)
    assert len(fake.asked) == kds.ATTEMPTS
    assert clock.waits == [5.0] * (kds.ATTEMPTS - 1)


@pytest.mark.parametrize("after", ["3600", "999999999", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_pause_that_is_too_long_is_not_waited(fake, clock, after):
    fake.answers["/x"] = (429, {"Retry-After": after}, b"")
    refused(lambda: service(fake, clock).get("/x"), "kds-busy")
    assert clock.waits == []


@pytest.mark.parametrize("after", ["soon", "-1", "1e9", "9" * 400, "\u0661", ""])
def test_odd_pauses_are_ten_seconds(after):
    assert kds._seconds(after) == 10.0


@pytest.mark.parametrize("year", ["99999", "9" * 30, "0000"])
def test_odd_dates(year):
    for zone in ("GMT", "+9999", "-0000", "+" + "9" * 30):
        assert kds._seconds(f"Fri, 01 Jan {year} 00:00:00 {zone}") >= 1


def test_failing_services_are_asked_again(fake, clock):
    fake.answers["/x"] = [(500, {}, b"oops"), (503, {}, b""), (200, {}, b"done")]
    assert service(fake, clock).get("/x") == b"done"
    assert clock.waits == [2.0, 4.0]
    fake.answers["/x"] = (500, {}, b"oops")
    refused(lambda: service(fake, clock).get("/x"), "kds-refused", HostError)


@pytest.mark.parametrize(("status", "code"), [(404, "kds-unknown"), (403, "kds-refused")])
def test_answers_that_are_final(fake, clock, status, code):
    fake.answers["/x"] = (status, {}, b"no")
    refused(lambda: service(fake, clock).get("/x"), code)
    assert len(fake.asked) == 1


def test_redirects_are_not_followed(fake, clock):
    fake.answers["/x"] = (302, {"Location": "/y"}, b"")
    fake.answers["/y"] = b"elsewhere"
    refused(lambda: service(fake, clock).get("/x"), "kds-refused")
    assert fake.asked == ["/x"]


def test_large_answers_are_not_read(fake, clock):
    fake.answers["/x"] = bytes(kds.MAX_ANSWER_BYTES)
    assert len(service(fake, clock).get("/x")) == kds.MAX_ANSWER_BYTES
    fake.answers["/x"] = bytes(kds.MAX_ANSWER_BYTES + 1)
    refused(lambda: service(fake, clock).get("/x"), "kds-answer", FormatError)


def test_cut_answers_are_asked_for_again(fake, clock):
    fake.answers["/x"] = [(200, {"Content-Length": "9"}, b"short"), (200, {}, b"whole")]
    assert service(fake, clock).get("/x") == b"whole"


def test_nobody_there(clock):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    error = refused(lambda: Service(url, pause=clock.pause).get("/x"), "kds-unreachable", HostError)
    assert "refused" in error.message
    assert clock.waits == [2.0]


# --- what a report needs ------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "path"), [("Genoa", GENOA_VCEK), ("Turin", TURIN_VCEK)])
def test_a_report_gets_its_chain(fake, clock, tmp_path, line, path):
    pki = Pki(line)
    fake.offer(pki)
    fake.answers[path] = pki.vek
    report = snp_report.parse(pki.report())
    fetched = fetcher(fake, clock, tmp_path).for_report(report)
    assert {data for _, data in fetched.files} == {pki.ark, pki.ca, pki.vek, fake_list(fake, line)}
    assert len({name for name, _ in fetched.files}) == 4
    found = endorsements.collect(fetched.files)
    assert holds(chain(report, found, roots=[pki.root_sha256], at=NOW))
    assert any(pki.root_sha256 in note for note in fetched.notes)
    assert clock.waits == []


def fake_list(fake, line):
    return fake.answers[f"/vcek/v1/{line}/crl"]


def test_what_is_kept_is_not_asked_for_again(fake, clock, tmp_path):
    pki = Pki()
    fake.offer(pki)
    fake.answers[GENOA_VCEK] = pki.vek
    report = snp_report.parse(pki.report())
    first = fetcher(fake, clock, tmp_path).for_report(report)
    assert len(fake.asked) == 3
    assert fetcher(fake, clock, tmp_path).for_report(report) == first
    assert len(fake.asked) == 3
    clock.now += fetch.LIST_AGE_S + 1
    fetcher(fake, clock, tmp_path).for_report(report)
    assert fake.asked[3:] == ["/vcek/v1/Genoa/crl"]


def test_damaged_caches_are_fetched_anew(fake, clock, tmp_path):
    pki = Pki()
    fake.offer(pki)
    fake.answers[GENOA_VCEK] = pki.vek
    report = snp_report.parse(pki.report())
    first = fetcher(fake, clock, tmp_path).for_report(report)
    for path in tmp_path.rglob("*.*"):
        path.write_bytes(b"damaged")
    clock.now += 60
    assert fetcher(fake, clock, tmp_path).for_report(report) == first
    assert len(fake.asked) == 6


def test_requests_for_chips_are_ten_seconds_apart(fake, clock, tmp_path):
    chips = [bytes([n]) * 64 for n in (1, 2, 3)]
    for chip in chips:
        pki = Pki(extensions={"chip": chip})
        if chip == chips[0]:
            fake.offer(pki)
        fake.answers[GENOA_VCEK.replace(CHIP.hex(), chip.hex())] = pki.vek
        report = snp_report.parse(pki.report(chip_id=chip))
        fetcher(fake, clock, tmp_path).for_report(report)
        clock.now += 4
    assert clock.waits == [6.0, 6.0]


def test_turns_survive_odd_stamps(clock, tmp_path):
    cache = Cache(tmp_path, now=lambda: clock.now, pause=clock.pause)
    stamp = tmp_path / "last-request"
    for text in (b"", b"x", b"nan", b"inf", b"-1", b"\xff" * 40, str(clock.now + 500).encode()):
        stamp.write_bytes(text)
        cache.take_turn()
        assert clock.waits == []
    cache.take_turn()
    assert clock.waits == [pytest.approx(10, abs=0.01)]


def test_version_two_asks_one_line_after_the_other(fake, clock, tmp_path):
    milan, genoa = Pki("Milan"), Pki("Genoa")
    fake.offer(milan)
    fake.offer(genoa)
    fake.answers[GENOA_VCEK] = genoa.vek
    report = snp_report.parse(genoa.report(version=2))
    fetched = fetcher(fake, clock, tmp_path).for_report(report)
    assert genoa.vek in [data for _, data in fetched.files]
    assert [path.split("?")[0] for path in fake.asked if "SPL" in path] == [
        f"/vcek/v1/Milan/{CHIP.hex()}",
        f"/vcek/v1/Genoa/{CHIP.hex()}",
    ]
    assert clock.waits == [10.0]


def test_a_vlek_comes_from_the_host(fake, clock, tmp_path):
    pki = Pki("Milan", vlek=True)
    fake.offer(pki)
    fetched = fetcher(fake, clock, tmp_path).for_report(snp_report.parse(pki.report()))
    assert [name for name, _ in fetched.files] == [
        "ark-milan.der",
        "asvk-milan.der",
        "crl-vlek-milan.der",
    ]
    assert any("VLEK" in note for note in fetched.notes)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"chip_id": bytes(64)}, "kds-chip"),
        ({"key_info": 2}, "kds-report"),
        ({"key_info": 0x1C}, "kds-report"),
        ({"signature_algo": 3}, "kds-report"),
        ({"cpuid_model": 0x55}, "kds-report"),
        ({"cpuid_family": 0x1A, "cpuid_model": 0x50}, "kds-report"),
    ],
)
def test_reports_that_name_no_certificate(fake, clock, tmp_path, fields, code):
    report = snp_report.parse(Pki().report(**fields))
    refused(lambda: fetcher(fake, clock, tmp_path).for_report(report), code, FormatError)
    assert fake.asked == []


def test_a_chip_the_service_does_not_know(fake, clock, tmp_path):
    fake.offer(Pki())
    report = snp_report.parse(Pki().report())
    refused(lambda: fetcher(fake, clock, tmp_path).for_report(report), "kds-unknown")


WRONG_KEYS = [
    {"extensions": {"chip": bytes(64 * [9])}},
    {"extensions": {"levels": {"1": 9}}},
    {"extensions": {"change": {"4": None}}},
    {"vek": {"signer": made_rsa.root()}},
    {"vek": {"days": (-9, -1)}},
    {"vek": {"subject": "SEV-VLEK"}},
]


@pytest.mark.parametrize("changes", WRONG_KEYS)
def test_wrong_answers_are_not_kept(fake, clock, tmp_path, changes):
    good = Pki()
    fake.offer(good)
    fake.answers[GENOA_VCEK] = Pki(**changes).vek
    report = snp_report.parse(good.report())
    refused(lambda: fetcher(fake, clock, tmp_path).for_report(report), "kds-mismatch")
    assert not list(tmp_path.rglob("*vcek-genoa-*"))
    fake.answers[GENOA_VCEK] = b"<html>"
    refused(lambda: fetcher(fake, clock, tmp_path).for_report(report), "kds-mismatch")


def wrong_chains():
    good, milan = Pki(), Pki("Milan")
    return [
        b"<html>",
        pem(good.ca),
        pem(good.ca, good.ark, good.ark),
        pem(milan.ca, milan.ark),
        pem(good.ca, milan.ark),
        pem(good.ca, good.ca),
        pem(Pki(ca={"signer": made_rsa.intermediate()}).ca, good.ark),
        pem(Pki(ca={"days": (-9, -1)}).ca, good.ark),
        pem(Pki(vlek=True).ca, good.ark),
    ]


@pytest.mark.parametrize("data", wrong_chains())
def test_wrong_chains(fake, clock, tmp_path, data):
    fake.offer(Pki(), chain=data)
    report = snp_report.parse(Pki().report())
    refused(lambda: fetcher(fake, clock, tmp_path).for_report(report), "kds-mismatch")
    assert not list(tmp_path.rglob("*chain*"))


def test_either_order_of_a_chain(fake, clock, tmp_path):
    pki = Pki()
    fake.offer(pki, chain=pem(pki.ark, pki.ca))
    fake.answers[GENOA_VCEK] = pki.vek
    fetcher(fake, clock, tmp_path).for_report(snp_report.parse(pki.report()))


@pytest.mark.parametrize("days", [(-9, -1), (1, 9)])
def test_a_list_out_of_its_window_is_left_out_and_said(fake, clock, tmp_path, days):
    pki = Pki()
    fake.offer(pki, revoked=pki.revoked(days=days))
    fake.answers[GENOA_VCEK] = pki.vek
    fetched = fetcher(fake, clock, tmp_path).for_report(snp_report.parse(pki.report()))
    assert len(fetched.files) == 3
    assert any("revocation" in note for note in fetched.notes)


def test_a_kept_list_serves_while_the_service_is_away(fake, clock, tmp_path):
    pki = Pki()
    fake.offer(pki)
    fake.answers[GENOA_VCEK] = pki.vek
    report = snp_report.parse(pki.report())
    first = fetcher(fake, clock, tmp_path).for_report(report)
    clock.now += fetch.LIST_AGE_S + 1
    fake.answers["/vcek/v1/Genoa/crl"] = (503, {}, b"")
    assert fetcher(fake, clock, tmp_path).for_report(report) == first


# --- files ----------------------------------------------------------------------------------------


def test_files_appear_whole(tmp_path):
    target = tmp_path / "a" / "b"
    kds_cache.write(target, b"one")
    kds_cache.write(target, b"two")
    assert target.read_bytes() == b"two"
    assert os.listdir(target.parent) == ["b"]
    assert target.stat().st_mode & 0o777 == 0o644
    (tmp_path / "file").touch()
    refused(lambda: kds_cache.write(tmp_path / "file" / "x", b""), "kds-write", HostError)
    refused(lambda: kds_cache.write(tmp_path / "a", b""), "kds-write", HostError)
    assert sorted(os.listdir(tmp_path)) == ["a", "file"]
    refused(Cache(tmp_path / "file").take_turn, "kds-write", HostError)


def options(fake, tmp_path, report=None):
    path = None
    if report:
        path = tmp_path / "report.bin"
        path.write_bytes(report)
    return SimpleNamespace(
        directory=str(tmp_path / "out"),
        report=path and str(path),
        service=fake.url,
        cache=str(tmp_path / "cache"),
    )


def now_pki(**changes):
    """A hierarchy that is valid at the time the command runs, whenever that is."""
    away = (datetime.now(UTC) - NOW).days
    valid = {"days": (away - 100, away + 100)}
    return Pki(ark=valid, ca=valid, vek=valid, **changes), (away - 1, away + 30)


def test_the_verb_fills_a_directory(fake, tmp_path, capsys):
    pki, window = now_pki()
    fake.offer(pki, revoked=pki.revoked(days=window))
    fake.answers[GENOA_VCEK] = pki.vek
    given = options(fake, tmp_path, pki.report())
    assert certs.fetch(given) == 0
    out, err = capsys.readouterr()
    assert sorted(os.listdir(tmp_path / "out")) == sorted(
        os.path.basename(line) for line in out.splitlines()
    )
    assert pki.root_sha256 in err
    found = endorsements.read_directory(tmp_path / "out")
    result = chain(
        snp_report.parse(pki.report()), found, roots=[pki.root_sha256], at=datetime.now(UTC)
    )
    assert {step.verdict for step in result.steps} == {"pass"}


def test_the_verb_says_that_a_vlek_is_missing_until_it_is_there(fake, tmp_path, capsys):
    pki, window = now_pki(vlek=True)
    fake.offer(pki, revoked=pki.revoked(days=window))
    given = options(fake, tmp_path, pki.report())
    assert certs.fetch(given) == 1
    assert "VLEK" in capsys.readouterr().err
    (tmp_path / "out" / "vlek.der").write_bytes(pki.vek)
    assert certs.fetch(given) == 0


def test_the_verb_without_a_report_gets_every_line(fake, tmp_path):
    for line in ("Milan", "Genoa", "Turin"):
        for vlek in (False, True):
            pki, window = now_pki(line=line, vlek=vlek)
            fake.offer(pki, revoked=pki.revoked(days=window))
    assert certs.fetch(options(fake, tmp_path)) == 0
    assert len(os.listdir(tmp_path / "out")) == 15


def test_the_verb_needs_a_report_that_is_one(fake, tmp_path):
    given = options(fake, tmp_path, b"short")
    refused(lambda: certs.fetch(given), "snp-report-size")
    given.report = str(tmp_path / "none")
    refused(lambda: certs.fetch(given), "report-file", UsageError)


# --- genuine answers ------------------------------------------------------------------------


class Amd(Service):
    """AMD's service by its name, answering from a dictionary of path prefixes."""

    def __init__(self, answers):
        super().__init__()
        self.answers, self.asked = answers, []

    def get(self, path):
        self.asked.append(path)
        for prefix, data in self.answers.items():
            if path.startswith(prefix):
                return data
        raise FormatError("kds-unknown", "not here")


def test_amds_service_must_give_amds_root(tmp_path):
    """What another service may answer is refused under AMD's name: the root is pinned there."""
    pki = Pki()
    got = Fetcher(Amd({"/vcek/v1/Genoa/cert_chain": pem(pki.ca, pki.ark)}), Cache(tmp_path), at=NOW)
    error = refused(lambda: got.for_report(snp_report.parse(pki.report())), "kds-mismatch")
    assert pki.root_sha256 in error.message


@pytest.mark.vectors
def test_genuine_certificates_are_what_the_paths_ask_for(tmp_path, clock):
    """Each genuine report's certificate is found under the path made from the report."""
    entries = [entry for entry in vectors()["vectors"] if entry["signer"] == "VCEK"]
    for entry in entries:
        report = snp_report.parse((VECTORS / f"{entry['id']}.report.bin").read_bytes())
        line = entry["product"].capitalize()
        chain_file = VECTORS / "certs" / entry["product"] / "ask_ark.pem"
        raw = bytes.fromhex(entry["reported_tcb"])
        wanted = (
            f"/vcek/v1/{line}/{report.chip_id.hex()}?blSPL={raw[0]:02d}&teeSPL={raw[1]:02d}"
            f"&snpSPL={raw[6]:02d}&ucodeSPL={raw[7]:02d}"
        )
        amd = Amd(
            {
                f"/vcek/v1/{line}/cert_chain": chain_file.read_bytes(),
                wanted: (VECTORS / f"{entry['id']}.vek.der").read_bytes(),
            }
        )
        at = datetime.fromisoformat(entry["cert_not_before"]) + timedelta(days=1)
        cache = Cache(tmp_path / entry["id"], now=lambda: clock.now, pause=clock.pause)
        fetched = Fetcher(amd, cache, at=at).for_report(report)
        found = endorsements.collect(fetched.files)
        assert holds(chain(report, found, roots=AMD_ROOTS.values(), at=at)), entry["id"]
        assert amd.asked[-1] == wanted
        assert not any("trusted_roots" in note for note in fetched.notes)

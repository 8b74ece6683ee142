# SPDX-License-Identifier: Apache-2.0
"""Providers against a model of the kernel: what is believed, and what is not."""

import errno

import pytest

from made_reports import report_of
from sev_guest_kernel import GET_DERIVED_KEY, GET_EXT_REPORT, GET_REPORT, Driver, FakeReports
from troth.abi.guest_payload import KeyRequest
from troth.attest import choice, provider
from troth.attest.provider_sev_guest import SevGuestProvider
from troth.attest.provider_tsm import TsmProvider
from troth.errors import FormatError, HostError, ProviderError
from troth.linux import sev_guest, tsm

DATA = bytes(range(64))
CERTIFICATES = b"table".ljust(3 * 4096, b".")


@pytest.fixture
def guest(tmp_path, monkeypatch):
    """Makes a provider whose kernel is the model it returns beside it."""
    node = tmp_path / "sev-guest"
    node.touch()

    def make(driver, **options):
        monkeypatch.setattr(sev_guest, "fcntl", driver)
        return SevGuestProvider(str(node), **({"level": 0} | options))

    return make


def code_of(function, *arguments, kind=ProviderError, **options):
    with pytest.raises(kind) as caught:
        function(*arguments, **options)
    return caught.value.code


# --- /dev/sev-guest ------------------------------------------------------------------------


def test_a_report_with_its_certificates(guest):
    driver = Driver(certificates=CERTIFICATES)
    answer = guest(driver).report(DATA)
    assert answer.report == report_of(DATA)
    assert answer.certificates.startswith(CERTIFICATES)
    assert (answer.manifest, answer.provider) == (b"", "sev-guest")
    ((number, body),) = driver.requests
    assert number == GET_EXT_REPORT
    assert body[:96] == DATA + bytes(32)


def test_a_host_that_gives_no_certificates(guest):
    assert guest(Driver()).report(DATA).certificates == b""


def test_without_asking_for_certificates(guest):
    driver = Driver()
    assert guest(driver, certificates_bytes=0).report(DATA).report == report_of(DATA)
    assert [number for number, _ in driver.requests] == [GET_REPORT]


@pytest.mark.parametrize(("level", "asked", "sent"), [(None, None, 0), (2, None, 2), (0, 3, 3)])
def test_the_level(guest, monkeypatch, level, asked, sent):
    monkeypatch.setattr(sev_guest, "own_level", lambda: None)
    driver = Driver()
    guest(driver, level=level).report(DATA, vmpl=asked)
    assert driver.requests[0][1][64] == sent


def test_the_kernel_tells_the_level(guest, monkeypatch):
    monkeypatch.setattr(sev_guest, "own_level", lambda: 2)
    driver = Driver(vmpl=2)
    guest(driver, level=None).report(DATA)
    assert driver.requests[0][1][64] == 2


def test_a_level_above_the_guests_own(guest):
    with pytest.raises(ProviderError, match="INVALID_PARAM") as caught:
        guest(Driver(vmpl=2)).report(DATA)
    assert caught.value.code == "provider-refused"
    assert "VMPL" in caught.value.hint


def test_the_signing_key(guest):
    answer = guest(Driver()).report(DATA, key_selection=2)
    assert answer.report == report_of(DATA, vlek=True)
    other = Driver(faults=[{"report": lambda _: report_of(DATA)}])
    assert code_of(guest(other).report, DATA, key_selection=2) == "provider-mismatch"
    absent = Driver(faults=[{"status": 0x27}])
    with pytest.raises(ProviderError, match="INVALID_KEY"):
        guest(absent).report(DATA, key_selection=2)


def test_a_buffer_too_small_is_made_larger_once(guest):
    driver = Driver(certificates=CERTIFICATES)
    answer = guest(driver, certificates_bytes=4096).report(DATA)
    assert answer.certificates == CERTIFICATES
    rooms = [int.from_bytes(body[104:108], "little") for _, body in driver.requests]
    assert rooms == [4096, 3 * 4096]


def test_a_host_that_asks_for_ever_more(guest):
    driver = Driver(faults=[{"needed": 0x2000}, {"needed": 0x3000}])
    sender = guest(driver, certificates_bytes=4096)
    assert code_of(sender.report, DATA) == "provider-certificates"
    assert len(driver.requests) == 2


@pytest.mark.parametrize("needed", [0, 1, 0x1000, 0x1001, 0x4001, 0x5000, 0xFFFFFFFF])
def test_sizes_that_cannot_be(guest, needed):
    driver = Driver(faults=[{"needed": needed}])
    sender = guest(driver, certificates_bytes=4096)
    assert code_of(sender.report, DATA) == "provider-certificates"
    assert len(driver.requests) == 1


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ({"errno": errno.ENOTTY}, "vmpck-lost", "no key left"),
        ({"errno": errno.EBADMSG}, "provider-answer", "not sealed"),
        ({"errno": errno.ETIMEDOUT}, "provider-timeout", "minute"),
        ({"errno": errno.EINVAL}, "provider-refused", "EINVAL"),
        ({"errno": errno.EIO, "firmware": 0x18}, "provider-refused", "SECURE_DATA_INVALID"),
        ({"errno": errno.EIO, "firmware": 0xFFFFFFFF}, "provider-refused", "errno EIO$"),
        ({"errno": errno.EIO, "vmm": 2}, "provider-refused", "host BUSY"),
        ({"firmware": 0x16}, "provider-refused", "success, firmware INVALID_PARAM"),
        ({"vmm": 0x80000000}, "provider-refused", "0x80000000"),
        ({"status": 0x16}, "provider-refused", "INVALID_PARAM"),
        ({"status": 0x99}, "provider-refused", "0x99"),
        ({"report": lambda _: b""}, "provider-empty", "0 bytes of zeros"),
        ({"report": lambda _: bytes(1184)}, "provider-empty", "zeros"),
        ({"size": 1183}, "provider-size", "1183"),
        ({"size": 1185}, "provider-size", "1185"),
        ({"report": lambda _: report_of(bytes(64))}, "provider-mismatch", "REPORT_DATA"),
        ({"report": lambda _: report_of(DATA, vmpl=1)}, "provider-mismatch", "VMPL 1, not 0"),
    ],
)
def test_what_is_not_believed(guest, fault, code, words):
    sender = guest(Driver(faults=[fault]))
    with pytest.raises(ProviderError, match=words) as caught:
        sender.report(DATA)
    assert caught.value.code == code
    assert caught.value.where == sender.node


def test_a_lost_key_is_said_to_be_lost_for_good(guest):
    with pytest.raises(ProviderError) as caught:
        guest(Driver(faults=[{"errno": errno.ENOTTY}])).report(DATA)
    assert "until the guest is rebooted" in caught.value.hint


def test_a_report_of_an_unknown_version(guest):
    driver = Driver(faults=[{"report": lambda _: report_of(DATA, version=6)}])
    assert code_of(guest(driver).report, DATA, kind=FormatError) == "snp-report-version"


def test_a_size_beyond_the_answer(guest):
    driver = Driver(faults=[{"size": 0xFFFFFFFF}])
    assert code_of(guest(driver).report, DATA, kind=FormatError) == "guest-payload-size"


@pytest.mark.parametrize(("data", "vmpl"), [(DATA[:63], None), (DATA + b"x", 0), (DATA, 4)])
def test_requests_that_nobody_takes(guest, data, vmpl):
    driver = Driver()
    assert code_of(guest(driver).report, data, vmpl=vmpl) == "provider-request"
    assert driver.requests == []


def test_no_device(tmp_path):
    sender = SevGuestProvider(str(tmp_path / "none"), level=0)
    assert code_of(sender.report, DATA, kind=HostError) == "provider-device"


def test_a_derived_key(guest):
    driver = Driver()
    assert guest(driver).derived_key(KeyRequest(fields=8, vmpl=1)) == b"K" * 32
    assert driver.requests[0][0] == GET_DERIVED_KEY
    assert driver.requests[0][1][8] == 8


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"status": 0x16}, "provider-refused"),
        ({"errno": errno.ENOTTY}, "vmpck-lost"),
        ({"firmware": 1}, "provider-refused"),
    ],
)
def test_a_derived_key_that_is_refused(guest, fault, code):
    assert code_of(guest(Driver(faults=[fault])).derived_key, KeyRequest()) == code


def test_a_derived_key_of_zeros(guest):
    driver = Driver()
    driver.key = bytes(32)
    assert code_of(guest(driver).derived_key, KeyRequest()) == "provider-empty"


def test_the_key_does_not_stay_in_the_drivers_buffer(guest, monkeypatch):
    buffers = []
    memory = sev_guest._memory

    def kept(content):
        buffers.append(memory(content))
        return buffers[-1]

    monkeypatch.setattr(sev_guest, "_memory", kept)
    assert guest(Driver()).derived_key(KeyRequest()) == b"K" * 32
    assert len(buffers) == 2
    assert not any(b"K" in buffer for _, buffer in buffers)


def test_the_real_ioctl_on_another_device():
    with pytest.raises(ProviderError) as caught:
        SevGuestProvider("/dev/null", level=0).report(DATA)
    assert caught.value.code == "vmpck-lost"


def test_outcomes_do_not_show_keys():
    outcome = sev_guest.Outcome(0, 0, 0, b"secret")
    assert "secret" not in repr(outcome)


def test_where_the_kernel_tells_its_level(tmp_path):
    place = tmp_path / "vmpl"
    absent = str(tmp_path / "none")
    assert sev_guest.own_level((absent,)) is None
    for text, level in (("2\n", 2), ("7\n", None), ("", None), ("12\n", None)):
        place.write_text(text)
        assert sev_guest.own_level((absent, str(place))) == level


# --- configfs-tsm --------------------------------------------------------------------------


def test_a_report_by_configfs():
    reports = FakeReports(certificates=CERTIFICATES)
    answer = TsmProvider(reports).report(DATA)
    assert answer == provider.Answer(report_of(DATA), CERTIFICATES, b"", "configfs-tsm")
    assert reports.live == {}
    assert list(reports.made[0].written) == ["inblob"]


def test_each_request_has_its_own_directory():
    reports = FakeReports()
    sender = TsmProvider(reports)
    sender.report(DATA)
    sender.report(DATA)
    assert len({directory.name for directory in reports.made}) == 2


@pytest.mark.parametrize(("floor", "asked", "sent"), [(2, None, 2), (2, 3, 3), (None, 1, 1)])
def test_the_floor_under_a_service_module(floor, asked, sent):
    reports = FakeReports(floor=floor)
    answer = TsmProvider(reports).report(DATA, vmpl=asked)
    assert answer.report == report_of(DATA, vmpl=sent)
    assert reports.made[0].written["privlevel"] == str(sent).encode()
    assert list(reports.made[0].written) == ["privlevel", "inblob"]


def test_below_the_floor():
    reports = FakeReports(floor=2)
    assert code_of(TsmProvider(reports).report, DATA, vmpl=1) == "provider-request"
    assert reports.live == {}


def test_no_choice_of_a_signing_key():
    assert code_of(TsmProvider(FakeReports()).report, DATA, key_selection=1) == "provider-request"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOTTY, "vmpck-lost"),
        (errno.EBADMSG, "provider-answer"),
        (errno.ETIMEDOUT, "provider-timeout"),
        (errno.EINVAL, "provider-refused"),
        (errno.ENXIO, "provider-refused"),
        (errno.EBUSY, "provider-conflict"),
    ],
)
def test_errors_of_the_kernel(number, code):
    reports = FakeReports()
    reports.read_errno = number
    assert code_of(TsmProvider(reports).report, DATA) == code
    assert reports.live == {}, "the directory is removed whatever happens"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda _: bytes(1184), "provider-empty"),
        (lambda _: b"", "provider-empty"),
        (lambda report: report[:-1], "provider-size"),
        (lambda report: report + b"x", "provider-size"),
        (lambda report: report_of(bytes(64)), "provider-mismatch"),
        (lambda report: report_of(DATA, vmpl=3), "provider-mismatch"),
    ],
)
def test_blobs_that_are_not_believed(change, code):
    reports = FakeReports()
    reports.change = change
    assert code_of(TsmProvider(reports).report, DATA) == code
    assert reports.live == {}


def test_another_process_writes_meanwhile():
    reports = FakeReports()

    def write(directory):
        if directory.generation < 3:
            directory.write("inblob", bytes(64))

    reports.on_read = write
    assert code_of(TsmProvider(reports).report, DATA) == "provider-conflict"


def test_a_write_that_the_kernel_swallows():
    reports = FakeReports()
    make = reports.make

    def deaf(name):
        directory = make(name)
        write = directory.write

        def swallow(name, value):
            write(name, value)
            directory.generation -= 1

        directory.write = swallow
        return directory

    reports.make = deaf
    assert code_of(TsmProvider(reports).report, DATA) == "provider-conflict"


def test_a_generation_of_nonsense():
    reports = FakeReports(floor=2)
    reports.floor = 10**30
    assert code_of(TsmProvider(reports).report, DATA) == "provider-answer"


def test_certificates_without_end():
    reports = FakeReports(certificates=bytes(1 << 20) + b"xx")
    assert code_of(TsmProvider(reports).report, DATA) == "provider-size"


def test_reports_of_another_platform():
    reports = FakeReports(provider=b"tdx_guest\n")
    with pytest.raises(HostError, match="tdx_guest") as caught:
        TsmProvider(reports).report(DATA)
    assert caught.value.code == "provider-device"
    assert reports.live == {}


def test_no_configfs():
    reports = FakeReports()
    reports.make_errno = errno.ENXIO
    assert code_of(TsmProvider(reports).report, DATA, kind=HostError) == "provider-device"


def test_services_of_a_service_module():
    reports = FakeReports(floor=2, manifest=b"services")
    guid = "c476f1eb-0123-45a5-9641-b4e7dde5bfe3"
    answer = TsmProvider(reports).service_report(DATA, guid=guid)
    assert answer.manifest == b"services"
    assert list(reports.made[0].written.items()) == [
        ("service_provider", b"svsm"),
        ("service_guid", guid.encode()),
        ("service_manifest_version", b"0"),
        ("inblob", DATA),
    ]


def test_a_manifest_that_the_report_does_not_carry():
    reports = FakeReports(floor=2, manifest=b"services")
    reports.change = lambda _: report_of(DATA)
    assert code_of(TsmProvider(reports).service_report, DATA) == "provider-mismatch"


def test_services_without_a_service_module():
    sender = TsmProvider(FakeReports())
    assert code_of(sender.service_report, DATA, kind=HostError) == "provider-service"


# --- files of linux.tsm --------------------------------------------------------------------


def test_directories_and_attributes_are_files(tmp_path):
    directory = tsm.Reports(str(tmp_path)).make("one")
    place = tmp_path / "one"
    (place / "inblob").touch()
    directory.write("inblob", DATA)
    assert (place / "inblob").read_bytes() == DATA
    assert directory.read("inblob", limit_bytes=64) == DATA
    assert directory.read("inblob", limit_bytes=10) == DATA[:11]
    assert (directory.has("inblob"), directory.has("auxblob")) == (True, False)
    with pytest.raises(FileNotFoundError):
        directory.write("auxblob", b"")
    with pytest.raises(FileExistsError):
        tsm.Reports(str(tmp_path)).make("one")
    (place / "inblob").unlink()
    directory.remove()
    assert not place.exists()


# --- the choice ----------------------------------------------------------------------------


def test_the_device_where_configfs_is_missing(tmp_path):
    node = tmp_path / "sev-guest"
    node.touch()
    found = choice.choose(reports=str(tmp_path / "none"), node=str(node))
    assert found.name == "sev-guest"


def test_configfs_first(monkeypatch, tmp_path):
    node = tmp_path / "sev-guest"
    node.touch()
    reports = FakeReports()
    monkeypatch.setattr(tsm, "Reports", lambda root: reports)
    assert choice.choose(node=str(node)).name == "configfs-tsm"
    assert reports.live == {}
    assert choice.choose(("sev-guest",), node=str(node)).name == "sev-guest"


def test_nothing_there_and_nothing_allowed(tmp_path):
    with pytest.raises(HostError) as caught:
        choice.choose(("sev-guest",), reports=str(tmp_path), node=str(tmp_path / "none"))
    assert caught.value.code == "no-provider"
    assert "configfs-tsm is not allowed" in caught.value.message
    with pytest.raises(HostError, match="no report directory can be made"):
        choice.choose(reports=str(tmp_path / "none"), node=str(tmp_path / "none"))

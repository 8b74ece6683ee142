# SPDX-License-Identifier: Apache-2.0
"""The simulated secure processor, asked by a guest's half that is written by hand."""

import hashlib
import hmac
import json
import struct
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

import made_front
from made_front import KEY, REPORT, TSC, key_request, opened, report_request, sealed
from made_platform import other_platform, platform
from made_report import FIELDS, VECTORS, vectors
from troth.abi import snp_report
from troth.errors import FormatError
from troth.record import replace
from troth.signing import certificates
from troth.signing.aead import AesGcm
from troth.simulated import control
from troth.simulated.faults import Twist
from troth.simulated.launch import Launch
from troth.simulated.processor import LAST_NUMBER, Processor

MEASUREMENT = bytes(range(48))
LAUNCH = Launch(measurement=MEASUREMENT)
NONCE = bytes(range(64, 128))


class Guest:
    """A guest at one VMPCK of a processor in this process."""

    def __init__(self, launch=LAUNCH, *, pki=None, number=0, processor=None, **more):
        self.processor = processor or Processor(launch, pki or platform(), **more)
        self.number = number
        self.page = self.processor.secrets_page()
        self.key = self.page[0x20 + 32 * number :][:32]
        self.count = 0

    def ask(self, kind, payload, *, version=1, **more):
        """(firmware error, payload of the answer or None)."""
        vmpck = self.number
        page = sealed(self.key, self.count + 1, kind, payload, vmpck=vmpck, version=version)
        answer = self.processor.request(page, **more)
        if answer.firmware_error:
            assert answer.page == b""
            return answer.firmware_error, None
        self.count += 2
        found = opened(
            self.key, answer.page, sequence=self.count, kind=kind + 1, vmpck=vmpck, version=version
        )
        return 0, found

    def report(self, data=NONCE, *, more=None, **fields):
        """(status, size it says, what stands where the report does)."""
        error, payload = self.ask(REPORT, report_request(data, **fields), **(more or {}))
        assert error == 0
        assert len(payload) == 1216
        status, size, reserved = struct.unpack_from("<II24s", payload)
        assert reserved == bytes(24)
        return status, size, payload[32:]

    def good_report(self, **fields):
        status, size, report = self.report(**fields)
        assert (status, size) == (0, 1184)
        return report

    def derived(self, *, version=1, **fields):
        error, payload = self.ask(KEY, key_request(**fields), version=version)
        assert (error, len(payload)) == (0, 64)
        assert payload[4:32] == bytes(28)
        return struct.unpack_from("<I", payload)[0], payload[32:]


def field(report, name):
    offset, size = FIELDS[name]
    return report[offset : offset + size]


def number(report, name):
    return int.from_bytes(field(report, name), "little")


def holds(report, der):
    """Whether the signature is by the key of the certificate, by cryptography alone."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    key = serialization.load_der_public_key(certificates.load(der).spki)
    r, s = (number(report, name) for name in ("r", "s"))
    try:
        key.verify(utils.encode_dss_signature(r, s), report[:672], ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


@pytest.mark.vectors
def test_pages_are_sealed_as_the_vectors_are():
    vectors()  # skips where there are none
    cases = json.loads((VECTORS / "guest-messages.json").read_text())
    assert [case["msg_type"] for case in cases] == [5, 6, 3]
    for case in cases:
        if "plaintext" in case:
            plaintext = bytes.fromhex(case["plaintext"])
        else:
            report = (VECTORS / "milan-v3-ms.report.bin").read_bytes()
            plaintext = struct.pack("<II24x", 0, 1184) + report
        page = sealed(
            bytes.fromhex(case["key"]),
            case["seqno"],
            case["msg_type"],
            plaintext,
            vmpck=case["vmpck"],
            version=case["msg_version"],
        )
        assert page[:96].hex() == case["header"]
        assert hashlib.sha256(page).hexdigest() == case["page_sha256"]


@pytest.mark.vectors
def test_the_vectors_requests_are_answered():
    """The processor whose VMPCK 1 is the vectors' key takes their very pages, in their order."""
    vectors()
    cases = json.loads((VECTORS / "guest-messages.json").read_text())
    key = bytes.fromhex(cases[0]["key"])
    processor = Processor(replace(LAUNCH, guest_svn=9), platform(), random=lambda size: key[:size])
    asked = [case for case in cases if case["msg_type"] % 2]
    for case in asked:
        page = bytes.fromhex(case["header"] + case["ciphertext"]).ljust(4096, b"\0")
        assert hashlib.sha256(page).hexdigest() == case["page_sha256"]
        answer = processor.request(page)
        assert answer.firmware_error == 0
        payload = opened(
            key, answer.page, sequence=case["seqno"] + 1, kind=case["msg_type"] + 1, vmpck=1
        )
        assert struct.unpack_from("<I", payload) == (0,)
        if case["msg_type"] == REPORT:
            assert field(payload[32:], "report_data").hex() == case["plaintext"][:128]
            assert number(payload[32:], "vmpl") == 1
    assert processor.counts == (0, 4, 0, 0)


@pytest.mark.parametrize("line", ["Milan", "Genoa", "Turin"])
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_every_field_of_a_report(line, version):
    pki = platform(line)
    tcb = pki.chip.tcb
    older = bytes(max(level - 1, 0) for level in tcb)
    newer, at_launch = (tcb[:7] + bytes((tcb[7] + step,)) for step in (2, 1))
    launch = Launch(
        measurement=MEASUREMENT,
        policy=0x3011F,
        host_data=b"h" * 32,
        family_id=b"f" * 16,
        image_id=b"i" * 16,
        guest_svn=0x01020304,
        id_key_digest=b"k" * 48,
        author_key_digest=b"a" * 48,
        author_key=True,
        report_version=version,
        platform_info=0x25,
        current_tcb=newer,
        committed_tcb=older,
        launch_tcb=at_launch,
        current_firmware=(1, 55, 50),
        committed_firmware=(1, 54, 49),
        launch_mit_vector=0x0B,
        current_mit_vector=0x3F,
    )
    guest = Guest(launch, pki=pki, number=1)
    report = guest.good_report(vmpl=2)
    chip = pki.chip
    wanted = {
        "version": version,
        "guest_svn": 0x01020304,
        "policy": 0x3011F,
        "family_id": b"f" * 16,
        "image_id": b"i" * 16,
        "vmpl": 2,
        "signature_algo": 1,
        "current_tcb": newer,
        "platform_info": 0x25,
        "key_info": 1,
        "report_data": NONCE,
        "measurement": MEASUREMENT,
        "host_data": b"h" * 32,
        "id_key_digest": b"k" * 48,
        "author_key_digest": b"a" * 48,
        "report_id": guest.processor.report_id,
        "report_id_ma": b"\xff" * 32,
        "reported_tcb": tcb,
        "cpuid_family": chip.family if version > 2 else 0,
        "cpuid_model": chip.model if version > 2 else 0,
        "cpuid_stepping": chip.stepping if version > 2 else 0,
        "chip_id": chip.chip_id,
        "committed_tcb": older,
        "current_build": 50,
        "current_minor": 55,
        "current_major": 1,
        "committed_build": 49,
        "committed_minor": 54,
        "committed_major": 1,
        "launch_tcb": at_launch,
        "launch_mit_vector": 0x0B if version == 5 else 0,
        "current_mit_vector": 0x3F if version == 5 else 0,
    }
    for name, value in wanted.items():
        assert (number(report, name) if isinstance(value, int) else field(report, name)) == value
    covered = bytearray(1184)
    for offset, size in FIELDS.values():
        covered[offset : offset + size] = b"\1" * size
    assert not any(byte for byte, known in zip(report, covered, strict=True) if not known)
    assert holds(report, pki.vcek.certificate)
    parsed = snp_report.parse(report)
    assert snp_report.reserved_problems(parsed) == ()
    assert (parsed.version, parsed.signing_key) == (version, "vcek")


def test_reports_of_one_launch_and_of_another():
    guest = Guest()
    one, two = guest.good_report(), guest.good_report(data=bytes(64))
    assert field(one, "report_id") == field(two, "report_id") != bytes(32)
    assert field(Guest().good_report(), "report_id") != field(one, "report_id")
    assert guest.good_report() == one  # signatures are deterministic


@pytest.mark.parametrize("vmpck", range(4))
@pytest.mark.parametrize("vmpl", [0, 1, 2, 3, 4, 0xFFFFFFFF])
def test_a_level_below_the_keys_own_is_refused(vmpck, vmpl):
    guest = Guest(number=vmpck)
    status, size, rest = guest.report(vmpl=vmpl)
    if vmpck <= vmpl <= 3:
        assert (status, size, number(rest, "vmpl")) == (0, 1184, vmpl)
    else:
        assert (status, size) == (0x16, 0)
        assert not any(rest)
    # A refusal inside an answer is an answer: the next request has the next number.
    assert guest.processor.counts[vmpck] == 2
    assert guest.report(vmpl=3)[0] == 0


@pytest.mark.parametrize(
    ("loaded", "selection", "status", "signer"),
    [
        (False, 0, 0, "vcek"),
        (False, 1, 0, "vcek"),
        (False, 2, 0x27, None),
        (False, 3, 0x16, None),
        (True, 0, 0, "vlek"),
        (True, 1, 0, "vcek"),
        (True, 2, 0, "vlek"),
        (True, 3, 0x16, None),
        (True, 4, 0x16, None),
    ],
)
def test_the_key_that_signs(loaded, selection, status, signer):
    pki = platform("Genoa", vlek=True)
    guest = Guest(replace(LAUNCH, vlek=loaded), pki=pki)
    found, size, report = guest.report(key_selection=selection)
    assert (found, size) == (status, 0 if status else 1184)
    if signer is None:
        assert not any(report)
        return
    vlek = signer == "vlek"
    assert number(report, "key_info") == (4 if vlek else 0)
    assert field(report, "chip_id") == (bytes(64) if vlek else pki.chip.chip_id)
    assert holds(report, (pki.vlek if vlek else pki.vcek).certificate)
    assert not holds(report, (pki.vcek if vlek else pki.vlek).certificate)


def test_masks():
    report = Guest(replace(LAUNCH, mask_chip_id=True)).good_report()
    assert field(report, "chip_id") == bytes(64)
    assert holds(report, platform().vcek.certificate)
    report = Guest(replace(LAUNCH, mask_chip_key=True)).good_report()
    assert number(report, "key_info") == 2 | 7 << 2
    assert not any(report[672:])


def test_odd_payloads_are_refused_inside_an_answer():
    guest = Guest()
    good = report_request(NONCE)
    for payload in (b"", good[:-1], good + b"\0", good[:-1] + b"\1"):
        assert struct.unpack_from("<II", guest.ask(REPORT, payload)[1]) == (0x16, 0)
    for payload in (b"", key_request()[:-1], key_request(reserved=1), key_request(root=2)):
        assert struct.unpack_from("<I", guest.ask(KEY, payload)[1]) == (0x16,)
    for payload in (b"", bytes(127), bytes(127) + b"\1"):
        assert struct.unpack_from("<I", guest.ask(TSC, payload)[1]) == (0x16,)
    assert guest.report()[0] == 0


def test_tsc_info():
    launch = replace(LAUNCH, tsc_scale=3 << 32, tsc_offset=7, tsc_factor=200)
    guest = Guest(launch)
    error, payload = guest.ask(TSC, bytes(128))
    assert error == 0
    assert payload == struct.pack("<IIQQI100x", 0, 0, 3 << 32, 7, 200)
    assert struct.unpack_from("<I", guest.page, 0x160) == (200,)


def test_only_the_next_number_is_taken():
    guest = Guest()
    for wrong in (0, 2, 3, 1 << 32, LAST_NUMBER):
        page = sealed(guest.key, wrong, REPORT, report_request())
        assert guest.processor.request(page).firmware_error in (0x0B, 0x16)
        assert guest.processor.counts == (0, 0, 0, 0)
    page = sealed(guest.key, 1, REPORT, report_request())
    first = guest.processor.request(page)
    assert first.firmware_error == 0
    # The very same page again: its number is used, and nothing is sealed under the next twice.
    assert guest.processor.request(page).firmware_error == 0x0B
    assert guest.processor.counts == (2, 0, 0, 0)
    # Each key has a count of its own.
    other = Guest(processor=guest.processor, number=3)
    assert other.report(vmpl=3)[0] == 0
    assert guest.processor.counts == (2, 0, 0, 2)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"at_0x10": 1}, 0x16),  # tag, beyond its 16 bytes
        ({"at_0x28": 1}, 0x16),  # reserved
        ({"at_0x30": 0}, 0x16),  # algorithm
        ({"at_0x31": 2}, 0x16),  # header version
        ({"at_0x32": 95}, 0x16),  # header size
        ({"at_0x34": 1}, 0x16),  # CPUID, which is not modelled
        ({"at_0x34": 6}, 0x16),  # an answer
        ({"at_0x34": 0}, 0x16),
        ({"at_0x35": 0}, 0x16),  # message version
        ({"at_0x35": 2}, 0x16),
        ({"at_0x37": 0x10}, 0x16),  # more payload than a page has
        ({"at_0x38": 1}, 0x16),  # reserved
        ({"at_0x3c": 4}, 0x16),  # VMPCK
        ({"at_0x3c": 1}, 0x0B),  # another VMPCK than that of the key
        ({"at_0x3d": 1}, 0x16),  # reserved
        ({"at_0x5f": 1}, 0x16),
    ],
)
def test_broken_headers(change, error):
    guest = Guest()
    page = sealed(guest.key, 1, REPORT, report_request(), **change)
    assert guest.processor.request(page).firmware_error == error
    assert guest.processor.counts == (0, 0, 0, 0)
    assert guest.report()[0] == 0


@pytest.mark.parametrize("offset", [0, 15, 0x20, 0x36, 96, 191])
def test_changed_pages_are_not_taken(offset):
    guest = Guest()
    page = bytearray(sealed(guest.key, 1, REPORT, report_request()))
    page[offset] ^= 1
    assert guest.processor.request(bytes(page)).firmware_error == 0x0B
    assert guest.processor.counts == (0, 0, 0, 0)


def test_bytes_behind_the_message_do_not_matter_and_lengths_do():
    guest = Guest()
    page = sealed(guest.key, 1, REPORT, report_request())
    assert guest.processor.request(page[:-1] + b"\1").firmware_error == 0
    for wrong in (b"", page[:-1], page + b"\0"):
        assert guest.processor.request(wrong).firmware_error == 0x16


def test_numbers_run_out():
    last = LAST_NUMBER - 2
    guest = Guest(counts=(last, LAST_NUMBER - 1, 0, 0))
    guest.count = last
    assert guest.report()[0] == 0
    assert guest.processor.counts[0] == LAST_NUMBER
    page = sealed(guest.key, LAST_NUMBER, REPORT, report_request())
    assert guest.processor.request(page).firmware_error == 0x1D
    other = sealed(guest.page[0x40:0x60], LAST_NUMBER, REPORT, report_request(), vmpck=1)
    assert guest.processor.request(other).firmware_error == 0x1D
    assert Guest(processor=guest.processor, number=2).report(vmpl=2)[0] == 0


def test_the_page_of_secrets():
    guest = Guest()
    page = guest.page
    assert len(page) == 4096
    assert struct.unpack_from("<III", page) == (3, 0, 0x00A10F11)
    keys = [page[0x20 + 32 * at :][:32] for at in range(4)]
    assert len(set(keys)) == 4
    assert all(any(key) for key in keys)
    assert not any(page[0xA0:])
    assert Guest().page != page
    assert guest.processor.secrets_page() == page


@pytest.mark.parametrize("level", [1, 2, 3])
def test_below_a_service_module(level):
    guest = Guest(replace(LAUNCH, svsm=control.svsm(level)), number=level)
    page = guest.page
    keys = [page[0x20 + 32 * at :][:32] for at in range(4)]
    assert [any(key) for key in keys] == [at >= level for at in range(4)]
    base, size, area, max_version, vmpl = struct.unpack_from("<QQQIB", page, 0x140)
    assert (base, size, max_version, vmpl) == (0x80_0000_0000, 16 << 20, 1, level)
    assert base < area < base + size
    assert area % 4096 == 0
    assert guest.report(vmpl=level)[0] == 0
    assert guest.report(vmpl=level - 1)[0] == 0x16
    # Nobody without VMPCK 0 has its key.
    zero = sealed(bytes(32), 1, REPORT, report_request())
    assert guest.processor.request(zero).firmware_error == 0x0B


def by_hand(pki, launch, vmrk=None, *, root, fields, vmpl, svn, tcb, vector):
    """The key as docs/simulated.md says it is made."""
    if root == 0:
        reported = pki.chip.tcb
        under = hmac.new(
            pki.chip.secret, b"troth-simulated-vcek-root-v1\0" + reported, "sha384"
        ).digest()
    else:
        under = vmrk
    data = b"troth-simulated-derived-key-v1\0" + struct.pack("<IQI", root, fields, vmpl)
    values = (
        struct.pack("<Q", launch.policy),
        launch.image_id,
        launch.family_id,
        launch.measurement,
        struct.pack("<I", svn),
        struct.pack("<Q", tcb),
        struct.pack("<Q", vector or 0),
    )
    for bit, value in enumerate(values):
        data += value if fields >> bit & 1 else bytes(len(value))
    return hmac.new(under, data, "sha384").digest()[:32]


RICH = replace(LAUNCH, guest_svn=5, family_id=b"f" * 16, image_id=b"i" * 16, launch_mit_vector=7)
TCB = int.from_bytes(platform().chip.tcb, "little")


@given(
    root=st.sampled_from([0, 1]),
    fields=st.integers(0, 127),
    vmpl=st.integers(0, 3),
    svn=st.integers(0, 5),
    tcb=st.sampled_from([0, TCB, 10, 1 << 56]),
    vector=st.none() | st.integers(0, 7),
)
@settings(max_examples=60, deadline=None)
def test_derived_keys_are_made_as_documented(root, fields, vmpl, svn, tcb, vector):
    if vector is None:
        fields &= 63
    vmrk = bytes(range(32))
    guest = Guest(RICH, random=lambda size: vmrk[:size])
    asked = {"root": root, "fields": fields, "vmpl": vmpl, "svn": svn, "tcb": tcb}
    status, key = guest.derived(**asked, vector=vector, version=1 if vector is None else 2)
    assert status == 0
    assert key == by_hand(platform(), RICH, vmrk, **asked, vector=vector)


def test_what_derived_keys_depend_on():
    """The chip's are the same in every launch, the launch's are not; chosen fields tell apart."""
    one, two = Guest(RICH), Guest(RICH)
    assert one.derived(fields=9) == two.derived(fields=9)
    assert one.derived(root=1, fields=9) == one.derived(root=1, fields=9)
    assert one.derived(root=1, fields=9) != two.derived(root=1, fields=9)
    changed = Guest(replace(RICH, measurement=bytes(48)))
    assert changed.derived(fields=8) != one.derived(fields=8)
    assert changed.derived(fields=1) == one.derived(fields=1)
    assert one.derived(svn=1) == one.derived(svn=2)
    assert one.derived(svn=1, fields=16) != one.derived(svn=2, fields=16)
    assert Guest(RICH, pki=other_platform()).derived() != one.derived()


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        (1, {"vmpl": 0}),  # asked under VMPCK 1
        (1, {"vmpl": 4}),
        (1, {"svn": 6}),
        (1, {"tcb": TCB + 1}),
        (1, {"tcb": TCB + (1 << 56)}),
        (1, {"tcb": 1 << 16}),  # a level that Genoa does not have
        (1, {"fields": 64}),
        (1, {"fields": 128}),
        (1, {"fields": 1 << 63}),
        (1, {"vector": 0}),
        (2, {}),
        (2, {"vector": 8}),
        (2, {"vector": 0, "fields": 128}),
    ],
)
def test_keys_beyond_the_guests_own_are_refused(version, fields):
    guest = Guest(RICH, number=1)
    status, key = guest.derived(version=version, **({"vmpl": 1} | fields))
    assert (status, key) == (0x16, bytes(32))
    assert guest.derived(vmpl=1)[0] == 0


def test_a_key_is_bounded_by_the_committed_tcb():
    older = (10).to_bytes(8, "little")
    guest = Guest(replace(RICH, committed_tcb=older))
    assert guest.derived(tcb=10)[0] == 0
    assert guest.derived(tcb=TCB)[0] == 0x16


class Watched(AesGcm):
    """A cipher that refuses what must never happen, and keeps what was sealed."""

    sealed: ClassVar[dict] = {}

    def __init__(self, key):
        super().__init__(key)
        self.secret = key

    def encrypt(self, iv, aad, plaintext):
        known = Watched.sealed.setdefault((self.secret, iv), (aad, plaintext))
        assert known == (aad, plaintext), "two plaintexts under one number"
        return super().encrypt(iv, aad, plaintext)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["new", "again", "skip", "old", "changed", "noise", "twisted"]),
        st.integers(0, 3),
        st.sampled_from([REPORT, KEY, TSC, 1]),
        st.binary(max_size=130),
    ),
    max_size=30,
)


@given(steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_no_number_seals_two_answers(steps):
    """Whatever a host repeats, reorders, alters or withholds, and whatever the guest sends."""
    Watched.sealed = {}
    processor = Processor(LAUNCH, platform(), aead=Watched)
    page = processor.secrets_page()
    keys = [page[0x20 + 32 * at :][:32] for at in range(4)]
    sent = []
    for what, vmpck, kind, payload in steps:
        count = processor.counts[vmpck]
        numbers = {"skip": count + 3, "old": max(count - 1, 1)}
        made = sealed(keys[vmpck], numbers.get(what, count + 1), kind, payload, vmpck=vmpck)
        if what == "again" and sent:
            made = sent[len(payload) % len(sent)]
        elif what == "changed":
            made = made[:96] + bytes((made[96] ^ 1,)) + made[97:]
        elif what == "noise":
            made = payload.ljust(4096, b"\0")
        twist = Twist(wrong_nonce=True, bad_signature=True) if what == "twisted" else Twist()
        before = processor.counts
        answer = processor.request(made, twist=twist)
        sent.append(made)
        moved = [after - was for after, was in zip(processor.counts, before, strict=True)]
        if answer.firmware_error:
            assert moved == [0, 0, 0, 0]
        else:
            assert sorted(moved) == [0, 0, 0, 2]
            assert moved[made[0x3C]] == 2
            opened(
                keys[made[0x3C]],
                answer.page,
                sequence=processor.counts[made[0x3C]],
                kind=made[0x34] + 1,
                vmpck=made[0x3C],
            )
    # Every answer has a number of its own, all even, without gaps.
    for at, key in enumerate(keys):
        used = sorted(struct.unpack("<QI", iv)[0] for k, iv in Watched.sealed if k == key)
        assert used == list(range(2, processor.counts[at] + 1, 2))


@given(data=st.binary(max_size=4200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_answered(data):
    processor = Processor(LAUNCH, platform())
    assert processor.request(data).firmware_error in (0x0B, 0x16)
    assert processor.request(data.ljust(4096, b"\0")[:4096]).firmware_error in (0x0B, 0x16)
    assert processor.counts == (0, 0, 0, 0)


def test_twists():
    pki, other = platform(), other_platform()
    guest = Guest()

    def twisted(**twist):
        return guest.report(more={"twist": Twist(**twist)})

    _, _, report = twisted(wrong_nonce=True)
    assert field(report, "report_data") == bytes(byte ^ 0xFF for byte in NONCE)
    assert holds(report, pki.vcek.certificate)
    _, _, report = twisted(vmpl=3)
    assert number(report, "vmpl") == 3
    assert holds(report, pki.vcek.certificate)
    _, _, report = twisted(bad_signature=True)
    assert not holds(report, pki.vcek.certificate)
    snp_report.parse(report)
    status, size, rest = twisted(status=0x27)
    assert (status, size, any(rest)) == (0x27, 0, False)
    assert twisted(report_bytes=1183)[:2] == (0, 1183)
    _, _, report = guest.report(more={"other": other})
    assert holds(report, other.vcek.certificate)
    assert not holds(report, pki.vcek.certificate)
    assert field(report, "chip_id") == other.chip.chip_id
    assert holds(guest.good_report(), pki.vcek.certificate)


@pytest.mark.parametrize(
    "change",
    [
        {"measurement": bytes(47)},
        {"host_data": bytes(31)},
        {"policy": 1 << 64},
        {"guest_svn": -1},
        {"report_version": 1},
        {"report_version": 6},
        {"current_tcb": bytes(7)},
        {"committed_tcb": b"\xff" * 8},
        {"current_firmware": (1, 2, 256)},
        {"current_firmware": (1, 2)},
        {"svsm": control.svsm(0)},
        {"vlek": True},
    ],
)
def test_launches_that_no_firmware_makes(change):
    with pytest.raises(FormatError) as caught:
        Processor(replace(LAUNCH, **change), platform())
    assert caught.value.code == "sim-launch"


def test_policies_that_no_firmware_takes():
    for policy, code in ((0, "snp-policy-bit-17"), (1 << 40 | 1 << 17, "snp-policy-reserved")):
        with pytest.raises(FormatError) as caught:
            replace(LAUNCH, policy=policy)
        assert caught.value.code == code
    assert number(Guest(replace(LAUNCH, policy=0xB0000)).good_report(), "policy") == 0xB0000


def test_keys_of_the_wrong_length_make_no_cipher():
    with pytest.raises(FormatError) as caught:
        AesGcm(bytes(16))
    assert caught.value.code == "guest-message-key"
    ciphertext, tag = AesGcm(bytes(32)).encrypt(bytes(12), b"aad", b"text")
    assert ciphertext + tag == AESGCM(bytes(32)).encrypt(bytes(12), b"text", b"aad")
    assert len(tag) == 16


def test_the_double_is_strict():
    """The hand-written half refuses what it must, or it would show nothing."""
    page = sealed(bytes(32), 2, REPORT + 1, b"x")
    assert opened(bytes(32), page, sequence=2, kind=REPORT + 1) == b"x"
    with pytest.raises(AssertionError):
        opened(bytes(32), page, sequence=4, kind=REPORT + 1)
    assert made_front.HEAD.size == 32

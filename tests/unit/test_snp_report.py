# SPDX-License-Identifier: Apache-2.0
"""Attestation reports: genuine ones of the vectors, and ones written here field by field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import snp_report as fuzzed
from made_report import DEFAULTS, FIELDS, VECTORS, report, vectors
from troth.abi import snp_report
from troth.errors import FormatError


@pytest.mark.vectors
def test_genuine_reports():
    entries = vectors()["vectors"]
    assert len(entries) >= 6
    for entry in entries:
        data = (VECTORS / f"{entry['id']}.report.bin").read_bytes()
        read = snp_report.parse(data, where=entry["id"])
        assert read.raw == data
        assert read.version == entry["report_version"]
        assert (read.vmpl, read.guest_svn) == (entry["vmpl"], entry["guest_svn"])
        for name in ("policy", "platform_info", "key_info"):
            assert getattr(read, name) == int(entry[name], 16), name
        for name in ("reported_tcb", "current_tcb", "committed_tcb", "launch_tcb"):
            assert getattr(read, name).hex() == entry[name], name
        for name in ("measurement", "report_data", "host_data"):
            assert getattr(read, name).hex() == entry[name], name
        fms = bytes((read.cpuid_family, read.cpuid_model, read.cpuid_stepping))
        assert fms.hex() == entry["fms"]
        assert read.has_cpuid == (entry["report_version"] > 2)
        assert read.launch_mit_vector == int(entry["launch_mit"], 16)
        assert read.signing_key == entry["signer"].lower()
        assert not read.chip_key_masked
        assert read.signature_algo == snp_report.ECDSA_P384_SHA384
        assert 0 < read.signature_r < 2**384
        assert 0 < read.signature_s < 2**384
        assert snp_report.reserved_problems(read) == ()
        assert read.unknown_platform_info == 0


@pytest.mark.vectors
def test_derived_negatives():
    for entry in vectors()["derived_negative"]:
        data = (VECTORS / "negative" / entry["file"]).read_bytes()
        if entry["file"] == "version-1.bin":
            with pytest.raises(FormatError) as caught:
                snp_report.parse(data)
            assert caught.value.code == "snp-report-version"
            continue
        read = snp_report.parse(data)
        if entry["file"] == "sig-algo-2.bin":
            assert read.signature_algo == 2
        if entry["file"] == "sig-zero.bin":
            assert (read.signature_r, read.signature_s) == (0, 0)


def test_every_field_is_read_from_its_place():
    values = {}
    for number, (name, (_, size)) in enumerate(FIELDS.items()):
        filler = bytes((number + 1) * 7 + at & 0xFF for at in range(size))
        values[name] = filler
    values["version"] = (5).to_bytes(4, "little")
    read = snp_report.parse(report(**values))
    for name, raw in values.items():
        number = int.from_bytes(raw, "little")
        if name in ("r", "s"):
            assert getattr(read, f"signature_{name}") == number
        elif name.startswith(("current_", "committed_")) and name.endswith(
            ("major", "minor", "build")
        ):
            which, part = name.split("_")
            assert getattr(getattr(read, f"{which}_firmware"), part) == number
        else:
            found = getattr(read, name)
            assert found == (number if isinstance(found, int) else raw), name


def test_firmware_version_reads_as_people_write_it():
    read = snp_report.parse(report(current_major=1, current_minor=55, current_build=31))
    assert str(read.current_firmware) == "1.55.31"


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_versions_have_what_they_have(version):
    read = snp_report.parse(
        report(version=version, launch_mit_vector=0x0B, current_mit_vector=0x3F)
    )
    assert read.cpuid_family == (0x19 if version > 2 else 0)
    assert read.launch_mit_vector == (0x0B if version == 5 else 0)
    assert read.current_mit_vector == (0x3F if version == 5 else 0)
    problems = snp_report.reserved_problems(read)
    assert len(problems) == (version < 5) + (version == 2)


@pytest.mark.parametrize("version", [0, 1, 6, 7, 0x10003, 2**32 - 1])
def test_unknown_versions_are_refused(version):
    with pytest.raises(FormatError) as caught:
        snp_report.parse(report(version=version), where="r")
    assert caught.value.code == "snp-report-version"


def test_an_all_zero_report_says_why():
    with pytest.raises(FormatError) as caught:
        snp_report.parse(bytes(1184))
    assert caught.value.code == "snp-report-version"
    assert "request" in caught.value.hint


@pytest.mark.parametrize("size", [0, 1, 672, 1183, 1185, 1216, 4000])
def test_other_sizes_are_refused(size):
    with pytest.raises(FormatError) as caught:
        snp_report.parse(report().ljust(size, b"\0")[:size])
    assert caught.value.code == "snp-report-size"


@pytest.mark.parametrize(
    ("key_info", "signing_key", "masked", "author"),
    [
        (0x00, "vcek", False, False),
        (0x04, "vlek", False, False),
        (0x1C, "none", False, False),
        (0x08, "reserved", False, False),
        (0x18, "reserved", False, False),
        (0x02, "vcek", True, False),
        (0x01, "vcek", False, True),
    ],
)
def test_key_info(key_info, signing_key, masked, author):
    read = snp_report.parse(report(key_info=key_info))
    assert read.signing_key == signing_key
    assert read.chip_key_masked is masked
    assert read.author_key_enabled is author
    assert snp_report.reserved_problems(read) == ()


def test_each_reserved_byte_is_seen():
    data = report(version=3)
    used = set()
    for name, (offset, size) in FIELDS.items():
        if not name.endswith("mit_vector"):
            used.update(range(offset, offset + size))
    free = sorted(set(range(1184)) - used)
    assert len(free) == 4 + 21 + 1 + 1 + 16 + 152 + 368
    assert snp_report.reserved_problems(snp_report.parse(data)) == ()
    for at in free:
        changed = bytearray(data)
        changed[at] = 1
        assert len(snp_report.reserved_problems(snp_report.parse(bytes(changed)))) == 1, hex(at)


@pytest.mark.parametrize(
    "fields",
    [
        {"key_info": 0x20},
        {"key_info": 1 << 31},
        {"policy": 0x10000},
        {"policy": 0x30000 | 1 << 26},
        {"policy": 0x30000 | 1 << 63},
    ],
)
def test_reserved_bits(fields):
    assert len(snp_report.reserved_problems(snp_report.parse(report(**fields)))) == 1


def test_bit_six_of_platform_info_is_what_turin_sets():
    assert snp_report.parse(report(platform_info=0x65)).unknown_platform_info == 0
    assert snp_report.parse(report(platform_info=0x165)).unknown_platform_info == 0x100


@given(st.binary(max_size=1300))
def test_arbitrary_bytes(data):
    fuzzed.fuzz(data)


@given(st.integers(0, 1183), st.binary(min_size=1, max_size=8))
def test_mutants(at, change):
    data = bytearray(report(**DEFAULTS))
    data[at : at + len(change)] = change
    fuzzed.fuzz(bytes(data))

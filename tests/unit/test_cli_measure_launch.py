# SPDX-License-Identifier: Apache-2.0
"""``troth measure launch`` and ``troth inspect F firmware``: words in, words out."""

import base64
import hashlib
import json
import os
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import made_firmware as made
from made_firmware import firmware
from troth.abi import ovmf
from troth.abi.kernel_hashes import KernelHashes
from troth.abi.ovmf import Area, Section
from troth.cli.main import main
from troth.documents import launch_parameters
from troth.documents.launch_parameters import (
    FirmwareParameters,
    LaunchParameters,
    Processors,
)
from troth.errors import FormatError
from troth.measure import vcpu

VECTORS = Path(
    os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors")
).joinpath("measure/direct-boot")
DEBIAN = Path("/usr/share/ovmf/OVMF.fd")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "OVMF.fd"
    path.write_bytes(firmware())
    (tmp_path / "kernel").write_bytes(b"kernel")
    (tmp_path / "initrd").write_bytes(b"initrd")
    return path


def run(capsys, *words):
    status = main(["measure", "launch", *(str(word) for word in words)])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def digest(capsys, *words):
    status, out, err = run(capsys, *words)
    assert (status, err) == (0, "")
    return out.removesuffix("\n")


@pytest.mark.vectors
def test_all_vectors(capsys, monkeypatch):
    if not VECTORS.exists():
        pytest.skip(f"no vectors at {VECTORS} (set TROTH_VECTORS)")
    monkeypatch.chdir(VECTORS)
    lines = (VECTORS / "expected.tsv").read_text().splitlines()
    assert len(lines) >= 12
    for line in lines:
        arguments, _, expected = line.partition("\t")
        before, option, cmdline = arguments.partition("--append ")
        # The command line is not quoted there: it ends where the next option begins.
        cmdline, more, rest = cmdline.partition(" --")
        words = shlex.split(before) + ([option.strip(), cmdline] if option else [])
        words += shlex.split(f"--{rest}") if more else []
        words = ["--vmm" if word == "--vmm-type" else word for word in words]
        assert digest(capsys, *words) == expected, line


@pytest.mark.vectors
def test_a_kernel_without_a_place_for_its_hashes(capsys):
    if not VECTORS.exists():
        pytest.skip(f"no vectors at {VECTORS} (set TROTH_VECTORS)")
    tail = VECTORS / "ovmf_OvmfX64_suffix.bin"
    for mode in ("snp", "seves", "sev"):
        words = ("--ovmf", tail, "--vcpus", 1, "--vcpu-type", "EPYC", "--kernel", os.devnull)
        status, out, err = run(capsys, "--mode", mode, *words)
        assert (status, out) == (1, "")
        assert "[firmware-hashes]" in err


def test_ways_to_name_a_processor(capsys, file):
    words = ("--ovmf", file, "--vcpus", 2)
    expected = digest(capsys, *words, "--vcpu-type", "EPYC-Milan")
    for same in (
        ("--vcpu-sig", "0xa00f11"),
        ("--vcpu-sig", "0XA00F11"),
        ("--vcpu-sig", "10489617"),
        ("--vcpu-family", "25", "--vcpu-model", "0x1", "--vcpu-stepping", "1"),
    ):
        assert digest(capsys, *words, *same) == expected
    assert digest(capsys, *words, "--vcpu-sig", "0") != expected
    for vmm in ("ec2", "gce"):
        unnamed = digest(capsys, *words, "--vmm", vmm)
        assert digest(capsys, *words, "--vmm", vmm, "--vcpu-type", "EPYC-Milan") == unnamed


def test_forms_of_the_answer(capsys, file):
    words = ("--ovmf", file, "--vcpus", 1, "--vcpu-type", "EPYC-v4")
    shown = digest(capsys, *words)
    assert len(shown) == 96
    assert shown == shown.lower()
    assert base64.b64decode(digest(capsys, *words, "--format", "base64")).hex() == shown
    tree = json.loads(digest(capsys, *words, "--format", "json"))
    assert tree["digest"] == shown
    assert tree["firmware"]["ovmf_hash"] == digest(
        capsys, "--ovmf", file, "--mode", "snp:ovmf-hash"
    )
    assert tree["kernel"] is None
    assert tree["processors"]["vcpu_type"] == "EPYC-v4"
    assert [item["kind"] for item in tree["firmware"]["sections"]] == [
        *("sec-mem", "sec-mem", "secrets", "cpuid", "svsm-caa", "kernel-hashes", "sec-mem")
    ]


def test_a_known_hash_needs_the_metadata_only(capsys, file, tmp_path):
    words = ("--vcpus", 2, "--vcpu-type", "EPYC-v4", "--kernel", tmp_path / "kernel")
    known = digest(capsys, "--ovmf", file, "--mode", "snp:ovmf-hash")
    other = tmp_path / "other"
    other.write_bytes(firmware(seed=77))
    assert digest(capsys, "--ovmf", other, *words) != digest(capsys, "--ovmf", file, *words)
    for text in (known, known.upper()):
        assert digest(capsys, "--ovmf", other, "--ovmf-hash", text, *words) == digest(
            capsys, "--ovmf", file, *words
        )


def test_parameters_replace_the_firmware(capsys, file, tmp_path):
    boots = ("--kernel", tmp_path / "kernel", "--initrd", tmp_path / "initrd", "--append", "a b")
    shape = ("--vcpus", 2, "--vcpu-type", "EPYC-v4")
    saved = tmp_path / "parameters.json"
    saved.write_text(digest(capsys, "--ovmf", file, *shape, *boots, "--format", "json"))
    given = ("--parameters", saved)
    # The kernel's hashes come from the document, where no kernel is named.
    assert digest(capsys, *given, *shape) == digest(capsys, "--ovmf", file, *shape, *boots)
    other = ("--vcpus", 7, "--vmm", "ec2", "--guest-features", "0x21", "--compat", "virtee-sev")
    assert digest(capsys, *given, *other) == digest(capsys, "--ovmf", file, *other, *boots)
    kernel = (*shape, "--kernel", tmp_path / "initrd")
    assert digest(capsys, *given, *kernel) == digest(capsys, "--ovmf", file, *kernel)
    alone = ("--mode", "snp:ovmf-hash")
    assert digest(capsys, *given, *alone) == digest(capsys, "--ovmf", file, *alone)
    again = digest(capsys, *given, *shape, "--format", "json")
    assert json.loads(again) == json.loads(saved.read_text())


@pytest.mark.parametrize("mode", launch_parameters.MODES)
def test_every_mode_prints_parameters_that_are_read(capsys, file, tmp_path, mode):
    shape = ("--vcpus", 3, "--vcpu-type", "EPYC")
    saved = tmp_path / "parameters.json"
    saved.write_text(digest(capsys, "--ovmf", file, "--mode", mode, *shape, "--format", "json"))
    assert digest(capsys, "--parameters", saved, *shape) == digest(capsys, "--ovmf", file, *shape)
    processors = json.loads(saved.read_text())["processors"]
    features = {"snp": "0x1", "seves": "0x0"}
    assert (processors and processors["guest_features"]) == features.get(mode)


@pytest.mark.parametrize("text", ["0x0800000", "800000", "0X800000", "0x80_000", "0x", "", "8"])
def test_numbers_have_one_spelling(capsys, file, text):
    shape = ("--vcpus", 1, "--vcpu-type", "EPYC")
    tree = json.loads(digest(capsys, "--ovmf", file, *shape, "--format", "json"))
    tree["firmware"]["ap_eip"] = text
    with pytest.raises(FormatError) as caught:
        launch_parameters.parse(json.dumps(tree).encode())
    assert caught.value.code == "launch-parameters"


def test_edited_parameters_are_refused(capsys, file, tmp_path):
    shape = ("--vcpus", 2, "--vcpu-type", "EPYC-v4")
    tree = json.loads(digest(capsys, "--ovmf", file, *shape, "--format", "json"))
    saved = tmp_path / "parameters.json"

    def set_(*path, value):
        edited = json.loads(json.dumps(tree))
        node = edited
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
        saved.write_text(json.dumps(edited))
        status, out, err = run(capsys, "--parameters", saved, *shape)
        assert (status, out) == (1, "")
        return err.partition("[")[2].partition("]")[0]

    other = "00" * 48
    section = {"gpa": "0x800000", "size_bytes": 4096, "kind": "secrets"}
    for path, value, code in (
        (("digest",), other, "launch-parameters"),
        (("firmware", "ovmf_hash"), other, "launch-parameters"),
        (("firmware", "size_bytes"), 4095, "firmware-size"),
        (("firmware", "sections"), [section, section], "firmware-section"),
        (("firmware", "sections"), [{**section, "gpa": "0x800001"}], "firmware-section"),
        (("firmware", "sections"), [{**section, "gpa": "0x0800000"}], "launch-parameters"),
        (("firmware", "sections"), [{**section, "gpa": "-0x1000"}], "launch-parameters"),
        (("firmware", "sections"), [{**section, "gpa": "0x100000000"}], "launch-parameters"),
        (("firmware", "sections"), [{**section, "gpa": "0X800000"}], "launch-parameters"),
        (("firmware", "sections"), [{**section, "gpa": 8388608}], "json-type"),
        (("firmware", "sections"), [{**section, "kind": "other"}], "json-type"),
        (("firmware", "sections"), [{**section, "more": 1}], "json-unknown"),
        (("firmware", "ap_eip"), None, "firmware-reset"),
        (("firmware", "ap_eip"), "", "launch-parameters"),
        (("processors",), None, "launch-parameters"),
        (("processors", "vcpus"), 513, "json-type"),
        (("processors", "vcpus"), 0, "json-type"),
        (("processors", "signature"), None, "launch-parameters"),
        (("processors", "guest_features"), "0x10000000000000000", "launch-parameters"),
        (("mode",), "snp:ovmf-hash", "launch-parameters"),
        (("mode",), "sev", "json-type"),
        (("schema",), "troth-launch-parameters-v2", "json-type"),
        (("more",), 1, "json-unknown"),
    ):
        assert set_(*path, value=value) == code, path
    saved.write_bytes(b" " * (launch_parameters.LIMIT_BYTES + 1))
    assert "[json-size]" in run(capsys, "--parameters", saved, *shape)[2]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--vcpus 1 --vcpu-type EPYC", "launch-input"),
        ("--ovmf F --parameters F --vcpus 1 --vcpu-type EPYC", "launch-input"),
        ("--ovmf F --vcpu-type EPYC", "launch-input"),
        ("--ovmf F --vcpu-type EPYC --mode seves", "launch-input"),
        ("--ovmf F --vcpus 1 --vcpu-type EPYC --initrd F", "launch-input"),
        ("--ovmf F --vcpus 1 --vcpu-type EPYC --append x", "launch-input"),
        ("--ovmf F --vcpus 1 --vcpu-type EPYC --mode sev --append x", "launch-input"),
        ("--ovmf F --vcpus 1 --vcpu-type EPYC --vcpu-sig 1", "launch-input"),
        ("--ovmf F --vcpus 1 --vcpu-type EPYC --vcpu-stepping 1", "launch-input"),
        ("--ovmf F --vcpus 1 --vcpu-family 25 --vcpu-model 1", "launch-input"),
        ("--ovmf F --vcpus 1 --vcpu-type EPYC --mode seves --ovmf-hash 00", "launch-input"),
        ("--parameters F --vcpus 1 --vcpu-type EPYC --mode sev", "launch-input"),
        ("--parameters F --vcpus 1 --vcpu-type EPYC --mode seves", "launch-input"),
        ("--parameters F --vcpus 1 --vcpu-type EPYC --ovmf-hash 00", "launch-input"),
        ("--ovmf F --vcpus 1", "vcpu-type"),
        ("--ovmf F --vcpus 1 --mode seves", "vcpu-type"),
        ("--ovmf F --vcpus 1 --vcpu-type EPIC", "vcpu-type"),
        ("--ovmf F --vcpus 0 --vcpu-type EPYC", "vcpu-count"),
        ("--ovmf F --vcpus 513 --vcpu-type EPYC", "vcpu-count"),
        ("--ovmf F --vcpus 513 --mode sev", "vcpu-count"),
        ("--ovmf F --vcpus -1 --vcpu-type EPYC", "vcpu-count"),
        ("--ovmf F --vcpus 1 --vcpu-sig 0x100000000", "launch-number"),
        ("--ovmf F --vcpus 1 --vcpu-sig 1_0", "launch-number"),
        ("--ovmf F --vcpus 1 --vcpu-sig ten", "launch-number"),
        ("--ovmf F --vcpus 1 --vcpu-sig 0x", "launch-number"),
        ("--ovmf F --vcpus 1 --vcpu-sig ''", "launch-number"),
        ("--ovmf F --vcpus 1 --vcpu-family 271 --vcpu-model 1 --vcpu-stepping 1", "vcpu-signature"),
        ("--ovmf F --vcpus 1 --vcpu-family 25 --vcpu-model 256 --vcpu-stepping 1", "vcpu-sig"),
        ("--ovmf F --vcpus 1 --vcpu-type EPYC --guest-features 0x10000000000000000", "launch-num"),
        ("--ovmf F --vcpus 1 --vcpu-type EPYC --guest-features ٣", "launch-number"),
        ("--ovmf F --vcpus 1 --vcpu-type EPYC --ovmf-hash 00", "launch-number"),
        (f"--ovmf F --vcpus 1 --vcpu-type EPYC --ovmf-hash {'0g' * 48}", "launch-number"),
        ("--ovmf F --vcpus 1 --vcpu-type EPYC --vmm krun", "usage"),
        ("--ovmf F --vcpus 1 --vcpu-type EPYC --mode snp:svsm", "usage"),
    ],
)
def test_requests_that_are_wrong(capsys, file, words, code):
    named = [str(file) if word == "F" else word for word in shlex.split(words)]
    status, out, err = run(capsys, *named)
    assert (status, out) == (2, ""), err
    assert f"[{code}" in err


def test_the_nearest_processor_type_is_named(capsys, file):
    assert (
        "did you mean EPYC-Genoa?"
        in run(capsys, "--ovmf", file, "--vcpus", 1, "--vcpu-type", "EPYC-Geona")[2]
    )


@pytest.mark.parametrize("option", ["--ovmf", "--parameters", "--kernel"])
def test_files_that_are_not_there(capsys, file, tmp_path, option):
    words = ["--vcpus", 1, "--vcpu-type", "EPYC", option, tmp_path / "absent"]
    words += ["--ovmf", file] if option == "--kernel" else []
    status, out, err = run(capsys, *words)
    assert (status, out) == (1, "")
    assert "absent" in err


def test_notes_go_to_standard_error(capsys, tmp_path):
    path = tmp_path / "old.fd"
    path.write_bytes(firmware(sections=None))
    words = ("--ovmf", path, "--vcpus", 1, "--vcpu-type", "EPYC")
    status, out, err = run(capsys, *words, "--guest-features", "0x20")
    assert (status, len(out)) == (0, 97)
    assert "no SEV metadata" in err
    assert "bit 0 of --guest-features" in err


def test_firmware_without_a_table_is_of_use_under_plain_sev_only(capsys, tmp_path):
    path = tmp_path / "bios.bin"
    path.write_bytes(b"\xf4" * 4096)
    words = ("--ovmf", path, "--vcpus", 1, "--vcpu-type", "EPYC")
    expected = hashlib.sha256(b"\xf4" * 4096).hexdigest()
    assert digest(capsys, *words, "--mode", "sev") == expected
    for more in (["--mode", "sev", "--kernel", path], ["--mode", "seves"], []):
        status, _, err = run(capsys, *words, *more)
        assert status == 1
        assert "[firmware-footer]" in err


def test_inspecting_firmware(capsys, file):
    assert main(["inspect", str(file), "firmware"]) == 0
    out = capsys.readouterr().out
    assert "further processors start at 0x80b004" in out
    assert "1024 bytes at 0x810c00" in out
    rows = [line.split() for line in out.splitlines() if line.startswith("section")]
    assert [(int(row[2], 16), int(row[3]) * 4096) for row in rows] == [
        item[:2] for item in made.MIDDLE
    ]
    assert "it cannot" not in out
    assert main(["inspect", str(file), "firmware", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["hashes_area"] == {"gpa": 0x810C00, "size_bytes": 1024}
    assert all(use["possible"] for use in tree["uses"])
    assert [item["name"] for item in tree["entries"]] == [
        *("sev-es-reset-block", "launch-secret-area", "kernel-hashes-area", "sev-metadata")
    ]


def test_inspecting_firmware_that_can_do_less(capsys, tmp_path):
    path = tmp_path / "OVMF.fd"
    extra = [(made.IGVM, b"12"), ("00000000-0000-0000-0000-000000000001", b"")]
    path.write_bytes(firmware(sections=made.PLAIN, area=(0, 0), eip=None, extra=extra))
    assert main(["inspect", str(path), "firmware"]) == 0
    out = capsys.readouterr().out
    assert out.count("it cannot") == 4
    assert "no such area (0, 0)" in out
    assert "igvm-parameter-list: 2 bytes, not read" in out
    assert "00000000-0000-0000-0000-000000000001 unknown: 0 bytes" in out
    assert main(["inspect", str(path), "firmware", "--json"]) == 0
    uses = {item["name"]: item for item in json.loads(capsys.readouterr().out)["uses"]}
    assert uses["snp-kernel"]["possible"] is False
    assert "kernel hashes" in uses["snp-kernel"]["obstacle"]


@pytest.mark.tool
def test_debians_own_firmware_cannot_measure_a_kernel(capsys):
    if not DEBIAN.exists():
        pytest.skip("needs the package ovmf")
    assert main(["inspect", str(DEBIAN), "firmware"]) == 0
    out = capsys.readouterr().out
    assert "it can be started as an SEV-SNP guest" in out
    assert "it cannot measure kernel, initrd and command line under SEV-SNP" in out
    words = ("--ovmf", DEBIAN, "--vcpus", 1, "--vcpu-type", "EPYC-v4", "--kernel", os.devnull)
    assert run(capsys, *words)[0] == 1


def sections():
    kinds = st.sampled_from(sorted(ovmf.SECTION_KINDS))
    return st.lists(kinds, max_size=6, unique=True).map(
        lambda found: tuple(
            Section(gpa=0x800000 + at * 0x5000, size_bytes=0x1000, kind=kind)
            for at, kind in enumerate(found)
        )
    )


WORD = st.integers(0, 2**32 - 1)
SHA256 = st.binary(min_size=32, max_size=32)
PARAMETERS = st.builds(
    lambda mode, digest, firmware, kernel, processors: LaunchParameters(
        mode=mode,
        digest=digest if mode.startswith("snp") else digest[:32],
        firmware=firmware,
        kernel=kernel,
        processors=processors if mode in ("snp", "seves") else None,
    ),
    st.sampled_from(launch_parameters.MODES),
    st.binary(min_size=48, max_size=48),
    st.builds(
        FirmwareParameters,
        ovmf_hash=st.binary(min_size=48, max_size=48),
        size_bytes=st.integers(1, 4096).map(lambda pages: pages * 4096),
        sections=sections(),
        hashes_area=st.none() | st.builds(Area, gpa=WORD, size_bytes=WORD),
        ap_eip=st.none() | WORD,
    ),
    st.none() | st.builds(KernelHashes, kernel=SHA256, initrd=SHA256, cmdline=SHA256),
    st.builds(
        Processors,
        vcpus=st.integers(1, 512),
        signature=WORD,
        vcpu_type=st.sampled_from(["", *vcpu.SIGNATURES]),
        vmm=st.sampled_from(vcpu.VMMS),
        guest_features=st.integers(0, 2**64 - 1),
        compat=st.sampled_from(vcpu.COMPATS),
    ),
)


@given(PARAMETERS)
def test_parameters_round_trip(parameters):
    assert launch_parameters.parse(launch_parameters.print_(parameters)) == parameters


@settings(max_examples=150)
@given(PARAMETERS, st.data())
def test_mutated_parameters_are_refused_or_read(parameters, data):
    text = bytearray(launch_parameters.print_(parameters))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        read = launch_parameters.parse(bytes(text))
    except FormatError:
        return
    assert launch_parameters.parse(launch_parameters.print_(read)) == read

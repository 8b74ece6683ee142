# SPDX-License-Identifier: Apache-2.0
"""Launch digests of a bundle: against sev-snp-measure, and against the bundle changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from sevsnpmeasure import guest
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS
from sevsnpmeasure.vmm_types import VMMType

import made_bundle
from made_firmware import PLAIN, firmware
from troth.abi.igvm import headers
from troth.abi.igvm.file import FileSource, open_
from troth.documents import policy_json, reference_values_json
from troth.documents.reference_values import launch_cmdline
from troth.documents.verdict import FAIL, NOT_CHECKED, PASS
from troth.errors import BuildError, FormatError, UsageError
from troth.image import launch_files, launch_values, reference, reference_bundle
from troth.image.inputs import manifest
from troth.record import replace

OVMF = 'ovmf = "OVMF.fd"\nvcpus = [1, 3]\ncpu_types = ["EPYC-v4", "EPYC-Milan", "EPYC-v3"]\n'
OVMF += "guest_features = [0x1, 0x21]\nproducts = ['Genoa']\n"
IGVM = 'vcpus = [1, 2]\nmemory = "128M"\ncpu_types = ["EPYC-v4", "EPYC-Milan"]\n'
IGVM += "policy = 0x130000\n"
VARIABLE = {"app.mode": ("blue", "green")}


@pytest.fixture(scope="module")
def ovmf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ovmf") / "out"
    return folder, made_bundle.make(folder, launch=OVMF, variable=VARIABLE)


@pytest.fixture(scope="module")
def igvm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("igvm") / "out"
    return folder, made_bundle.make(folder, image="igvm = true", launch=IGVM)


def verdicts(folder, values):
    return {item.name: item for item in reference_bundle.compare(folder, values)}


def failures(folder, values):
    return {
        item.name: item.code
        for item in reference_bundle.compare(folder, values)
        if item.verdict == FAIL
    }


@pytest.mark.parametrize("name", ["vmlinuz", "initramfs", "policy.json", "root.img", "guest.igvm"])
@pytest.mark.parametrize("kind", ["endless", "pipe", "folder"])
def test_what_is_no_file_is_not_read(igvm, tmp_path, name, kind):
    folder, values = igvm
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).unlink()
    match kind:
        case "endless":
            (copy / name).symlink_to("/dev/zero")
        case "pipe":
            os.mkfifo(copy / name)
        case "folder":
            (copy / name).mkdir()
    with pytest.raises(FormatError) as caught:
        reference_bundle.compare(copy, values)
    assert (caught.value.code, caught.value.where) == ("bundle-file", str(copy / name))


def test_another_kernel_is_hashed_and_not_loaded(igvm, tmp_path):
    folder, values = igvm
    copy = shutil.copytree(folder, tmp_path / "copy")
    os.truncate(copy / "vmlinuz", 1 << 28)  # sparse
    found = verdicts(copy, values)
    assert found["file vmlinuz"].code == "reference-differs"
    content = found["content of guest.igvm"]
    assert (content.code, "not the stated ones" in content.detail) == ("reference-differs", True)


# --- direct boot ----------------------------------------------------------------------------


def test_every_combination_has_its_value(ovmf):
    _folder, values = ovmf
    found = {
        (value.cmdline, value.vcpus, value.cpu_types, value.guest_features)
        for value in values.launch
    }
    text = "console=ttyS0 quiet app.mode={} initrd=initrd"
    assert found == {
        (text.format(mode), vcpus, names, features)
        for mode in ("blue", "green")
        for vcpus in (1, 3)
        for names in (("EPYC-v4", "EPYC-v3"), ("EPYC-Milan",))
        for features in (1, 0x21)
    }
    assert len({value.digest for value in values.launch}) == len(values.launch) == 16
    assert values.products == ("Genoa",)


def test_digests_are_those_of_sev_snp_measure(ovmf):
    folder, values = ovmf
    for value in values.launch:
        expected = guest.calc_launch_digest(
            SevMode.SEV_SNP,
            value.vcpus,
            CPU_SIGS[value.cpu_types[0]],
            str(folder.parent / "OVMF.fd"),
            str(folder / "vmlinuz"),
            str(folder / "initramfs"),
            launch_cmdline(value),
            value.guest_features,
            vmm_type=VMMType.QEMU,
        )
        assert value.digest == expected.hex()
        assert value.vcpu_signature == CPU_SIGS[value.cpu_types[-1]]


def test_a_value_says_what_it_covers(ovmf):
    _folder, values = ovmf
    for value in values.launch:
        assert value.roots_boot_chain
        assert value.kind == "ovmf"
        assert value.file == "OVMF.fd"
        assert value.acpi_aml == "unprotected"
        assert not value.experimental


def test_the_document_of_a_build_has_no_dates_and_survives(ovmf):
    folder, values = ovmf
    assert (values.issued, values.expires, values.commit) == ("", "", "")
    assert values.platform == "none"
    data = (folder / "reference-values.json").read_bytes()
    assert reference_values_json.parse(data) == values
    inputs = dict(values.inputs)
    firmware_bytes = (folder.parent / "OVMF.fd").read_bytes()
    assert inputs["OVMF.fd"] == hashlib.sha256(firmware_bytes).hexdigest()
    assert set(inputs) == {"troth.toml", "troth.lock", "OVMF.fd"}
    assert dict(values.artefacts).keys() >= {"vmlinuz", "firmware-parameters.json"}


def test_an_unchanged_bundle_agrees_without_its_firmware(ovmf, tmp_path):
    folder, values = ovmf
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    found = verdicts(copy, values)
    assert {item.verdict for item in found.values()} == {PASS, NOT_CHECKED}
    left_out = {name for name, item in found.items() if item.verdict == NOT_CHECKED}
    inputs = {"input troth.toml", "input troth.lock", "input OVMF.fd"}
    assert left_out == {*inputs, "guest policy of direct boots"}
    for value in values.launch:
        assert found[f"launch {value.digest[:16]}"].verdict == PASS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vmlinuz", "launch"),
        ("initramfs", "policy in the initramfs"),
        ("cmdline", "file cmdline"),
        ("root.img", "root hash of root"),
        ("firmware-parameters.json", "firmware parameters"),
    ],
)
def test_a_changed_file_is_named(ovmf, tmp_path, name, expected):
    folder, values = ovmf
    copy = shutil.copytree(folder, tmp_path / "copy")
    data = bytearray((copy / name).read_bytes())
    # in the middle of a digest, for the parameters
    at = data.index(b"ovmf_hash") + 20 if b"ovmf_hash" in data else len(data) // 3
    data[at] = ord("0") if data[at] != ord("0") else ord("1")
    (copy / name).write_bytes(data)
    found = failures(copy, values)
    assert found[f"file {name}"] == "reference-differs"
    assert any(key.startswith(expected) for key in found), found


@pytest.mark.parametrize("name", ["vmlinuz", "initramfs", "root.img", "firmware-parameters.json"])
def test_a_missing_file_is_named(ovmf, tmp_path, name):
    folder, values = ovmf
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).unlink()
    found = failures(copy, values)
    assert found[f"file {name}"] == "reference-differs"
    if name == "firmware-parameters.json":
        assert "reference-firmware" in found.values()
    assert len(found) > 1


def test_another_policy_changes_everything(ovmf, tmp_path):
    _folder, values = ovmf
    made_bundle.make(tmp_path / "out", launch=OVMF, variable=VARIABLE, svn=9)
    found = failures(tmp_path / "out", values)
    assert {"policy digest", "stated svn", "registers", "file policy.json"} <= set(found)
    assert sum(name.startswith("launch ") for name in found) == 16


def test_no_bundle(tmp_path, ovmf):
    with pytest.raises(UsageError) as caught:
        reference_bundle.compare(tmp_path, ovmf[1])
    assert caught.value.code == "bundle-missing"


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "0" * 96},
        {"ovmf_hash": "0" * 96},
        {"vcpus": 2},
        {"cpu_types": ("EPYC-Turin",)},
        {"cpu_types": ("Xeon",)},
        {"cpu_types": ("EPYC-Genoa",), "vcpu_signature": 0xA10F10},
        {"guest_features": 0x29},
        {"vmm": "gce"},
        {"acpi_aml": "off"},
        {"covers": ("kernel", "initramfs", "cmdline", "acpi")},
        {"covers": ()},
        {"platform": "svsm"},
        {"cmdline": "console=ttyS0 quiet app.mode=red initrd=initrd"},
    ],
)
def test_a_statement_that_the_bundle_does_not_bear(ovmf, changes):
    folder, values = ovmf
    launch = replace(values.launch[0], **changes)
    found = failures(folder, replace(values, launch=(launch,)))
    assert found == {f"launch {launch.digest[:16]}": "reference-differs"}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"svn": 2}, "stated svn"),
        ({"image_name": "other"}, "stated image_name"),
        ({"platform": "direct"}, "stated platform"),
        ({"policy_sha256": "0" * 64}, "policy digest"),
        ({"root_hashes": ()}, "root hashes of the policy"),
        ({"cases": ()}, "registers"),
    ],
)
def test_a_stated_value_that_the_bundle_does_not_bear(ovmf, changes, name):
    folder, values = ovmf
    assert name in failures(folder, replace(values, launch=(), **changes))


@pytest.mark.parametrize(
    "changes",
    [{"acpi_aml": "off"}, {"cryptomgr_notests": True}, {"unsigned_modules": True},
     {"lockdown": "none"}, {"unauthenticated_volumes": ("x",)},
     {"untracked_volumes": ("x",)}],
)  # fmt: skip
def test_flags_are_computed(ovmf, changes):
    folder, values = ovmf
    other = replace(values, launch=(), flags=replace(values.flags, **changes))
    assert failures(folder, other) == {"flags": "reference-differs"}


@pytest.mark.parametrize(
    ("word", "off"),
    [("cryptomgr.notests", True), ("cryptomgr.notests=1", True), ("cryptomgr.notests=Y", True),
     ("cryptomgr.notests=on", True), ("cryptomgr.notests=", True), ("cryptomgr.notests=0", False),
     ("cryptomgr.notests=N", False), ("cryptomgr.notests=off", False), ("quiet", False),
     ("x.cryptomgr.notests", False)],
)  # fmt: skip
def test_an_unsigned_module_and_notests_are_flagged(word, off):
    """S42: the flag comes from the command line that is measured."""
    made = replace(made_bundle.policy(vtpm="none"), cmdline=f"a {word}", cmdline_forms=("plain",))
    assert reference.flags(made, unsigned_modules=True).cryptomgr_notests is off
    assert reference.flags(made, unsigned_modules=True).unsigned_modules


def test_firmware_that_cannot_measure_a_kernel(tmp_path):
    (tmp_path / "plain.fd").write_bytes(firmware(sections=PLAIN, area=(0, 0)))
    with pytest.raises(FormatError) as caught:
        made_bundle.make(tmp_path / "out", launch='ovmf = "plain.fd"')
    assert caught.value.code == "firmware-hashes"


def test_firmware_that_is_not_there(tmp_path):
    with pytest.raises(BuildError) as caught:
        made_bundle.make(tmp_path / "out", launch='ovmf = "other.fd"')
    assert caught.value.code == "source-missing"
    assert caught.value.where.endswith("troth.toml:14")


def test_more_digests_than_a_document_holds(tmp_path):
    many = ", ".join(str(number) for number in range(1, 513))
    with pytest.raises(BuildError) as caught:
        made_bundle.make(
            tmp_path / "out",
            launch=f'ovmf = "OVMF.fd"\nvcpus = [{many}]\nguest_features = [1, 3, 5, 9, 17]\n',
            variable=VARIABLE,
        )
    assert caught.value.code == "reference-launches"


# --- IGVM -----------------------------------------------------------------------------------


def test_each_shape_is_a_file(igvm):
    folder, values = igvm
    assert sorted(path.name for path in folder.glob("*.igvm")) == [
        "guest-2x128M.igvm",
        "guest.igvm",
    ]
    # One processor: no reset state of KVM's in the digest, so no processor type either.
    assert [(item.file, item.vcpus, item.cpu_types) for item in values.launch] == [
        ("guest.igvm", 1, ()),
        ("guest-2x128M.igvm", 2, ("EPYC-v4",)),
        ("guest-2x128M.igvm", 2, ("EPYC-Milan",)),
    ]
    assert len({item.digest for item in values.launch}) == 3
    assert {item.memory_bytes for item in values.launch} == {128 << 20}


def test_what_an_igvm_value_says(igvm):
    folder, values = igvm
    for item in values.launch:
        assert item.roots_boot_chain
        assert (item.policy, item.guest_features, item.form) == (0x130000, 1, "plain")
        assert item.acpi_aml == "measured-tables"
        assert "never launched" in item.experimental
    assert (
        dict(values.artefacts)["guest.igvm"] == made_bundle.artefact(folder / "guest.igvm").sha256
    )
    with (folder / "guest.igvm").open("rb") as file:
        opened = open_(FileSource(file.fileno()))
        policies = [item for item in opened.headers() if isinstance(item, headers.GuestPolicy)]
    assert [item.policy for item in policies] == [0x130000]


def test_an_igvm_bundle_agrees_and_a_changed_file_does_not(igvm, tmp_path):
    folder, values = igvm
    copy = shutil.copytree(folder, tmp_path / "copy")
    one = replace(values, launch=values.launch[:1], artefacts=values.artefacts[:6])
    assert failures(copy, one) == {}
    # A whole file of another shape under the name: its own checksum is right.
    shutil.copy(folder / "guest-2x128M.igvm", copy / "guest.igvm")
    found = failures(copy, one)
    assert set(found) == {
        "file guest.igvm", f"launch {one.launch[0].digest[:16]}", "content of guest.igvm",
    }  # fmt: skip
    (copy / "guest.igvm").write_bytes(b"IGVM")
    assert failures(copy, one)[f"launch {one.launch[0].digest[:16]}"].startswith("igvm-")


@pytest.mark.parametrize(("vtpm", "told"), [("none", False), ("optional", True)])
def test_an_igvm_file_tells_of_a_tpm_where_the_image_uses_one(tmp_path, vtpm, told):
    folder = tmp_path / "out"
    values = made_bundle.make(folder, image="igvm = true", launch='memory = ["128M"]', vtpm=vtpm)
    data = (folder / "guest.igvm").read_bytes()
    assert (b"TPM2" in data, b"MSFT0101" in data) == (told, told)
    assert failures(folder, values) == {}


def test_igvm_statements_that_the_file_does_not_bear(igvm):
    folder, values = igvm
    policy = policy_json.parse((folder / "policy.json").read_bytes())
    for changes in ({"policy": 0x30000}, {"guest_features": 0x21}, {"covers": ("kernel",)},
                    {"acpi_aml": "off"}):  # fmt: skip
        launch = replace(values.launch[0], **changes)
        found = reference_bundle._launch(folder, launch, policy=policy, boot=None)
        assert (found.verdict, found.code) == (FAIL, "reference-differs"), changes


def test_an_igvm_file_that_nothing_is_stated_of(igvm):
    folder, values = igvm
    other = replace(values, launch=())
    assert failures(folder, other)["launch digest of guest.igvm"] == "reference-differs"


def test_an_igvm_made_by_another_troth_is_said(igvm, tmp_path):
    folder, values = igvm
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.copy(folder / "guest-2x128M.igvm", copy / "guest.igvm")
    one = replace(values, launch=values.launch[:1], troth_version="9.9")
    found = verdicts(copy, one)["content of guest.igvm"]
    assert found.verdict == NOT_CHECKED
    assert "9.9" in found.detail


def test_names_of_shapes():
    text = made_bundle.MANIFEST.format(
        image="igvm = true", launch='vcpus = [4, 1]\nmemory = ["1G", "1536M", "2048M"]'
    )
    launch = manifest.parse(text.encode(), Path("troth.toml")).launch
    assert [shape.file for shape in launch_values.shapes(launch)] == [
        "guest.igvm", "guest-4x1536M.igvm", "guest-4x2G.igvm",
        "guest-1x1G.igvm", "guest-1x1536M.igvm", "guest-1x2G.igvm",
    ]  # fmt: skip


def test_two_builds_are_the_same(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made_bundle.make(
            tmp_path / name / "out",
            image="igvm = true",
            launch='ovmf = "OVMF.fd"\nmemory = "128M"\n',
        )
    one, other = tmp_path / "a/out", tmp_path / "b/out"
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def test_warnings(tmp_path):
    text = made_bundle.MANIFEST.format(image="igvm = true", launch="policy = 0xB0000")
    parsed = manifest.parse(text.encode(), tmp_path / "troth.toml")
    said = " ".join(launch_files._warnings(parsed))
    for words in ("DEBUG", 'snp = "none"', "never launched on SNP hardware"):
        assert words in said


def test_the_parameters_file_is_what_measure_launch_takes(ovmf, capsys):
    """A relying party can go on from the bundle with the tool it already has."""
    from troth.cli.main import main

    folder, values = ovmf
    value = values.launch[0]
    words = ["measure", "launch", "--parameters", str(folder / "firmware-parameters.json")]
    words += ["--kernel", str(folder / "vmlinuz"), "--initrd", str(folder / "initramfs")]
    words += ["--append", launch_cmdline(value), "--vcpus", str(value.vcpus)]
    words += ["--vcpu-type", value.cpu_types[0], "--guest-features", hex(value.guest_features)]
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == value.digest
    assert json.loads((folder / "firmware-parameters.json").read_bytes())["mode"]

# SPDX-License-Identifier: Apache-2.0
"""Digests of direct boots: sev-snp-measure as oracle over a matrix, and published values."""

import hashlib
import itertools
import os
import random
from pathlib import Path

import pytest
from sevsnpmeasure import guest
from sevsnpmeasure.sev_hashes import SevHashes
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS
from sevsnpmeasure.vmm_types import VMMType

import made_firmware as made
from made_firmware import firmware
from troth.abi import kernel_hashes
from troth.abi.kernel_hashes import KernelHashes
from troth.documents.launch_parameters import Processors
from troth.errors import FormatError, UsageError
from troth.image import firmware as firmware_file
from troth.measure import direct_boot
from troth.record import replace

VECTORS = Path(
    os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors")
).joinpath("measure/direct-boot")

FIRMWARES = {
    "middle": {},
    "last": {"sections": made.LAST, "size": 16384, "seed": 2},
    "plain": {"sections": made.PLAIN, "area": (0, 0), "inject": (0, 0)},
    "svsm": {"sections": made.SVSM, "size": 4096, "extra": [(made.TDX, b"\0\1\2\3")]},
    "no area": {"area": None, "size": 12288},
    "no reset block": {"eip": None},
    "reset at zero": {"eip": 0},
    "other reset": {"eip": 0xABCD1234, "size": 65536, "seed": 3, "sections": made.LAST},
    "no metadata": {"sections": None},
    "empty metadata": {"sections": ()},
    "hashes at the end of a page": {"area": (0x810F50, 176), "extra": [(made.IGVM, b"12345")]},
}
FEATURES = (1, 0, 0x21, 0x29, 0x8001, 2**64 - 1)
VCPUS = (1, 2, 3, 4, 7, 64)
CMDLINES = (None, "", "console=ttyS0 loglevel=7", "root=/dev/vda ro", "é ü")
MODES = {"snp": SevMode.SEV_SNP, "seves": SevMode.SEV_ES, "sev": SevMode.SEV}
VMMS = {"qemu": VMMType.QEMU, "ec2": VMMType.ec2, "gce": VMMType.gce}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Every firmware, and things to boot."""
    folder = tmp_path_factory.mktemp("direct-boot")
    for name, options in FIRMWARES.items():
        (folder / name).write_bytes(firmware(**options))
    if VECTORS.exists():
        for tail in VECTORS.glob("*.bin"):
            (folder / tail.name).write_bytes(tail.read_bytes())
    (folder / "empty").write_bytes(b"")
    (folder / "kernel").write_bytes(random.Random(7).randbytes(70001))
    (folder / "initrd").write_bytes(random.Random(8).randbytes(3))
    return folder


def theirs(folder, name, *, mode, vcpus, signature, features, vmm, kernel, initrd, append, known):
    """sev-snp-measure's answer; None where it gives none."""
    try:
        return guest.calc_launch_digest(
            MODES[mode],
            vcpus,
            signature,
            str(folder / name),
            kernel and str(folder / kernel),
            initrd and str(folder / initrd),
            append,
            features,
            snp_ovmf_hash_str=known.hex(),
            vmm_type=VMMS[vmm],
        )
    except (RuntimeError, AttributeError):
        return None


def ours(folder, name, *, mode, vcpus, signature, features, vmm, kernel, initrd, append, known):
    path = folder / name
    processors = Processors(vcpus=vcpus, signature=signature, vmm=vmm, guest_features=features)
    try:
        read = firmware_file.read(path)
        hashes = kernel and firmware_file.kernel_hashes(
            folder / kernel, initrd=initrd and folder / initrd, cmdline=append
        )
        if mode == "snp":
            start = known or firmware_file.ovmf_hash(path, read)
            parameters = direct_boot.firmware_parameters(read, ovmf_hash=start)
            return direct_boot.digest(parameters, processors, kernel=hashes)
        return direct_boot.older_digest(
            firmware_file.chunks(path),
            hashes_area=read.hashes_area,
            ap_eip=read.ap_eip,
            kernel=hashes,
            processors=processors if mode == "seves" else None,
        )
    except FormatError as error:
        assert error.code in ("firmware-hashes", "firmware-reset")
        return None


def matrix(names):
    """Parameter sets: each firmware in each mode under each monitor, the rest in turns."""
    types = itertools.cycle(CPU_SIGS.values())
    turns = random.Random(11)
    for name, mode, vmm in itertools.product(names, MODES, VMMS):
        for kernel in (None, "kernel", "empty"):
            yield (
                name,
                {
                    "mode": mode,
                    "vcpus": turns.choice(VCPUS),
                    "signature": next(types),
                    "features": turns.choice(FEATURES),
                    "vmm": vmm,
                    "kernel": kernel,
                    "initrd": turns.choice((None, "initrd", "empty")) if kernel else None,
                    "append": turns.choice(CMDLINES) if kernel else None,
                    "known": turns.choice((b"", bytes(range(48)))) if mode == "snp" else b"",
                },
            )
    for signature, features in itertools.product(CPU_SIGS.values(), FEATURES):
        yield (
            "last",
            {
                "mode": "snp",
                "vcpus": 2,
                "signature": signature,
                "features": features,
                "vmm": "qemu",
                "kernel": "kernel",
                "initrd": "initrd",
                "append": "quiet",
                "known": b"",
            },
        )
    for vcpus, vmm in ((512, "qemu"), (511, "ec2"), (255, "gce"), (1, "qemu")):
        yield (
            "middle",
            {
                "mode": "snp",
                "vcpus": vcpus,
                "signature": 0,
                "features": 1,
                "vmm": vmm,
                "kernel": None,
                "initrd": None,
                "append": None,
                "known": b"",
            },
        )


def test_agrees_with_sev_snp_measure(files):
    names = sorted(path.name for path in files.iterdir() if path.stat().st_size >= 4096)
    names.remove("kernel")
    sets = agreed = refused = 0
    for name, parameters in matrix(names):
        expected = theirs(files, name, **parameters)
        if name == "empty metadata" and parameters["kernel"] and parameters["mode"] == "snp":
            assert expected is None
        assert ours(files, name, **parameters) == expected, (name, parameters)
        sets += 1
        agreed += expected is not None
        refused += expected is None
    assert sets >= 400
    assert agreed >= 300
    assert refused >= 30


def test_the_hash_of_the_firmware_alone(files):
    for name in FIRMWARES:
        path = files / name
        found = firmware_file.ovmf_hash(path, firmware_file.read(path))
        assert found == guest.calc_snp_ovmf_hash(str(path))


@pytest.mark.vectors
def test_published_digests():
    if not VECTORS.exists():
        pytest.skip(f"no vectors at {VECTORS} (set TROTH_VECTORS)")
    # virtee/sev, tests/measurement.rs: one processor EPYC-v4, kernel and initrd empty files.
    parameters = firmware_file.parameters(VECTORS / "ovmf_AmdSev_suffix.bin")
    kernel = firmware_file.kernel_hashes(Path(os.devnull), initrd=Path(os.devnull), cmdline=None)
    one = Processors(vcpus=1, signature=CPU_SIGS["EPYC-v4"])
    ec2 = replace(one, vmm="ec2", compat="virtee-sev")
    for processors, boots, expected in (
        (one, kernel, "ddc5224521617a536ee7ce9dd6224d1b58a8d4fda1c741f3ac99fc4bfa04ba6e"),
        (one, None, "19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6013b26869a5fc6ec"),
        (ec2, kernel, "7d3756157c805bf6adf617064c8552e8c1688fa1c8756f11cbf56ba5d25c9270"),
        (
            replace(ec2, guest_features=0x21),
            kernel,
            "6ae80856486b1396af8c82a40351d6ed76a20c785e9c7fa4ffa27c22d5d6313b",
        ),
    ):
        found = direct_boot.digest(parameters, processors, kernel=boots)
        assert found.hex().startswith(expected)
    four = direct_boot.older_digest(
        firmware_file.chunks(VECTORS / "ovmf_AmdSev_suffix.bin"),
        hashes_area=parameters.hashes_area,
        ap_eip=parameters.ap_eip,
        kernel=kernel,
        processors=replace(one, vcpus=4),
    )
    assert four.hex() == "0dccbcaba8e90b261bd0d2e1863a2f9da714768b7b2a19363cd6ae35aa90de91"


def test_the_table_of_hashes(files):
    for kernel, initrd, cmdline in (
        ("kernel", "initrd", "a b"),
        ("empty", None, None),
        ("empty", "empty", "console=ttyS0 loglevel=7"),
    ):
        found = firmware_file.kernel_hashes(
            files / kernel, initrd=initrd and files / initrd, cmdline=cmdline
        )
        table = kernel_hashes.table(found)
        theirs = SevHashes(str(files / kernel), initrd and str(files / initrd), cmdline)
        assert table == theirs.construct_table()
        assert len(table) == 176


def test_a_command_line_of_any_bytes():
    raw = b"a=\xff\xfe"
    text = os.fsdecode(raw)
    assert kernel_hashes.cmdline_sha256(text) == hashlib.sha256(raw + b"\0").digest()
    for wrong in ("a\0b", "\ud800"):
        with pytest.raises(FormatError) as caught:
            kernel_hashes.cmdline_sha256(wrong)
        assert caught.value.code == "kernel-cmdline"


def test_hashes_of_another_size():
    with pytest.raises(FormatError) as caught:
        KernelHashes(kernel=bytes(32), initrd=bytes(48), cmdline=bytes(32))
    assert caught.value.code == "kernel-hash"


KERNEL = KernelHashes(kernel=bytes(32), initrd=bytes(32), cmdline=bytes(32))
ONE = Processors(vcpus=1, signature=0x800F12)


def digest_of(tmp_path, processors=ONE, *, kernel=None, **options):
    path = tmp_path / "firmware"
    path.write_bytes(firmware(**options))
    return direct_boot.digest(firmware_file.parameters(path), processors, kernel=kernel)


@pytest.mark.parametrize(
    "options",
    [
        {"sections": made.PLAIN},
        {"area": None},
        {"area": (0, 0x400)},
        {"area": (0x810C00, 175)},
        {"area": (0x810C00, 0)},
        # QEMU would write outside the section, or over the end of its page.
        {"area": (0x811C00, 0x400)},
        {"area": (0x810F51, 176)},
        {"sections": ((0x810000, 0x2000, made.KERNEL),)},
    ],
)
def test_firmware_that_cannot_measure_a_kernel(tmp_path, options):
    assert digest_of(tmp_path, **options)
    with pytest.raises(FormatError) as caught:
        digest_of(tmp_path, kernel=KERNEL, **options)
    assert caught.value.code == "firmware-hashes"


def test_firmware_without_places_to_start(tmp_path):
    assert digest_of(tmp_path, eip=0)
    for processors, eip in ((ONE, None), (replace(ONE, vcpus=2), None), (replace(ONE, vcpus=2), 0)):
        with pytest.raises(FormatError) as caught:
            digest_of(tmp_path, processors, eip=eip)
        assert caught.value.code == "firmware-reset"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"vcpus": 0}, "vcpu-count"),
        ({"vcpus": 513}, "vcpu-count"),
        ({"vcpus": -1}, "vcpu-count"),
        ({"signature": None}, "vcpu-type"),
        ({"vmm": "krun"}, "vcpu-vmm"),
        ({"compat": "x"}, "vcpu-vmm"),
    ],
)
def test_processors_that_cannot_be(tmp_path, change, code):
    with pytest.raises(UsageError) as caught:
        digest_of(tmp_path, replace(ONE, **change))
    assert caught.value.code == code


def test_everything_that_should_count_counts(tmp_path):
    found = {
        digest_of(tmp_path, ONE),
        digest_of(tmp_path, replace(ONE, vcpus=2)),
        digest_of(tmp_path, replace(ONE, signature=0)),
        digest_of(tmp_path, replace(ONE, guest_features=0x21)),
        digest_of(tmp_path, replace(ONE, vmm="gce")),
        digest_of(tmp_path, replace(ONE, vmm="ec2")),
        digest_of(tmp_path, replace(ONE, vmm="ec2", compat="virtee-sev")),
        digest_of(tmp_path, ONE, kernel=KERNEL),
        digest_of(tmp_path, ONE, kernel=replace(KERNEL, initrd=b"1" * 32)),
        digest_of(tmp_path, ONE, seed=9),
        digest_of(tmp_path, ONE, sections=made.LAST),
        digest_of(tmp_path, ONE, size=4096),
    }
    assert len(found) == 12


@pytest.mark.parametrize(
    "chunks", [(), (bytes(4096),), (bytes(8192), bytes(4096)), (bytes(12288),), (bytes(4096),) * 3]
)
def test_a_firmware_that_changes_while_it_is_read(chunks):
    with pytest.raises(FormatError) as caught:
        direct_boot.ovmf_hash(chunks, size_bytes=8192)
    assert caught.value.code == "firmware-size"


def test_chunks_do_not_matter():
    data = firmware(5 * 4096)
    whole = direct_boot.ovmf_hash((data,), size_bytes=len(data))
    pieces = (data[:4096], data[4096:16384], b"", data[16384:])
    assert direct_boot.ovmf_hash(pieces, size_bytes=len(data)) == whole


def test_only_regular_files_are_firmware(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(FormatError) as caught:
            firmware_file.read(path)
        assert caught.value.code == "firmware-size"
    with pytest.raises(FileNotFoundError):
        firmware_file.read(tmp_path / "absent")


def test_a_kernel_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(firmware_file, "MAX_LOADED_BYTES", 3 << 20)
    with pytest.raises(FormatError) as caught:
        firmware_file.kernel_hashes(Path("/dev/zero"), initrd=None, cmdline=None)
    assert (caught.value.code, caught.value.where) == ("kernel-size", "/dev/zero")


def test_the_largest_kernel_is_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr(firmware_file, "MAX_LOADED_BYTES", 5)
    (tmp_path / "kernel").write_bytes(b"12345")
    found = firmware_file.kernel_hashes(tmp_path / "kernel", initrd=None, cmdline=None)
    assert found.kernel == hashlib.sha256(b"12345").digest()

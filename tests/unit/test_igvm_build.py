# SPDX-License-Identifier: Apache-2.0
"""IGVM files of plain Linux: the same from the same, another from another, or a typed refusal.

That Linux would start from them is test_igvm_second_reader's, which shares no
code with the builder.
"""

import hashlib
import io
import itertools
import json
import os
import struct
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_kernel import linux_bytes
from troth.abi import bzimage
from troth.abi.igvm import headers as h
from troth.abi.igvm.file import open_
from troth.abi.igvm.source import BytesSource
from troth.cli import main
from troth.documents import bundle as bundle_document
from troth.errors import BuildError, FormatError, UsageError
from troth.image.igvm import build, entry, layout
from troth.measure import igvm, igvm_kvm
from troth.measure.vcpu import SIGNATURES
from troth.record import replace

MIB = 1 << 20
PLAIN = {
    "kernel": linux_bytes(code=b"\x90" * 0x5001),
    "initramfs": b"\x07" * 10001,
    "cmdline": "console=ttyS0",
    "memory_bytes": 128 * MIB,
    "vcpus": 2,
    "policy": 0x30000,
}


def made(**changes):
    stream = io.BytesIO()
    size_bytes = build.build(**{**PLAIN, **changes}, stream=stream)
    assert size_bytes == len(stream.getvalue())
    return stream.getvalue()


def opened(data):
    return open_(BytesSource(data))


@pytest.fixture(scope="module")
def plain():
    return made()


def digest(data, vcpus):
    return igvm.measure(opened(data), vcpus=vcpus, vcpu_signature=SIGNATURES["EPYC-v4"]).digest


def test_the_same_from_the_same(plain):
    assert made() == plain
    # in another process, where the hashes of text have another seed
    script = "import hashlib, io\nfrom troth.image.igvm import build\nstream = io.BytesIO()\n"
    script += f"build.build(**{PLAIN!r}, stream=stream)\n"
    script += "print(hashlib.sha256(stream.getvalue()).hexdigest())\n"
    done = subprocess.run(
        [sys.executable, "-"], input=script, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == hashlib.sha256(plain).hexdigest()


def test_every_page_of_memory_once_and_nothing_of_the_hosts(plain):
    file = opened(plain)
    kinds = [type(header) for header in file.headers()]
    assert set(kinds) == {
        h.SupportedPlatform, h.GuestPolicy, h.RequiredMemory, h.PageData, h.VpContext,
    }  # fmt: skip
    assert kinds[-1] is h.VpContext
    pages = [header for header in file.headers() if isinstance(header, h.PageData)]
    assert [page.gpa for page in pages] == [
        *range(0, 0xA0000, 4096),
        # ROM area: Linux reads it, so it must be private memory as well
        *range(0xC0000, 128 * MIB, 4096),
    ]
    assert {page.flags for page in pages} == {0}
    special = [(page.gpa, page.data_type, page.file_offset) for page in pages if page.data_type]
    assert special == [(layout.CPUID, h.CPUID_DATA, 0), (layout.SECRETS, h.SECRETS, 0)]
    assert igvm_kvm.check(file) == ()


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ("128M", [(MIB, 128 * MIB)]),
        ("2814M", [(MIB, 2814 * MIB)]),
        # 2.75 GiB: QEMU keeps 2 GiB below and puts the rest above 4 GiB
        ("2816M", [(MIB, 2048 * MIB), (4096 * MIB, 4864 * MIB)]),
        ("31G", [(MIB, 2048 * MIB), (4096 * MIB, 4096 * MIB + 29 * 1024 * MIB)]),
    ],
)
def test_memory_as_qemu_splits_it(size, wanted):
    regions = layout.ram(layout.memory_size(size))
    assert [(region.gpa, region.end) for region in regions] == [
        (0, 0xA0000), (0xC0000, 0xE0000), (0xE0000, MIB), *wanted,
    ]  # fmt: skip


def memory_plan(memory_bytes):
    header = bzimage.setup_header(PLAIN["kernel"])
    return layout.plan(header, kernel_bytes=1, initramfs_bytes=1, memory_bytes=memory_bytes)


def test_required_memory_comes_before_the_pages_in_it():
    """And between the kinds of QEMU's memory, so that QEMU joins no pages across them."""
    plan = memory_plan(3 << 30)
    high, above = (replace(region, size_bytes=2 * MIB) for region in plan.ram[3:])
    found, last = [], None
    for header, _ in build.Image(replace(plan, ram=(*plan.ram[:3], high, above)), (), policy=0):
        if isinstance(header, h.RequiredMemory):
            found.append((header.gpa, header.size_bytes))
            last = header
        elif isinstance(header, h.PageData):
            assert last is not None
            assert last.gpa <= header.gpa < last.gpa + last.size_bytes
    assert found == [
        (0, 0xA0000), (0xC0000, 0x20000), (0xE0000, 0x20000), (MIB, 2 * MIB), (4 << 30, 2 * MIB),
    ]  # fmt: skip


def test_required_memory_of_more_than_32_bits():
    plan = memory_plan(7 << 30)
    headers = iter(build.Image(replace(plan, ram=plan.ram[4:]), (), policy=0x30000))
    assert [header for header, _ in itertools.islice(headers, 2, 5)] == [
        h.RequiredMemory(4 << 30, 1, 2 << 30),
        h.RequiredMemory(6 << 30, 1, 2 << 30),
        h.RequiredMemory(8 << 30, 1, 1 << 30),
    ]


CHANGES = {
    "vcpus": {"vcpus": 3},
    "tpm": {"tpm": True},
    "memory": {"memory_bytes": 130 * MIB},
    "cmdline": {"cmdline": "console=ttyS1"},
    "initramfs": {"initramfs": b"\x07" * 10000 + b"\x08"},
    "initramfs end": {"initramfs": b"\x07" * 10001 + b"\0"},
    "kernel": {"kernel": linux_bytes(code=b"\x90" * 0x4000 + b"\x91" + b"\x90" * 0x1000)},
    "setup header": {"kernel": linux_bytes(code=b"\x90" * 0x5001, kernel_alignment=0x100000)},
}


def test_the_digest_covers_everything_that_runs(plain):
    # one number of processors, so that the tables alone make the difference
    digests = {name: digest(made(**change), 2) for name, change in CHANGES.items()}
    assert len({digest(plain, 2), *digests.values()}) == 1 + len(CHANGES)
    assert digest(made(policy=0xB0000), 2) == digest(plain, 2)


@pytest.mark.parametrize(
    ("changes", "kind", "code"),
    [
        ({"memory_bytes": 126 * MIB}, UsageError, "igvm-memory"),
        ({"memory_bytes": 129 * MIB}, UsageError, "igvm-memory"),
        ({"memory_bytes": 32 << 30}, UsageError, "igvm-memory"),
        ({"memory_bytes": -128 * MIB}, UsageError, "igvm-memory"),
        ({"vcpus": 0}, UsageError, "igvm-vcpus"),
        ({"vcpus": 513}, UsageError, "igvm-vcpus"),
        ({"cmdline": "quiet acpi=off"}, UsageError, "igvm-vcpus"),
        ({"cmdline": "x" * 2048}, BuildError, "igvm-cmdline"),
        ({"cmdline": "a\0b"}, BuildError, "igvm-cmdline"),
        ({"policy": 0}, FormatError, "snp-policy-bit-17"),
        ({"kernel": linux_bytes(xloadflags=0x7E)}, BuildError, "igvm-kernel"),
        ({"kernel": linux_bytes(loadflags=0)}, BuildError, "igvm-kernel"),
        ({"kernel": linux_bytes(pref_address=0x1000001)}, BuildError, "igvm-kernel"),
        ({"kernel": linux_bytes(pref_address=0)}, BuildError, "igvm-room"),
        ({"kernel": linux_bytes(pref_address=1 << 40)}, BuildError, "igvm-room"),
        ({"kernel": linux_bytes(init_size=113 * MIB)}, BuildError, "igvm-room"),
        ({"kernel": linux_bytes(initrd_addr_max=0x10FFFFF)}, BuildError, "igvm-room"),
        ({"initramfs": bytes(112 * MIB)}, BuildError, "igvm-room"),
        ({"kernel": b"MZ"}, FormatError, "bzimage-header"),
        ({"kernel": linux_bytes(protocol=0x20B)}, FormatError, "bzimage-protocol"),
    ],
)
def test_refusals(changes, kind, code):
    stream = io.BytesIO()
    with pytest.raises(kind) as caught:
        build.build(**{**PLAIN, **changes}, stream=stream)
    assert caught.value.code == code
    assert stream.getvalue() == b""


@given(
    pref_page=st.integers(0, 1 << 16),
    init_size=st.integers(0, 1 << 28) | st.just((1 << 32) - 1),
    kernel_bytes=st.integers(1, 1 << 26),
    initramfs_bytes=st.integers(0, 1 << 29) | st.just(4 << 30),
    initrd_addr_max=st.sampled_from([0x7FFFFFFF, 0x37FFFFFF, 0xFFFFFFFF, 0]),
    memory=st.integers(64, 15 << 10),
)
def test_nothing_overlaps(
    pref_page, init_size, kernel_bytes, initramfs_bytes, initrd_addr_max, memory
):
    header = replace(
        bzimage.setup_header(PLAIN["kernel"]),
        pref_address=pref_page << 12,
        init_size_bytes=init_size,
        initrd_addr_max=initrd_addr_max,
    )
    try:
        plan = layout.plan(
            header,
            kernel_bytes=kernel_bytes,
            initramfs_bytes=initramfs_bytes,
            memory_bytes=memory * 2 * MIB,
        )
    except BuildError as error:
        assert error.code == "igvm-room"
        return
    for before, after in itertools.pairwise(plan.ram):
        assert before.end <= after.gpa
    assert sum(region.size_bytes for region in plan.e820) == sum(
        region.size_bytes for region in plan.ram
    )
    (place,) = [region for region in plan.ram if region.gpa <= plan.kernel < region.end]
    assert place.kind == layout.E820_RAM
    assert plan.kernel >= MIB
    assert plan.kernel + max(init_size, kernel_bytes) <= plan.initramfs
    assert plan.initramfs % 4096 == 0
    assert plan.initramfs + initramfs_bytes <= min(place.end, initrd_addr_max + 1)


def test_room_is_used_to_the_last_page():
    """Kernel from 16 MiB on, 1 MiB of room, and 111 MiB of initramfs: 128 MiB exactly."""
    data = made(initramfs=b"\xff" * (111 * MIB))
    starts = [header.gpa for header in opened(data).headers() if isinstance(header, h.PageData)]
    assert starts[-1] == 128 * MIB - 4096
    with pytest.raises(BuildError):
        made(initramfs=b"\xff" * (111 * MIB + 1))


def test_acpi_off_with_one_processor():
    assert made(cmdline="quiet acpi=off", vcpus=1)
    assert made(cmdline="quiet xacpi=off", vcpus=2)


@pytest.mark.parametrize(
    "text", ["", "1", "1g", "0M", "1.5G", "-1G", "1GB", "9999999999G", "1G\n", "٣G"]
)
def test_no_memory_sizes(text):
    with pytest.raises(UsageError) as caught:
        layout.memory_size(text)
    assert caught.value.code == "igvm-memory"


def test_the_first_instructions_and_tables_as_bytes():
    """Written by hand: AMD64 manual, volume 3 (MOV CRn, JMP far) and volume 2 (descriptors)."""
    page = entry.page(0x1000000)
    assert page[:10] == bytes.fromhex("0f22c0 ea 00020001 1000")
    assert not any(page[10:0x800])
    assert page[0x800:0x820] == bytes.fromhex(
        "0000000000000000 ffff0000009bcf00 ffff0000009baf00 ffff00000093cf00"
    )
    tables = entry.page_tables()
    c_bit = 1 << 51
    assert len(tables) == 6 * 4096
    assert struct.unpack("<2Q", tables[:16]) == (c_bit | 0x4023, 0)
    assert struct.unpack("<5Q", tables[4096:4136]) == (
        c_bit | 0x5023, c_bit | 0x6023, c_bit | 0x7023, c_bit | 0x8023, 0,
    )  # fmt: skip
    large = struct.unpack("<2048Q", tables[2 * 4096 :])
    assert large[:2] == (c_bit | 0xE3, c_bit | 0x2000E3)
    assert large[2047] == c_bit | 0xFFE000E3


@pytest.fixture
def bundle(tmp_path):
    place = tmp_path / "bundle"
    place.mkdir()
    parts = {
        "vmlinuz": PLAIN["kernel"],
        "initramfs": PLAIN["initramfs"],
        "cmdline": PLAIN["cmdline"].encode() + b"\n",
    }
    artefacts = []
    for name, data in parts.items():
        (place / name).write_bytes(data)
        digest_ = hashlib.sha256(data).hexdigest()
        artefacts.append(bundle_document.Artefact(name, len(data), digest_))
    document = bundle_document.Bundle(
        name="x", svn=1, troth_version="0", kernel_release="6", snp="none", vtpm="none",
        vtpm_kind="host", acpi_aml="unprotected", compression="none", artefacts=tuple(artefacts),
        disks=(), packed=(),
    )  # fmt: skip
    (place / "manifest.json").write_bytes(bundle_document.print_(document))
    return place


def test_the_verb(bundle, tmp_path, plain, capsys):
    output = tmp_path / "guest.igvm"
    output.write_bytes(b"old")
    words = ["igvm", "build", str(bundle), "-o", str(output), "--vcpus", "2", "--memory", "128M"]
    assert main.main(words) == 0
    assert output.read_bytes() == plain
    said = capsys.readouterr()
    assert said.out == ""
    for needle in (str(output), "128 MiB", "2 processors", "0x30000", "experimental: never"):
        assert needle in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "guest.igvm"]


@pytest.mark.parametrize("vtpm", ["optional", "required"])
def test_a_bundle_that_uses_a_tpm(bundle, tmp_path, vtpm):
    path = bundle / "manifest.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "vtpm": vtpm}))
    words = ["igvm", "build", str(bundle), "-o", str(tmp_path / "x")]
    assert main.main([*words, "--memory", "128M", "--vcpus", "2"]) == 0
    assert (tmp_path / "x").read_bytes() == made(tpm=True)


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("vmlinuz", PLAIN["kernel"][:-1], "bundle-size"),
        ("vmlinuz", PLAIN["kernel"] + b"\0", "bundle-size"),
        ("initramfs", b"\x08" * 10001, "bundle-digest"),
        ("cmdline", b"console=ttyS9\n", "bundle-digest"),
        ("cmdline", None, "bundle-file"),
        ("manifest.json", None, "bundle-missing"),
        ("manifest.json", b"{}", "json-missing"),
    ],
)
def test_bundles_that_were_changed(bundle, tmp_path, name, data, code, capsys):
    output = tmp_path / "guest.igvm"
    output.write_bytes(b"old")
    (bundle / name).unlink() if data is None else (bundle / name).write_bytes(data)
    assert main.main(["igvm", "build", str(bundle), "-o", str(output)]) in {1, 2}
    assert f"[{code}]" in capsys.readouterr().err
    assert output.read_bytes() == b"old"


def test_an_artefact_that_the_manifest_lacks(bundle, tmp_path, capsys):
    path = bundle / "manifest.json"
    document = json.loads(path.read_bytes())
    document["artefacts"] = document["artefacts"][:2]
    path.write_text(json.dumps(document))
    assert main.main(["igvm", "build", str(bundle), "-o", str(tmp_path / "x")]) == 1
    assert "[bundle-file]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--memory", "1T"), "igvm-memory"),
        (("--memory", "129M"), "igvm-memory"),
        (("--vcpus", "0"), "igvm-vcpus"),
        (("--policy", "30000x"), "snp-policy-syntax"),
        (("-o", "/nowhere/at/all"), "output-file"),
    ],
)
def test_odd_words(bundle, tmp_path, words, code, capsys):
    assert main.main(["igvm", "build", str(bundle), "-o", str(tmp_path / "x"), *words]) != 0
    assert f"[{code}]" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_no_file_of_the_bundle_is_written_over(bundle, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    link = tmp_path / "link"
    link.symlink_to(bundle / "initramfs")
    for output in (*sorted(bundle.iterdir()), link):
        words = ["igvm", "build", str(bundle), "-o", str(output), "--memory", "128M"]
        assert main.main(words) == 2
        assert "[output-file]" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    words = ["igvm", "build", str(bundle), "-o", str(bundle / "mine.igvm"), "--memory", "128M"]
    assert main.main(words) == main.main(words) == 0


def test_a_pipe_is_written_into_and_stays(bundle, tmp_path, plain):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    words = ["igvm", "build", str(bundle), "-o", str(pipe), "--vcpus", "2", "--memory", "128M"]
    assert main.main(words) == 0
    reader.join()
    assert pipe.is_fifo()
    assert found == [plain]

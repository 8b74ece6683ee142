# SPDX-License-Identifier: Apache-2.0
"""``troth inspect``: what is listed, printed and found to differ."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from troth.abi import cpio
from troth.abi.cpio import Member
from troth.cli.main import main
from troth.documents import bundle
from troth.documents.bundle import Artefact, Bundle, Disk, Packed
from troth.errors import FormatError
from troth.image import inspect as looking
from troth.image.packing import entry, initramfs_file

MEMBERS = (
    Member("dev", 0o040755),
    Member("dev/null", 0o020666, device=(1, 3)),
    Member("etc", 0o040755),
    Member("etc/config", 0o100644, b"text\n"),
    Member("init", 0o100755, b"#!x\n"),
    Member("lib", 0o120777, b"usr/lib"),
)


#: magic, .., 4096-byte blocks, .., 2 blocks: all that tells an erofs.
EROFS_SUPERBLOCK = bytes.fromhex("e2e1f5e0") + bytes(8) + b"\x0c" + bytes(23) + b"\2" + bytes(91)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def packed(members) -> tuple[Packed, ...]:
    kinds = {0o04: "directory", 0o02: "node", 0o10: "file", 0o12: "link"}
    rows = []
    for item in members:
        kind = kinds[item.mode >> 12]
        rows.append(
            Packed(item.path, kind, item.mode & 0o7777, len(item.data),
                   sha(item.data) if kind == "file" else "",
                   item.data.decode() if kind == "link" else "", f"for {item.path}")
        )  # fmt: skip
    return tuple(rows)


@pytest.fixture
def make(tmp_path):
    def build(name, members=MEMBERS, *, image=b"\0" * 5000, compression="none", known=None):
        folder = tmp_path / name
        folder.mkdir()
        files = {
            "vmlinuz": b"kernel",
            "initramfs": entry.compress(cpio.write(members), compression),
            "cmdline": b"console=ttyS0",
            "root.img": image,
        }
        for file, data in files.items():
            (folder / file).write_bytes(data)
        described = Bundle(
            name="demo", svn=2, troth_version="0.1", kernel_release="6.1", snp="none",
            vtpm="none", vtpm_kind="host", acpi_aml="off", compression=compression,
            artefacts=tuple(Artefact(k, len(v), sha(v)) for k, v in files.items()),
            disks=(Disk("root", "root.img"),), packed=packed(known or members),
        )  # fmt: skip
        (folder / "manifest.json").write_bytes(bundle.print_(described))
        return folder

    return build


def changed(path, **values):
    return tuple(
        Member(item.path, values.get("mode", item.mode), values.get("data", item.data),
               item.device) if item.path == path else item
        for item in MEMBERS
    )  # fmt: skip


def test_ls_of_a_bundle(make, capsys):
    folder = make("a")
    assert main(["inspect", str(folder), "ls"]) == 0
    text = capsys.readouterr().out
    assert "f 0755         4" in text
    assert sha(b"#!x\n")[:16] in text
    assert "lib -> usr/lib" in text
    assert "(for etc/config)" in text
    assert main(["inspect", str(folder), "ls", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["path"] for row in rows] == sorted(item.path for item in MEMBERS)
    assert rows[1]["detail"] == "1:3"


@pytest.mark.parametrize(
    "members",
    [
        (*MEMBERS, Member("extra", 0o100644, b"x")),
        changed("init", data=b"#!y\n"),
        changed("init", mode=0o104755),
        changed("lib", data=b"usr/bin"),
    ],
)
def test_entries_that_the_manifest_does_not_know(make, capsys, members):
    folder = make("a", members, known=MEMBERS)
    assert main(["inspect", str(folder), "ls"]) == 1
    assert looking.UNKNOWN in capsys.readouterr().out
    assert main(["inspect", str(folder)]) == 1
    assert "not as manifest.json says" in capsys.readouterr().out


@pytest.mark.tool
@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_every_compression(make, capsys, compression):
    if compression != "none" and shutil.which(compression) is None:
        pytest.skip(f"needs the program {compression}")
    folder = make("a", compression=compression)
    assert main(["inspect", str(folder / "initramfs"), "ls"]) == 0
    assert "etc/config" in capsys.readouterr().out
    if compression != "none":
        data = (folder / "initramfs").read_bytes()
        (folder / "initramfs").write_bytes(data[:-9])
        with pytest.raises(FormatError):
            initramfs_file.members(folder / "initramfs")


@pytest.mark.tool
@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_decompression_is_bounded(tmp_path, compression):
    if compression != "none" and shutil.which(compression) is None:
        pytest.skip(f"needs the program {compression}")
    data = entry.compress(cpio.write([Member("zeros", 0o100644, bytes(8 << 20))]), compression)
    (tmp_path / "bomb").write_bytes(data)
    with pytest.raises(FormatError) as caught:
        initramfs_file.read(tmp_path / "bomb", limit_bytes=1 << 20)
    assert caught.value.code == "initramfs-size"


def test_the_last_of_a_repeated_path_is_what_a_guest_sees(tmp_path, capsysbinary):
    data = cpio.write(MEMBERS) + cpio.write(changed("init", data=b"second"))
    (tmp_path / "initramfs").write_bytes(data)
    assert main(["inspect", str(tmp_path / "initramfs"), "cat", "/init"]) == 0
    assert capsysbinary.readouterr().out == b"second"


def test_cat(make, capsysbinary):
    folder = make("a")
    assert main(["inspect", str(folder), "cat", "etc/config"]) == 0
    assert capsysbinary.readouterr().out == b"text\n"
    assert main(["inspect", str(folder), "cat", "cmdline"]) == 0
    assert capsysbinary.readouterr().out == b"console=ttyS0"
    assert main(["inspect", str(folder), "cat", "../a/cmdline"]) == 2
    assert main(["inspect", str(folder), "cat", "etc"]) == 2
    assert b"inspect-path" in capsysbinary.readouterr().err


def test_equal_bundles(make, capsys):
    assert main(["inspect", str(make("a")), "diff", str(make("b"))]) == 0
    assert capsys.readouterr().out == "equal\n"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (changed("etc/config", data=b"text!\n"), "initramfs: etc/config: 5 and 6 bytes"),
        (changed("etc/config", data=b"teXt\n"), "etc/config: first difference at byte 2"),
        (changed("init", mode=0o100700), "initramfs: init: mode 100755 and 100700"),
        (changed("lib", data=b"usr/lob"), "initramfs: lib: first difference at byte 5"),
        (MEMBERS[:-1], "lib: is in the first one only"),
        ((*MEMBERS, Member("a", 0o100644)), "a: is in the second one only"),
        (MEMBERS[::-1], "same entries, packed otherwise from byte"),
    ],
)
def test_first_difference_in_the_initramfs(make, capsys, members, words):
    first = make("a")
    second = make("b", members)
    assert main(["inspect", str(first), "diff", str(second)]) == 1
    assert words in capsys.readouterr().out
    args = ["inspect", str(first / "initramfs"), "diff", str(second / "initramfs"), "--json"]
    assert main(args) == 1
    assert json.loads(capsys.readouterr().out)["equal"] is False


def test_causes_come_before_what_they_cause(make, capsys):
    one = make("a", image=bytes(3 << 20))
    two = make("b", changed("init", data=b"z"), image=bytes(2 << 20) + b"\1" + bytes((1 << 20) - 1))
    assert main(["inspect", str(one), "diff", str(two)]) == 1
    assert capsys.readouterr().out == "root.img: first difference at byte 2097152\n"
    (two / "root.img").unlink()
    assert main(["inspect", str(one), "diff", str(two)]) == 1
    assert "root.img: is missing in" in capsys.readouterr().out


def test_summary_says_what_is_not_as_described(make, capsys):
    folder = make("a")
    assert main(["inspect", str(folder)]) == 0
    assert "demo, svn 2" in capsys.readouterr().out
    assert main(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == len(MEMBERS)
    (folder / "root.img").write_bytes(b"\1" * 5000)
    assert main(["inspect", str(folder)]) == 1
    assert "root.img 5000 DIFFERS" in capsys.readouterr().out
    assert main(["inspect", str(folder / "root.img")]) == 1
    assert "[inspect-kind]" in capsys.readouterr().err
    image = folder / "other.img"
    image.write_bytes(bytes(1024) + EROFS_SUPERBLOCK + bytes(8192))
    assert main(["inspect", str(image)]) == 0
    assert capsys.readouterr().out.endswith(", erofs\n")
    assert main(["inspect", str(image), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["image"] == "erofs"


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["{}", "firmware"], 1, "firmware-size"),
        (["{}", "list"], 2, "inspect-action"),
        (["{}", "cat"], 2, "inspect-action"),
        (["{}", "ls", "x"], 2, "inspect-action"),
        (["{}/absent"], 2, "inspect-target"),
        (["{}/vmlinuz", "ls"], 2, "inspect-target"),
        (["{}", "diff", "{}/vmlinuz"], 2, "inspect-target"),
        (["{}/.."], 2, "inspect-target"),
    ],
)
def test_refusals(make, capsys, words, status, code):
    folder = str(make("a"))
    assert main(["inspect", *(word.format(folder) for word in words)]) == status
    assert code in capsys.readouterr().err


def test_broken_archives(tmp_path, capsys):
    (tmp_path / "initramfs").write_bytes(b"070701" + b"z" * 500)
    assert main(["inspect", str(tmp_path / "initramfs"), "ls"]) == 1
    assert "cpio-header" in capsys.readouterr().err

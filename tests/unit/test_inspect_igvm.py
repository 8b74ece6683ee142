# SPDX-License-Identifier: Apache-2.0
"""``troth inspect FILE.igvm``."""

import hashlib
import json
import os
import struct

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

import made_igvm as made
from troth.cli.main import main

PAGE = made.PAGE
FILE = made.made(
    [
        made.platform(1),
        made.platform(2, made.NATIVE),
        made.policy(0xB0000),
        made.memory(0, 1 << 30),
        made.page(0x1000, kind=2),
        made.page(0x2000, kind=1),
        made.page(0x3000, flags=2),
        made.page(0x4000, flags=4),
        *(made.page(0x10000 + n * PAGE, 0, mask=3) for n in range(100)),
        made.page(0x200000, flags=1, mask=2),
        made.area(2 * PAGE, 5, 0),
        made.usage(0x30C, 5),
        made.usage(0x30C, 5, 64),
        made.usage(0x307, 5, 8),
        made.insert(0x8000000, 5),
        made.area(index=6),
        made.context(2 * PAGE),
        made.context(0, gpa=0, mask=2),
        made.id_block(bytes(range(48)), author_enabled=1),
    ],
    made.counted(1) + made.counted(2) + made.vmsa(rip=0x123456),
    version=2,
)


def inspected(tmp_path, capsys, data, *words):
    path = tmp_path / "guest.igvm"
    path.write_bytes(data)
    status = main(["inspect", str(path), *words])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_json(tmp_path, capsys):
    status, out, err = inspected(tmp_path, capsys, FILE, "--json")
    assert (status, err) == (1, "")  # its ID block is for another file
    tree = json.loads(out)
    assert tree["format_version"] == 2
    assert tree["size_bytes"] == len(FILE)
    assert [item["name"] for item in tree["platforms"]] == ["sev-snp", "native"]
    assert tree["policies"] == [{"policy": "0xb0000", "mask": 1}]
    assert tree["headers"]["PAGE_DATA"] == 105
    assert tree["headers"]["MEMORY_MAP"] == 2
    counts = {(item["mask"], item["kind"]): item["pages"] for item in tree["pages"]}
    assert counts == {
        (1, "cpuid"): 1, (1, "secrets"): 1, (1, "unmeasured"): 1, (1, "shared"): 1,
        (3, "data"): 100, (2, "zeros"): 512,
    }  # fmt: skip
    data = next(item for item in tree["pages"] if item["kind"] == "data")
    assert (data["lowest"], data["end"]) == ("0x10000", "0x74000")
    assert tree["parameters"] == [
        {
            "index": 5, "size_bytes": 8192, "gpa": "0x8000000",
            "host_writes": ["MEMORY_MAP", "VP_COUNT"], "has_data": True,
        },
        {"index": 6, "size_bytes": 4096, "gpa": None, "host_writes": [], "has_data": False},
    ]  # fmt: skip
    snp, native = tree["processors"]
    assert snp["registers"]["rip"] == "0x123456"
    assert native["registers"] == {}
    (block,) = tree["id_blocks"]
    assert block["launch_digest"] == bytes(range(48)).hex()
    assert block["guest_svn"] == 7
    assert block["has_author_key"] is True
    assert tree["required_memory"] == [{"gpa": "0x0", "size_bytes": 1 << 30, "mask": 1}]


def test_words(tmp_path, capsys):
    status, out, _ = inspected(tmp_path, capsys, FILE)
    assert status == 1
    for words in (
        "version 2, x64",
        "platform  sev-snp, mask 0x1",
        "policy    0xb0000 for sev-snp smt debug",
        "100 data       0x10000 to 0x74000 for sev-snp, native",
        "parameter 5, 8192 bytes at 0x8000000: the host writes MEMORY_MAP, VP_COUNT",
        "parameter 6, 4096 bytes nowhere",
        "rip=0x123456",
        "id block  svn 7, with author key",
        "they DISAGREE",
        "signatures: cannot be read",
        "105 PAGE_DATA",
    ):
        assert words in out, words


def test_one_platform_is_not_repeated(tmp_path, capsys):
    _, out, _ = inspected(tmp_path, capsys, made.linux(1))
    assert " for sev-snp" not in out


def test_broken_files_and_policies(tmp_path, capsys):
    status, out, err = inspected(tmp_path, capsys, made.linux(1)[:-1])
    assert (status, out) == (1, "")
    assert "igvm-size" in err
    odd = made.made([made.platform(), made.policy(0), made.page(0, 0)], bytes(PAGE))
    status, out, _ = inspected(tmp_path, capsys, odd)
    assert status == 0
    assert "bit 17" in out


def test_two_files_are_compared(tmp_path, capsys):
    other = tmp_path / "other.igvm"
    other.write_bytes(made.linux(2))
    status, out, _ = inspected(tmp_path, capsys, made.linux(1), "diff", str(other))
    assert status == 1
    assert "first difference at byte" in out


# --- the ID block against its file -----------------------------------------------------------

ID, AUTHOR = (ec.derive_private_key(number, ec.SECP384R1()) for number in (3001, 3002))
#: Places in the body: block signature, ID key, author signature, author key.
SIGNATURE, KEY, KEY_SIGNATURE, AUTHOR_KEY = 104, 248, 400, 544


def digest_of(data, capsys, tmp_path, *words):
    path = tmp_path / "measured.igvm"
    path.write_bytes(data)
    assert main(["measure", "igvm", str(path), "--bare", "--ignore-idblock", *words]) == 0
    return bytes.fromhex(capsys.readouterr().out)


def number(value, size):
    return value.to_bytes(size, "little")


def whole_key(key):
    """A key as the firmware reads and hashes it: 1028 bytes."""
    at = key.public_key().public_numbers()
    return number(2, 4) + number(at.x, 72) + number(at.y, 72) + bytes(880)


def signature(key, data):
    r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA384())))
    return number(r, 72) + number(s, 72)


def signed_block(digest, *, policy=0x30000, svn=9, author=AUTHOR):
    """An SNP_ID_BLOCK by the specification's offsets, nothing of troth."""
    block = digest + b"F" * 16 + b"I" * 16 + struct.pack("<IIQ", 1, svn, policy)
    body = bytearray(696)
    struct.pack_into("<IB", body, 0, 1, author is not None)
    body[8:96] = block[:88]
    struct.pack_into("<IIII", body, 88, 1, svn, 1, 1 if author else 0)
    body[SIGNATURE:KEY] = signature(ID, block)
    body[KEY:KEY_SIGNATURE] = number(2, 8) + whole_key(ID)[4:148]
    if author is not None:
        body[KEY_SIGNATURE:AUTHOR_KEY] = signature(author, whole_key(ID))
        body[AUTHOR_KEY:] = number(2, 8) + whole_key(author)[4:148]
    return bytes(body)


def with_block(body):
    return made.linux(4, after=[(0x30B, bytes(body))])


@pytest.fixture
def plain_digest(tmp_path, capsys):
    return digest_of(made.linux(4), capsys, tmp_path)


def test_a_good_id_block(tmp_path, capsys, plain_digest):
    data = with_block(signed_block(plain_digest))
    status, out, _ = inspected(tmp_path, capsys, data)
    assert status == 0
    assert out.count(plain_digest.hex()) == 2
    assert "they agree\n" in out
    for name, key in (("ID key", ID), ("author key", AUTHOR)):
        assert f"{name} digest {hashlib.sha384(whole_key(key)).hexdigest()}" in out
        assert f"{name} signature valid" in out
    (block,) = json.loads(inspected(tmp_path, capsys, data, "--json")[1])["id_blocks"]
    assert block["guest_svn"] == 9
    assert block["checked"] == {
        "measured_digest": plain_digest.hex(),
        "agrees": True,
        "vcpus": 1,
        "vcpu_signature": None,
        "signatures_valid": True,
        "obstacle": None,
        "id_key": {"digest": hashlib.sha384(whole_key(ID)).hexdigest(), "obstacle": None},
        "author_key": {"digest": hashlib.sha384(whole_key(AUTHOR)).hexdigest(), "obstacle": None},
    }


def test_an_id_block_without_author(tmp_path, capsys, plain_digest):
    data = with_block(signed_block(plain_digest, author=None))
    status, out, _ = inspected(tmp_path, capsys, data)
    assert status == 0
    assert "no author key" in out
    assert "author key signature" not in out


@pytest.mark.parametrize(
    ("vcpus", "kind", "sig"), [(2, "EPYC", 0x800F12), (512, "EPYC-Turin", 0xB00F00)]
)
def test_an_id_block_for_a_larger_machine(tmp_path, capsys, vcpus, kind, sig):
    other = digest_of(made.linux(4), capsys, tmp_path, "--vcpus", str(vcpus), "--vcpu-type", kind)
    data = with_block(signed_block(other))
    status, out, _ = inspected(tmp_path, capsys, data)
    assert status == 0
    assert f"they agree for {vcpus} processors like {kind}, signature {sig:#x}" in out
    path = str(tmp_path / "guest.igvm")
    assert main(["measure", "igvm", path]) == 1
    error = capsys.readouterr().err
    assert "igvm-id-block-digest" in error
    assert f"--vcpus {vcpus} --vcpu-type {kind};" in error
    assert main(["measure", "igvm", path, "--vcpus", str(vcpus), "--vcpu-type", kind]) == 0


def test_an_id_block_for_another_file(tmp_path, capsys, plain_digest):
    status, out, _ = inspected(tmp_path, capsys, with_block(signed_block(bytes(range(48)))))
    assert status == 1
    assert "they DISAGREE" in out
    assert bytes(range(48)).hex() in out
    assert plain_digest.hex() in out
    assert "ID key signature valid" in out


@pytest.mark.parametrize(
    ("at", "says", "holds"),
    [
        (SIGNATURE, "ID key signature WRONG", "author key signature valid"),
        (92, "ID key signature WRONG", "author key signature valid"),  # the SVN
        (56, "ID key signature WRONG", "author key signature valid"),  # the family
        (KEY_SIGNATURE, "author key signature WRONG", "ID key signature valid"),
        (KEY + 8, "ID key signature WRONG: the point is not on the curve", "they agree"),
        (KEY, "signatures: cannot be read", "they agree"),  # the curve
    ],
)
def test_a_wrong_signature(tmp_path, capsys, plain_digest, at, says, holds):
    body = bytearray(signed_block(plain_digest))
    body[at] ^= 4
    status, out, _ = inspected(tmp_path, capsys, with_block(body))
    assert status == 1
    assert says in out
    assert holds in out
    path = str(tmp_path / "guest.igvm")
    assert main(["measure", "igvm", path]) == 0  # igvmmeasure takes it as well
    assert "no launch succeeds with" in capsys.readouterr().err
    assert main(["measure", "igvm", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id_block"]["signatures_valid"] is False
    assert main(["measure", "igvm", path, "--ignore-idblock"]) == 0
    assert "no launch succeeds" not in capsys.readouterr().err


def test_the_policy_is_signed_too(tmp_path, capsys, plain_digest):
    data = with_block(signed_block(plain_digest, policy=0xB0000))
    status, out, _ = inspected(tmp_path, capsys, data)
    assert status == 1
    assert "ID key signature WRONG" in out
    absent = made.made(
        [made.platform(), made.page(0x1000, 0), (0x30B, signed_block(plain_digest))], bytes(4096)
    )
    status, out, _ = inspected(tmp_path, capsys, absent)
    assert status == 1
    assert "no guest policy" in out


def test_nobody_waits_for_a_pipe_that_nobody_writes(tmp_path, capsys):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert main(["measure", "igvm", str(pipe)]) == 1
    assert "[igvm-size]" in capsys.readouterr().err


def test_a_file_for_another_architecture_is_still_shown(tmp_path, capsys):
    data = made.made(
        [made.platform(), made.policy(), made.page(0x1000, 0), made.id_block()],
        bytes(4096), version=2, architecture=1,
    )  # fmt: skip
    status, out, err = inspected(tmp_path, capsys, data)
    assert (status, err) == (0, "")
    assert "not checked: it is for no SNP launch" in out

# SPDX-License-Identifier: Apache-2.0
"""``troth inspect FILE.igvm``."""

import json

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
    assert (status, err) == (0, "")
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
    assert status == 0
    for words in (
        "version 2, x64",
        "platform  sev-snp, mask 0x1",
        "policy    0xb0000 for sev-snp smt debug",
        "100 data       0x10000 to 0x74000 for sev-snp, native",
        "parameter 5, 8192 bytes at 0x8000000: the host writes MEMORY_MAP, VP_COUNT",
        "parameter 6, 4096 bytes nowhere",
        "rip=0x123456",
        "id block  svn 7, with author key",
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

# SPDX-License-Identifier: Apache-2.0
"""``troth verity``: what it prints and with which status it ends."""

import json
import os
from types import SimpleNamespace

import pytest

from troth.cli import verity
from troth.errors import FormatError, UsageError

UUID = "22222222-3333-4444-5555-666666666666"
ROOT_129 = "ed1d90e00e577092f69b1cf98426e5a0c2dc51d72989804dcc546e94a4d5bad4"
SALT = "1234" + "00" * 30


def counted(tmp_path, blocks):
    """The data of a shared vector: SHA-256 of a counter."""
    import hashlib

    data = tmp_path / "data"
    data.write_bytes(
        b"".join(hashlib.sha256(n.to_bytes(8, "little")).digest() for n in range(blocks * 128))
    )
    return data


def run(verb, data, tree, **options):
    defaults = {"salt": SALT, "uuid": UUID, "root_hash": None, "json": False}
    return verb(SimpleNamespace(data=str(data), hash=str(tree), **(defaults | options)))


def test_format_then_verify(tmp_path, capsys):
    data, tree = counted(tmp_path, 129), tmp_path / "tree"
    assert run(verity.format_, data, tree) == 0
    shown = capsys.readouterr()
    assert f"Root hash:        {ROOT_129}\n" in shown.out
    assert "Data blocks:      129\n" in shown.out
    assert shown.err == ""
    assert run(verity.verify, data, tree, root_hash=ROOT_129.upper()) == 0
    assert "Verdict:          pass\n" in capsys.readouterr().out


def test_without_a_root_hash_the_verdict_is_partial(tmp_path, capsys):
    data, tree = counted(tmp_path, 5), tmp_path / "tree"
    run(verity.format_, data, tree)
    capsys.readouterr()
    assert run(verity.verify, data, tree, json=True) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["verdict"], result["root_hash_check"]) == ("partial", "not-checked")
    assert run(verity.verify, data, tree) == 0
    assert "not compared" in capsys.readouterr().err


def test_one_file_for_both(tmp_path, capsys):
    data = counted(tmp_path, 129)
    os.truncate(data, 129 * 4096 - 7)
    assert run(verity.format_, data, data, json=True) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["hash_offset_bytes"] == 129 * 4096
    assert made["hash_start_block"] == 130
    assert run(verity.verify, data, data, root_hash=made["root_hash"]) == 0
    os.truncate(data, 130 * 4096)
    with pytest.raises(FormatError) as caught:
        run(verity.verify, data, data, root_hash=made["root_hash"])
    assert caught.value.code in ("verity-appended", "verity-superblock-magic")


def test_a_mismatch_is_status_1(tmp_path, capsys):
    data, tree = counted(tmp_path, 129), tmp_path / "tree"
    run(verity.format_, data, tree)
    capsys.readouterr()
    with data.open("r+b") as file:
        file.seek(77 * 4096)
        file.write(b"!")
    with pytest.raises(FormatError) as caught:
        run(verity.verify, data, tree, root_hash=ROOT_129)
    assert caught.value.code == "verity-data"
    assert caught.value.exit_status == 1
    assert "data block 77 " in caught.value.message
    assert run(verity.verify, data, tree, root_hash=ROOT_129, json=True) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["verdict"], result["code"]) == ("fail", "verity-data")
    with pytest.raises(FormatError) as caught:
        run(verity.verify, data, tree, root_hash="00" * 32)
    assert caught.value.code == "verity-root-hash"


def test_defaults_are_random(tmp_path, capsys):
    data, tree = counted(tmp_path, 1), tmp_path / "tree"
    seen = []
    for _ in range(2):
        run(verity.format_, data, tree, salt=None, uuid=None, json=True)
        made = json.loads(capsys.readouterr().out)
        assert len(made["salt"]) == 64
        seen.append((made["salt"], made["uuid"]))
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]
    run(verity.format_, data, tree, salt="-")
    assert "Salt:             -\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "options", "code"),
    [
        (verity.format_, {"salt": "123"}, "verity-salt"),
        (verity.format_, {"salt": "zz"}, "verity-salt"),
        (verity.format_, {"salt": "00" * 257}, "verity-salt"),
        (verity.format_, {"uuid": "22222222"}, "verity-uuid"),
        (verity.format_, {"uuid": "{" + UUID + "}"}, "verity-uuid"),
        (verity.verify, {"root_hash": "xyz"}, "verity-root-hash-syntax"),
        (verity.verify, {"root_hash": ""}, "verity-root-hash-syntax"),
    ],
)
def test_usage(tmp_path, verb, options, code):
    data, tree = counted(tmp_path, 1), tmp_path / "tree"
    with pytest.raises(UsageError) as caught:
        run(verb, data, tree, **options)
    assert caught.value.code == code
    assert not tree.exists()


def test_progress_is_for_terminals(tmp_path, capsys, monkeypatch):
    data, tree = counted(tmp_path, 300), tmp_path / "tree"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    run(verity.format_, data, tree)
    err = capsys.readouterr().err
    assert "hashing: " in err
    assert "100 %" in err
    assert err.endswith("\r\x1b[K")

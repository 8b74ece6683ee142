# SPDX-License-Identifier: Apache-2.0
"""What an operator puts right: each change, what it gives up, and that it is written down."""

import json

import pytest

import made_broker as made
from made_broker import Guest
from troth.cli.main import main
from troth.errors import FormatError, HostError, UsageError
from troth.keybroker import classes, corrections, listing, resources, volume_state
from troth.keybroker.corrections import Correction
from troth.keybroker.volume_state import Volume

D1, D2, D9 = "11" * 32, "22" * 32, "99" * 32
IN_USE = Volume(state=volume_state.IN_USE, generation=2, record=D2, holder=b"\x07" * 32)


@pytest.fixture
def place(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made.kept(tmp_path / "db").close()
    return tmp_path


def set_(*words):
    return main(["keybroker", "set", "--db", "db", "--volume", made.PATH, *words])


def told(_resource, _detail):
    pass


def other_image(kept):
    values = made.with_digest(made.values(image_name="other"), "0b" * 48)
    classes.add(kept, made.document(values), [made.signer().public], pending=False, at=made.AT)


def code_of(function, *arguments, **words):
    with pytest.raises((UsageError, FormatError)) as caught:
        function(*arguments, **words, told=told)
    return caught.value.code


def test_a_restored_disk_is_taken_again(tmp_path):
    """The way out of ``record-rolled-back``: the operator says which record is the last."""
    kept = made.kept(tmp_path / "db", volume=IN_USE)
    clock = made.Clock()
    with made.running(kept, clock=clock) as broker, broker.client() as client:
        first = Guest(client).handshake()
        assert json.loads(first.get()[1])["record"] == D2
        corrections.correct(kept, made.PATH, Correction(generation=1, digest=D1), told=told)
        # Who has the key knows another record, and may commit no more.
        assert first.commit(3, D9)[0] == 401
        assert first.commit(2, D9)[0] == 401
        second = Guest(client, report_id=b"\x09" * 32).handshake()
        found = json.loads(second.get()[1])
        assert (found["state"], found["generation"], found["record"]) == ("in-use", 1, D1)
        assert second.commit(2, D9)[0] == 200


def test_a_record_is_forgotten(tmp_path):
    kept = made.kept(tmp_path / "db", volume=IN_USE)
    after = corrections.correct(kept, made.PATH, Correction(forget=True), told=told).volume
    assert (after.state, after.generation, after.record) == ("in-use", 0, "")
    with made.running(kept) as broker, broker.client() as client:
        guest = Guest(client).handshake()
        found = json.loads(guest.get()[1])
        assert (found["state"], found["generation"], found["record"]) == ("in-use", 0, "")
        assert guest.commit(1, D9)[0] == 200


def test_a_lease_is_ended(tmp_path):
    kept = made.kept(tmp_path / "db")
    with made.running(kept) as broker, broker.client() as client:
        assert Guest(client).handshake().get()[0] == 200
        other = Guest(client, report_id=b"\x09" * 32).handshake()
        assert other.get()[1]["detail"] == "volume-formatting"
        corrections.correct(kept, made.PATH, Correction(free=True), told=told)
        assert listing.tree(kept, at=made.AT)["resources"][0]["volume"]["held_until"] == ""
        assert json.loads(other.get()[1])["state"] == "formatting"
        # It is a take-over, and is logged as one.
        assert broker.audit()[-1]["over"] == "08" * 32


def test_other_images(tmp_path):
    kept = made.kept(tmp_path / "db")
    wanted = Correction(images=("other",))
    assert code_of(corrections.correct, kept, made.PATH, wanted) == "broker-image"
    other_image(kept)
    assert corrections.correct(kept, made.PATH, wanted, told=told).images == ("other",)
    with made.running(kept) as broker, broker.client() as client:
        assert Guest(client).handshake().get()[1]["detail"] == "resource-not-granted"
        guest = Guest(client, report_id=b"\x09" * 32, image="other").handshake()
        assert guest.get()[0] == 200


def test_removed_and_added_anew(tmp_path):
    kept = made.kept(tmp_path / "db")
    resources.add_opaque(kept, "a/b/c", b"x", images=["demo"], at=made.AT)
    assert code_of(corrections.remove, kept, made.PATH, uuid="1" + made.UUID[1:]) == (
        "broker-correction"
    )
    assert code_of(corrections.remove, kept, "a/b/d", uuid="") == "broker-resource-absent"
    corrections.remove(kept, "a/b/c", uuid="", told=told)
    corrections.remove(kept, made.PATH, uuid="", told=told)
    assert resources.every(kept) == ()
    words = {"uuid": made.UUID, "profile": made.PROFILE, "key": made.KEY, "images": ["demo"]}
    resources.add_volume(kept, "a/b/c", **words, volume=IN_USE, at=made.AT)
    # Guests had this one's key: its id must be said.
    assert code_of(corrections.remove, kept, "a/b/c", uuid="") == "broker-correction"
    corrections.remove(kept, "kbs:///a/b/c", uuid=made.UUID, told=told)
    with kept.reading() as rows:
        assert rows.execute("SELECT count(*) FROM grants").fetchone() == (0,)


def test_what_is_not_there_to_correct(tmp_path):
    kept = made.kept(tmp_path / "db")
    resources.add_opaque(kept, "a/b/c", b"x", images=["demo"], at=made.AT)
    correct = corrections.correct
    assert code_of(correct, kept, made.PATH, Correction(forget=True)) == "broker-correction"
    assert code_of(correct, kept, "a/b/c", Correction(free=True)) == "broker-correction"
    assert code_of(correct, kept, "a/b/d", Correction(free=True)) == "broker-resource-absent"
    for number, digest in ((1, ""), (0, D1), (1, "x" * 64), (1 << 64, D1), (-1, D1)):
        wanted = Correction(generation=number, digest=digest)
        assert code_of(correct, kept, made.PATH, wanted) == "volume-key-field"
    assert resources.every(kept)[1].volume == Volume()


def test_what_cannot_be_told_does_not_happen(tmp_path):
    kept = made.kept(tmp_path / "db", volume=IN_USE)

    def full(_resource, _detail):
        raise HostError("broker-audit", "no room")

    with pytest.raises(HostError):
        corrections.correct(kept, made.PATH, Correction(forget=True, images=("demo",)), told=full)
    with pytest.raises(HostError):
        corrections.remove(kept, made.PATH, uuid=made.UUID, told=full)
    assert resources.every(kept)[0].volume == IN_USE


def test_by_the_command(place, capsys):
    assert set_("--generation", "4", "--record", D1, "--image", "demo") == 0
    assert set_("--free") == 0
    assert set_("--forget-record") == 0
    assert main(["keybroker", "list", "--db", "db"]) == 0
    assert "in-use, generation 0, for demo" in capsys.readouterr().out
    assert set_("--remove") == 2
    assert "[broker-correction]" in capsys.readouterr().err
    assert set_("--remove", "--uuid", made.UUID) == 0
    lines = [json.loads(line) for line in (place / "db/audit.jsonl").read_text().splitlines()]
    assert [(item["event"], item["code"], item.get("generation", 0)) for item in lines] == [
        ("set", "changed", 4), ("set", "changed", 4), ("set", "changed", 0), ("set", "removed", 0),
    ]  # fmt: skip
    assert lines[0]["detail"] == "images demo before; generation 0, record none before"
    assert lines[1]["detail"] == "free, held by nobody before"
    assert lines[2]["detail"] == f"generation 4, record {D1} before"
    assert {item["resource"] for item in lines} == {made.PATH}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--generation", "4"),
        ("--record", D1),
        ("--generation", "0", "--record", D1),
        ("--generation", "4", "--record", "x"),
        ("--generation", "4", "--record", D1, "--forget-record"),
        ("--remove", "--free"),
        ("--free", "--uuid", made.UUID),
        ("--resource", "a/b/c", "--free"),
    ],
)
def test_words_that_do_not_fit(place, capsys, words):
    assert set_(*words) == 2
    assert "[broker-option]" in capsys.readouterr().err
    assert not (place / "db/audit.jsonl").exists() or not (place / "db/audit.jsonl").read_text()

# SPDX-License-Identifier: Apache-2.0
"""The broker's database: kinds, seals, damaged files, and releases that happen once."""

import json
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import made_broker as made
from troth.errors import FormatError, HostError, UsageError
from troth.keybroker import classes, listing, release, resources, store
from troth.keybroker.release import Attested
from troth.keybroker.volume_state import Volume

GUEST = Attested("demo", 3, b"\x08" * 32, b"k" * 32)
D1 = "11" * 32


def code_of(function, *arguments, **words):
    with pytest.raises((UsageError, FormatError, HostError)) as caught:
        function(*arguments, **words)
    return caught.value.code


def nothing(_outcome):
    pass


def get(kept, guest=GUEST, path=made.PATH, at=made.AT):
    return release.release(kept, guest, path, at=at, told=nothing)


def test_files_are_their_owners_only(tmp_path):
    kept = made.kept(tmp_path / "db")
    assert stat.S_IMODE((tmp_path / "db").stat().st_mode) == 0o700
    for path in (tmp_path / "db").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    kept.close()
    (tmp_path / "db/broker.sqlite3").chmod(0o640)
    assert code_of(store.open_, tmp_path / "db") == "broker-mode"


def test_opened_again(tmp_path):
    kept = made.kept(tmp_path / "db")
    before = listing.tree(kept, at=made.AT)
    kept.close()
    again = store.open_(tmp_path / "db")
    assert again.kind == "simulated"
    assert listing.tree(again, at=made.AT) == before
    assert made.KEY.hex() not in json.dumps(before)
    assert code_of(store.create, tmp_path / "db", "real") == "broker-exists"


def test_what_is_no_database(tmp_path):
    assert code_of(store.open_, tmp_path) == "broker-absent"
    path = tmp_path / store.FILE_NAME
    path.touch(0o600)
    assert code_of(store.open_, tmp_path) == "broker-format"
    path.write_bytes(b"x" * 4096)
    assert code_of(store.open_, tmp_path) == "broker-database"
    path.unlink()
    kept = store.create(tmp_path, "real")
    with kept.transaction() as rows:
        rows.execute("PRAGMA user_version = 2")
    kept.close()
    assert code_of(store.open_, tmp_path) == "broker-format"
    (tmp_path / "file").touch()
    assert code_of(store.create, tmp_path / "file", "real") == "broker-database"


def test_kind_is_for_life(tmp_path):
    kept = made.kept(tmp_path / "db")
    real = made.document(made.with_digest(made.values(simulated=False, image_name="b"), "0b" * 48))
    public = [made.signer().public]
    assert code_of(classes.add, kept, real, public, pending=False, at=made.AT) == "broker-kind"
    with pytest.raises(HostError, match="for life"), kept.transaction() as rows:
        rows.execute("UPDATE meta SET value = x'7265616c' WHERE name = 'kind'")
    assert kept.meta("kind") == b"simulated"


def test_sealed_keys(tmp_path):
    kept = made.kept(tmp_path / "db", passphrase=b"open sesame")
    assert kept.sealed
    found = json.loads(get(kept).payload)
    assert found["key"] == made.base64.b64encode(made.KEY).decode()
    kept.close()
    for path in (tmp_path / "db").iterdir():
        assert made.KEY not in path.read_bytes()
    assert code_of(store.open_, tmp_path / "db") == "broker-passphrase"
    assert code_of(store.open_, tmp_path / "db", passphrase=b"other") == "broker-passphrase"
    assert get(store.open_(tmp_path / "db", passphrase=b"open sesame")).good
    # Without the key the list can be read, and nothing secret goes in or out.
    shut = store.open_(tmp_path / "db", needs_keys=False)
    assert listing.tree(shut, at=made.AT)["sealed"] is True
    assert code_of(resources.add_opaque, shut, "a/b/c", b"x", images=["demo"], at=1) == (
        "broker-passphrase"
    )
    plain = made.kept(tmp_path / "db2")
    plain.close()
    assert code_of(store.open_, tmp_path / "db2", passphrase=b"x") == "broker-passphrase"


def test_seals_do_not_change_places(tmp_path):
    kept = made.kept(tmp_path / "db", passphrase=b"open sesame")
    resources.add_opaque(kept, "a/b/c", b"x" * 32, images=["demo"], at=made.AT)
    with kept.transaction() as rows:
        rows.execute(
            "UPDATE resources SET secret = (SELECT secret FROM resources WHERE path = 'a/b/c') "
            "WHERE path = ?",
            (made.PATH,),
        )
    assert code_of(get, kept) == "sealed-secret"
    # Nothing was released, so nothing is spent.
    assert resources.every(kept)[1].volume.state == "new"
    with kept.reading() as rows:
        assert rows.execute("SELECT count(*) FROM releases").fetchone() == (0,)


def test_classes_come_signed_in_force_and_rooted(tmp_path):
    kept = made.kept(tmp_path / "db")
    public = [made.signer().public]

    def add(values, keys=public, number=1, at=made.AT):
        return code_of(classes.add, kept, made.document(values, number), keys, pending=False, at=at)

    other = made.with_digest(made.values(image_name="other"), "0b" * 48)
    assert add(other, number=2) == "broker-class"
    assert add(other, keys=[]) == "broker-class"
    assert add(other, at=made.AT + 10 * 365 * 86400) == "broker-class"
    assert add(other, at=made.AT - 10 * 365 * 86400) == "broker-class"
    launch = made.replace(other.launch[0], covers=("acpi",))
    assert add(made.replace(other, launch=(launch,))) == "broker-class"
    assert add(made.replace(other, launch=())) == "broker-class"
    assert add(made.replace(other, revoked=("0b" * 48,))) == "broker-class"
    assert add(made.replace(other, image_name="a/b")) == "broker-class"
    # A launch belongs to one class.
    assert add(made.values(image_name="other")) == "broker-class-overlap"
    assert add(made.values(svn=4)) == "broker-class-overlap"
    assert [item.image for item in classes.every(kept)] == ["demo"]
    # Newer values of the same class take the place of the older.
    longer = made.document(made.values(expires="never"))
    classes.add(kept, longer, public, pending=False, at=made.AT)
    assert classes.every(kept)[0].document == longer.data


def test_retired_versions_do_not_come_back(tmp_path):
    kept = made.kept(tmp_path / "db")
    public = [made.signer().public]
    for svn, digest in ((5, "05" * 48), (6, "06" * 48)):
        newer = made.document(made.with_digest(made.values(svn=svn), digest))
        classes.add(kept, newer, public, pending=svn == 6, at=made.AT)
    assert classes.retire(kept, "demo", 4) == (3,)
    assert [item.state for item in classes.every(kept)] == ["retired", "active", "pending"]
    again = made.document(made.values())
    assert code_of(classes.add, kept, again, public, pending=False, at=made.AT) == "broker-retired"
    assert code_of(classes.activate, kept, "demo", 3) == "broker-image"
    assert classes.activate(kept, "demo", 6) == (6,)
    assert classes.retire(kept, "demo", None) == (5, 6)
    assert classes.retire(kept, "demo", None) == ()
    assert code_of(classes.retire, kept, "nobody", None) == "broker-image"
    assert code_of(classes.retire, kept, "demo", 7) == "broker-image"
    assert get(kept).code == "class-not-active"


def test_resources(tmp_path):
    kept = made.kept(tmp_path / "db")

    def volume(path="a/b/c", **changes):
        words = {
            "uuid": "1" + made.UUID[1:], "profile": made.PROFILE, "key": made.KEY,
            "images": ["demo"], "volume": Volume(), "at": made.AT,
        }  # fmt: skip
        return code_of(resources.add_volume, kept, path, **(words | changes))

    assert volume(path="a/b") == "broker-resource"
    assert volume(path="../b/c") == "broker-resource"
    assert volume(path=made.PATH) == "broker-resource-exists"
    assert volume(uuid=made.UUID) == "broker-resource-exists"
    assert volume(images=["nobody"]) == "broker-image"
    for changes in (
        {"uuid": "x"}, {"profile": "x"}, {"key": b"short"},
        {"volume": Volume(state="in-use", generation=1)}, {"volume": Volume(record=D1)},
    ):  # fmt: skip
        assert volume(**changes) == "volume-key-field"
    big = bytes(resources.MAX_SECRET_BYTES + 1)
    assert code_of(resources.add_opaque, kept, "a/b/c", big, images=["demo"], at=1) == (
        "broker-resource"
    )
    assert [item.path for item in resources.every(kept)] == [made.PATH]
    assert made.KEY.hex() not in repr(resources.every(kept))


def test_many_at_once_get_it_once(tmp_path):
    """One guest, twenty keys of its own, several connections to the file: one release."""
    made.kept(tmp_path / "db").close()
    stores = [store.open_(tmp_path / "db") for _ in range(4)]
    outcomes, begin = [], threading.Barrier(20)

    def ask(number):
        begin.wait(made.LIMIT_S)
        guest = made.replace(GUEST, key_sha256=bytes([number]) * 32)
        outcomes.append(get(stores[number % 4], guest).code)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(made.LIMIT_S)
    assert sorted(outcomes) == ["released", *["released-already"] * 19]


KILLED = """\
import os, signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
import made_broker as made
from troth.keybroker import release, store
from test_guest import GUEST
kept = store.open_(Path({folder!r}))
def told(outcome):
    if {before}:
        os.kill(os.getpid(), signal.SIGKILL)
outcome = release.release(kept, GUEST, made.PATH, at=made.AT, told=told)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("before", [True, False])
def test_killed_before_or_after_the_decision(tmp_path, before):
    made.kept(tmp_path / "db").close()
    here = str(Path(__file__).parents[1])
    (tmp_path / "test_guest.py").write_text(
        "from troth.keybroker.release import Attested\n"
        f"GUEST = Attested({GUEST.image!r}, {GUEST.svn}, {GUEST.report_id!r}, "
        f"{GUEST.key_sha256!r})\n"
    )
    program = KILLED.format(paths=[here, str(tmp_path)], folder=str(tmp_path / "db"), before=before)
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = store.open_(tmp_path / "db")
    other = made.replace(GUEST, key_sha256=b"l" * 32)
    if before:
        # Nothing was decided, so nobody was given anything.
        assert get(kept, other).code == "released"
        return
    # Decided, and perhaps answered: another key gets nothing, the same gets the same answer.
    assert get(kept, other, at=made.AT + 1).code == "released-already"
    assert get(kept, at=made.AT + 1).code == "released-again"
    assert get(kept, made.replace(GUEST, report_id=b"\x09" * 32)).code == "volume-formatting"
    assert get(kept, at=made.AT + 61).code == "released-already"


def test_what_cannot_be_told_does_not_happen(tmp_path):
    kept = made.kept(tmp_path / "db")

    def told(_outcome):
        raise HostError("broker-audit", "the disk is full")

    with pytest.raises(HostError):
        release.release(kept, GUEST, made.PATH, at=made.AT, told=told)
    assert get(kept).code == "released"
    assert (
        release.commit(
            kept, GUEST, made.PATH, generation=1, digest=D1, at=made.AT, told=nothing
        ).code
        == "committed"
    )


def test_broken_database_is_an_error_of_the_host(tmp_path):
    kept = made.kept(tmp_path / "db")
    other = sqlite3.connect(tmp_path / "db/broker.sqlite3", isolation_level=None)
    other.execute("DROP TABLE releases")
    assert code_of(get, kept) == "broker-database"

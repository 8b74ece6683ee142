# SPDX-License-Identifier: Apache-2.0
import os

from hypothesis import given
from hypothesis import strategies as st

from troth.linux import tree
from troth.measure.workload import Entry, tree_digest
from troth.record import replace

ENTRY = Entry(b"opt/app", "f", 0o755, 0, 0, 3, b"\x01" * 32, ((b"security.capability", b"x"),))


def test_every_field_counts() -> None:
    base = tree_digest([ENTRY])
    changes = {
        "path": b"opt/apq", "kind": "l", "mode": 0o754, "uid": 1, "gid": 1, "size_bytes": 4,
        "content": b"\x02" * 32, "attributes": (),
    }  # fmt: skip
    assert set(changes) == set(ENTRY.__match_args__)
    digests = {tree_digest([replace(ENTRY, **{key: value})]) for key, value in changes.items()}
    assert len(digests | {base}) == len(changes) + 1


@given(st.permutations([replace(ENTRY, path=b"a/%d" % index) for index in range(4)]))
def test_order_does_not_count(entries: list[Entry]) -> None:
    assert tree_digest(entries) == tree_digest(sorted(entries, key=lambda entry: entry.path))


def test_fields_cannot_run_into_each_other() -> None:
    one = replace(ENTRY, path=b"ab", content=b"c")
    two = replace(ENTRY, path=b"a", content=b"bc")
    assert tree_digest([one]) != tree_digest([two])


def test_walk_sees_types_and_contents(tmp_path) -> None:
    app = tmp_path / "opt" / "app"
    app.mkdir(parents=True)
    (app / "run").write_bytes(b"#!/bin/sh\n")
    (app / "run").chmod(0o750)
    os.symlink("run", app / "link")
    (app / "empty").mkdir(mode=0o700)
    found = {entry.path: entry for entry in tree.entries(str(tmp_path), "/opt/app")}
    assert {path: entry.kind for path, entry in found.items()} == {
        b"opt/app": "d", b"opt/app/run": "f", b"opt/app/link": "l", b"opt/app/empty": "d",
    }  # fmt: skip
    assert found[b"opt/app/run"].mode == 0o750
    assert found[b"opt/app/link"].content == b"run"
    before = tree_digest(found.values())
    (app / "run").write_bytes(b"#!/bin/sh \n")
    assert tree_digest(tree.entries(str(tmp_path), "/opt/app")) != before


def test_names_lists_kinds_and_stays_inside(tmp_path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"")
    os.symlink("/etc", tmp_path / "l")
    os.mkfifo(tmp_path / "o")
    assert tree.names(str(tmp_path)) == {"d d", "f d/f", "l l", "o o"}


def test_open_inside_resolves_like_a_chroot(tmp_path) -> None:
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr" / "init").write_bytes(b"mine")
    os.symlink("/usr/init", tmp_path / "init")
    fd = tree.open_inside(str(tmp_path), "/init")
    try:
        assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "usr" / "init"))
    finally:
        os.close(fd)

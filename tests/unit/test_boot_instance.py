# SPDX-License-Identifier: Apache-2.0
"""Stage instance outside a guest: what it reads, in which order it acts, how its worker answers."""

import hashlib
import os
import stat
from types import SimpleNamespace

import pytest

from made_policy import INSTANCE
from troth.boot import instance
from troth.documents import instance_disk
from troth.errors import Refusal
from troth.linux import block
from troth.record import replace

FILE = b'{"schema":"troth-instance-v1","hostname":"one","values":{"region":"eu"}}\n'


class Log:
    def __init__(self):
        self.done = []

    def measure(self, kind, content):
        self.done.append((kind, content))

    def confirm(self):
        self.done.append("confirm")


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setattr(instance_disk, "PATH", str(tmp_path / "left.json"))
    monkeypatch.setattr(instance, "_HOSTNAME", str(tmp_path / "hostname"))
    monkeypatch.setattr(block, "disks", tuple)
    return tmp_path


def state(places, data, *, host_data=None, rules=INSTANCE):
    node = places / "disk"
    node.write_bytes(data + bytes(-len(data) % 512))
    host_data = hashlib.sha256(data).digest() if host_data is None else host_data
    return SimpleNamespace(
        policy=SimpleNamespace(instance=rules),
        own_report=SimpleNamespace(host_data=host_data),
        disks={"instance": SimpleNamespace(node=str(node))},
        events=Log(),
    )


def refused(made):
    with pytest.raises(Refusal) as caught:
        instance.run(made)
    return caught.value


def nothing_left(places):
    return not (places / "left.json").exists() and not (places / "hostname").exists()


def test_a_good_one(places):
    made = state(places, FILE)
    old = os.umask(0o022)
    try:
        instance.run(made)
    finally:
        os.umask(old)
    assert made.events.done == [("instance", hashlib.sha256(FILE).digest()), "confirm"]
    left = places / "left.json"
    assert left.read_bytes() == FILE
    assert stat.S_IMODE(left.stat().st_mode) == 0o644
    assert (places / "hostname").read_bytes() == b"one"


def test_the_longest_one(places):
    data = FILE.ljust(65536)
    instance.run(state(places, data))
    assert (places / "left.json").read_bytes() == data


def test_a_hostname_is_set_only_where_one_is_given(places):
    instance.run(state(places, b'{"schema":"troth-instance-v1"}'))
    assert (places / "left.json").exists()
    assert not (places / "hostname").exists()


@pytest.mark.parametrize(
    ("data", "changes", "code"),
    [
        (FILE, {"host_data": b"\1" * 32}, "instance-digest"),
        (FILE.ljust(65537), {}, "instance-size"),
        (b"", {}, "instance-size"),
        (FILE, {"rules": replace(INSTANCE, hostname=False)}, "instance-policy"),
        (b"nothing", {}, "instance-format"),
        (b'{"\xc3\xa9\\n\\u001b":1,"schema":"troth-instance-v1"}', {}, "instance-format"),
        (FILE, {"host_data": bytes(32)}, "instance-missing"),
    ],
)
def test_refusals(places, data, changes, code):
    made = state(places, data, **changes)
    error = refused(made)
    assert error.code == code
    assert error.message.isascii()
    assert error.message.isprintable()
    assert nothing_left(places)
    # What was measured before it was parsed stays measured; nothing else is.
    known = code in ("instance-policy", "instance-format")
    assert bool(made.events.done) == known


def test_a_disk_that_cannot_be_read(places):
    made = state(places, FILE)
    (places / "disk").unlink()
    assert refused(made).code == "instance-read"
    (places / "disk").mkdir()
    assert refused(made).code == "instance-read"


def test_none_is_named(places, monkeypatch):
    rules = replace(INSTANCE, need="optional")
    made = state(places, FILE, host_data=bytes(32), rules=rules)
    instance.run(made)
    assert made.events.done == []
    assert nothing_left(places)
    monkeypatch.setattr(block, "disks", lambda: (SimpleNamespace(serial="instance"),))
    assert refused(made).code == "instance-digest"


def test_a_worker_that_dies_accepts_nothing(places, monkeypatch):
    monkeypatch.setattr(instance, "_work", lambda *_: os._exit(1))
    assert refused(state(places, FILE)).code == "instance-format"
    assert nothing_left(places)

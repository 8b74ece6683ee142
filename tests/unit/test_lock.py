# SPDX-License-Identifier: Apache-2.0
"""troth.lock, and where its entries come from."""

from __future__ import annotations

import hashlib
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import lock as fuzz_lock
from troth import __version__
from troth.cli.main import main
from troth.documents import lock
from troth.documents.lock import Interpreter, Item, Kernel, Lock
from troth.errors import BuildError, FormatError, HostError
from troth.image import account, provenance
from troth.image import build as image_build
from troth.image.inputs import manifest
from troth.image.roots.root_tree import FILE, Entry, RootTree
from troth.record import replace

A, B = "a" * 64, "b" * 64
SAMPLE = Lock(
    kernel=Kernel("linux-image-6.12.1-cloud-amd64", "6.12.1-1", A),
    interpreter=Interpreter("/usr/bin/python3.11", "3.11.2", B),
    libraries=(Item("/lib/libz.so.1", A, "zlib1g", "1.2"), Item("/lib/libc.so.6", B, "", "")),
    tools=(Item("mkfs.erofs", A, "erofs-utils", "1.5-1"),),
)


def test_round_trip_in_one_order():
    data = lock.print_(SAMPLE)
    again = lock.parse(data)
    assert lock.print_(again) == data
    assert [item.name for item in again.libraries] == ["/lib/libc.so.6", "/lib/libz.so.1"]
    shuffled = replace(SAMPLE, libraries=SAMPLE.libraries[::-1])
    assert lock.print_(shuffled) == data
    assert lock.compare(SAMPLE, again) == ()
    lock.refuse_differences(())


def test_each_difference_is_named():
    other = Lock(
        kernel=replace(SAMPLE.kernel, version="6.12.2-1"),
        interpreter=replace(SAMPLE.interpreter, sha256=A),
        libraries=(replace(SAMPLE.libraries[0], sha256=B), Item("/lib/new.so", A, "", "")),
        tools=(),
    )
    found = lock.compare(SAMPLE, other)
    assert [item.what for item in found] == [
        "kernel",
        "interpreter",
        "library /lib/libc.so.6",
        "library /lib/libz.so.1",
        "library /lib/new.so",
        "tool mkfs.erofs",
    ]
    assert "6.12.2-1" in found[0].found
    assert found[2].found == "absent"
    assert found[4].locked == "absent"
    with pytest.raises(BuildError) as caught:
        lock.refuse_differences(found)
    assert caught.value.code == "lock-differs"
    assert all(item.what in caught.value.message for item in found)
    assert "--update" in caught.value.hint


def test_the_same_bytes_from_another_package_are_no_difference():
    newer = replace(SAMPLE.libraries[0], version="other")
    other = replace(SAMPLE, libraries=(newer, *SAMPLE.libraries[1:]))
    assert not lock.compare(SAMPLE, other)


def test_many_differences_are_counted():
    many = tuple(Item(f"/lib/{number}", A, "", "") for number in range(50))
    found = lock.compare(SAMPLE, replace(SAMPLE, tools=SAMPLE.tools + many))
    with pytest.raises(BuildError, match="and 42 more"):
        lock.refuse_differences(found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"schema": "troth-lock-v1"', '"schema": "troth-lock-v2"'),
        (A, A.upper()),
        ('"tools"', '"tolls"'),
        ('"package": "zlib1g"', '"package": 1'),
        ('"version": "1.2"', '"version": "1.2", "more": ""'),
    ],
)
def test_broken_locks(old, new):
    data = lock.print_(SAMPLE).decode()
    assert old in data
    with pytest.raises(FormatError):
        lock.parse(data.replace(old, new).encode())


@given(st.binary(max_size=100))
def test_arbitrary_bytes(data):
    fuzz_lock.fuzz(data)


@given(st.integers(0, 700), st.binary(max_size=3))
def test_mutated(offset, insert):
    data = lock.print_(SAMPLE)
    fuzz_lock.fuzz(data[:offset] + insert + data[offset + 1 :])


@pytest.mark.tool
def test_files_of_this_machine():
    if shutil.which("dpkg-query") is None:
        pytest.skip("needs the program dpkg-query")
    shell = os.path.realpath("/bin/sh")
    own = os.path.realpath(__file__)
    found = provenance.items([shell, own])
    by_name = {item.name: item for item in found}
    assert by_name[shell].package
    assert by_name[shell].version
    assert by_name[own].package == ""
    with open(own, "rb") as file:
        assert by_name[own].sha256 == hashlib.sha256(file.read()).hexdigest()
    tool, *libraries = provenance.tools(["tar"])
    assert (tool.name, tool.package) == ("tar", "tar")
    linked = {os.path.basename(item.name): item for item in libraries}
    libc = linked["libc.so.6"]
    assert libc.package == "libc6"
    with open(libc.name, "rb") as file:
        assert libc.sha256 == hashlib.sha256(file.read()).hexdigest()
    assert any(name.startswith("ld-linux") for name in linked)
    assert len(linked) == len(libraries)
    with pytest.raises(HostError):
        provenance.tools(["no-such-program"])


def test_packages_of_a_root(tmp_path):
    status = (
        "Package: b\nStatus: install ok installed\nVersion: 2\nDescription: x\n a: b\n\n"
        "Package: a\nStatus: install ok installed\nVersion: 1\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
    )
    with RootTree(tmp_path / "t") as tree:
        assert provenance.root_packages(tree) == ()
        entry = Entry(FILE, 0o644, size_bytes=len(status))
        tree.add_file("var/lib/dpkg/status", entry, (status.encode(),))
        found = provenance.root_packages(tree)
    assert [(item.name, item.version, item.origin) for item in found] == [
        ("a", "1", "root"),
        ("b", "2", "root"),
    ]


def test_a_script_has_no_libraries(tmp_path, monkeypatch):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (item,) = provenance.tools(["script"])
    assert item.sha256 == hashlib.sha256(b"#!/bin/sh\n").hexdigest()


def test_troth_itself_is_pinned(tmp_path):
    files = []
    for name in ("b", "a"):
        (tmp_path / name).write_text(name)
        files.append((str(tmp_path / name), f"lib/{name}.pyc"))
    sums = "".join(
        f"{hashlib.sha256(name.encode()).hexdigest()}  lib/{name}.pyc\n" for name in "ab"
    )
    item = provenance.troth(files)
    assert (item.name, item.version) == ("troth", __version__)
    assert item.sha256 == hashlib.sha256(sums.encode()).hexdigest()
    assert provenance.troth(files[::-1]) == item
    (tmp_path / "b").write_text("changed")
    other = replace(SAMPLE, tools=(provenance.troth(files),))
    (found,) = lock.compare(replace(SAMPLE, tools=(item,)), other)
    assert found.what == "tool troth"
    assert found.locked.startswith(f"troth {__version__} sha256:")


def test_the_lock_is_written_as_a_whole(tmp_path, monkeypatch):
    text = '[image]\nname = "x"\nkernel = "debian:linux-image"\n[root]\nsource = "r"\n'
    made = manifest.parse((text + '[tee]\nsnp = "none"\n').encode(), tmp_path / "troth.toml")
    (tmp_path / lock.FILE_NAME).write_text("old")
    account.write_lock(made, SAMPLE)
    assert account.read_lock(made) == lock.parse(lock.print_(SAMPLE))
    assert (tmp_path / lock.FILE_NAME).stat().st_mode & 0o777 == 0o644

    def refuses(_source, _target):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuses)
    with pytest.raises(HostError, match="Read-only") as caught:
        account.write_lock(made, replace(SAMPLE, tools=()))
    assert caught.value.code == "lock-write"
    assert os.listdir(tmp_path) == [lock.FILE_NAME]
    assert account.read_lock(made) == lock.parse(lock.print_(SAMPLE))


def test_no_bundle_without_its_lock(tmp_path, monkeypatch):
    """The lock is the last thing that can fail before a bundle is published."""
    text = '[image]\nname = "x"\nkernel = "debian:linux-image"\n[root]\nsource = "r"\n'
    (tmp_path / "in").mkdir()
    (tmp_path / "in/troth.toml").write_text(text + '[tee]\nsnp = "none"\n')
    monkeypatch.setattr(image_build, "make", lambda *_args, **_words: None)
    monkeypatch.setattr(account, "lock_of", lambda _made: SAMPLE)
    monkeypatch.setattr(
        account, "write", lambda _made, stage, used: (stage / "manifest.json").touch()
    )

    def refuses(_source, _target):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuses)
        assert main(["build", str(tmp_path / "in/troth.toml"), "-o", str(tmp_path / "out")]) == 3
    assert os.listdir(tmp_path) == ["in"]


def test_a_package_beside_troth_has_the_same_name_everywhere(tmp_path):
    """Another checkout's environment gives the same lock, byte for byte."""
    made = []
    for name in ("one", "two/deeper"):
        place = tmp_path / name / "lib/python3.11/site-packages"
        (place / "pkg").mkdir(parents=True)
        (place / "pkg/_ext.abi3.so").write_bytes(b"code")
        (place / "stray.so").write_bytes(b"more")
        info = place / "pkg_name-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pkg-name\nVersion: 1.5\n")
        (info / "RECORD").write_text("pkg/_ext.abi3.so,,\n")
        paths = [str(place / "pkg/_ext.abi3.so"), str(place / "stray.so")]
        made.append(provenance.items(paths))
    assert made[0] == made[1]
    assert [(item.name, item.package, item.version) for item in made[0]] == [
        ("python:pkg/_ext.abi3.so", "pkg-name", "1.5"), ("python:stray.so", "", ""),
    ]  # fmt: skip
    assert made[0][0].sha256 == hashlib.sha256(b"code").hexdigest()

# SPDX-License-Identifier: Apache-2.0
"""What ``-o`` may name, and what is left behind where it cannot be written."""

import os
import resource
import stat
import subprocess
import sys
import threading

import pytest

from troth.cli import output_file
from troth.errors import UsageError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_as_a_whole_and_others_may_read_it(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    path.chmod(0o600)
    mask = os.umask(0o027)
    try:
        with output_file.replaced(str(path)) as stream:
            stream.write(b"new")
            stream.flush()
            stream.seek(0)
            assert (stream.read(), path.read_bytes()) == (b"new", b"old")
    finally:
        os.umask(mask)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(tmp_path) == ["out"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def fail():
        with output_file.replaced(str(path)) as stream:
            stream.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


def test_a_link_stays_and_what_it_names_is_written(tmp_path):
    (tmp_path / "far").mkdir()
    link = tmp_path / "link"
    link.symlink_to("far/out")
    output_file.write(str(link), b"data")
    assert link.is_symlink()
    assert (tmp_path / "far" / "out").read_bytes() == b"data"
    assert names(tmp_path) == ["far", "link"]


def test_a_pipe_is_not_replaced(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    output_file.write(str(path), b"data")
    reader.join(timeout=10)
    assert got == [b"data"]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_standard_output_by_its_name():
    code = "from troth.cli import output_file; output_file.write('/dev/stdout', b'data')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"data", b"")


@pytest.mark.parametrize("name", ["folder", "folder/", "absent/", "absent/out", "file/out", "loop"])
def test_names_that_cannot_be_written(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    before = names(tmp_path)
    with pytest.raises(UsageError) as caught:
        output_file.write(f"{tmp_path}/{name}", b"data")
    assert (caught.value.code, caught.value.where) == ("output-file", f"{tmp_path}/{name}")
    assert names(tmp_path) == before


def test_a_full_disk_is_said_with_the_name(tmp_path):
    path = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As good as a full disk; Python ignores the signal that comes with it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(UsageError) as caught:
            output_file.write(str(path), bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (caught.value.code, caught.value.where) == ("output-file", str(path))
    assert names(tmp_path) == []


def test_a_device_that_takes_nothing():
    with pytest.raises(UsageError) as caught:
        output_file.write("/dev/full", b"data")
    assert (caught.value.code, caught.value.where) == ("output-file", "/dev/full")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)

# SPDX-License-Identifier: Apache-2.0
"""A ready image read back: the same workload digest as of the tree it was made from."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import erofs as fuzz_erofs
from other_user import need_another_user
from troth.abi import erofs
from troth.errors import BuildError, FormatError
from troth.image import workload_entries
from troth.image.roots import root, tree_ready
from troth.image.roots.root_tree import BLOCK, CHARACTER, FIFO, LINK

SBIN = os.environ["PATH"] + ":/usr/sbin:/sbin"
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
TOOLS = {
    "erofs": ("mkfs.erofs", "fsck.erofs"),
    "squashfs": ("mksquashfs", "unsquashfs"),
    "ext4": ("mkfs.ext4", "debugfs"),
}


def need(file_system: str) -> None:
    for program in (*TOOLS[file_system], "fakeroot"):
        if shutil.which(program, path=SBIN) is None:
            pytest.skip(f"needs the program {program}")


def tar(path):
    """Owners, modes, links, hard links, nodes and a capability."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:

        def add(name, kind=tarfile.REGTYPE, data=b"", **values):
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(data)
            for key, value in values.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))

        add("./", tarfile.DIRTYPE, mode=0o755)
        add("./opt", tarfile.DIRTYPE, mode=0o755)
        add("./opt/app", tarfile.DIRTYPE, mode=0o555, uid=1000, gid=1000)
        add("./opt/app/closed", tarfile.DIRTYPE, mode=0o700, uid=70000, gid=100000)
        add("./opt/app/closed/read", data=b"r" * 5000, mode=0o444, uid=1000, gid=1001)
        add("./opt/app/none", data=b"n", mode=0)
        headers = {"SCHILY.xattr.security.capability": CAPABILITY.decode()}
        add("./opt/app/ping", data=b"elf" * 9000, mode=0o4755, uid=1000, pax_headers=headers)
        add("./opt/app/pong", tarfile.LNKTYPE, linkname="./opt/app/ping")
        add("./opt/app/z\u00e9", data=b"", mode=0o2711, gid=5)
        add("./opt/app/now", tarfile.SYMTYPE, linkname="clos\u00e9d", uid=3)
        add("./opt/app/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3)
        add("./opt/app/disk", tarfile.BLKTYPE, mode=0o660, gid=6, devmajor=254, devminor=300)
        add("./opt/app/pipe", tarfile.FIFOTYPE, mode=0o600, uid=1000)
        for number in range(300):
            add(f"./opt/app/many/name-{number:040}", data=b"%d" % number, mode=0o644)
    return path


def build(source, work, **changes):
    work.mkdir()
    request = root.RootRequest(source=source, image_name="demo", volume="root", **changes)
    return root.make_root(request, work / "root.img", work=work)


def ready(made, path):
    """The file system alone, without its hash tree."""
    path.write_bytes(made.path.read_bytes()[: made.verity.data_blocks * 4096])
    return path


@pytest.mark.tool
@pytest.mark.parametrize("file_system", sorted(TOOLS))
def test_a_ready_image_has_the_digest_of_its_source(tmp_path, file_system):
    need(file_system)
    made = build(tar(tmp_path / "r.tar"), tmp_path / "w1", file_system=file_system)
    found = build(ready(made, tmp_path / "ready.img"), tmp_path / "w2")
    assert found.ready
    assert found.tree.doubts == {}
    one, two = made.tree.entries, found.tree.entries
    assert {path for path in two if path.startswith("opt")} == set(one) - {""}
    assert two["opt/app/closed"].uid == 70000
    assert two["opt/app/ping"].attributes == (("security.capability", CAPABILITY),)
    assert two["opt/app/pong"].same_as == "opt/app/ping"
    assert (two["opt/app/disk"].kind, two["opt/app/disk"].device) == (BLOCK, (254, 300))
    assert two["opt/app/null"].kind == CHARACTER
    assert (two["opt/app/pipe"].kind, two["opt/app/now"].kind) == (FIFO, LINK)
    for path in ("/opt", "/opt/app", "/opt/app/closed/read"):
        want = workload_entries.of_root(made.tree, (path,))
        assert workload_entries.of_root(found.tree, (path,)) == want


@pytest.mark.tool
@pytest.mark.root
@pytest.mark.parametrize("file_system", sorted(TOOLS))
def test_the_digest_is_what_anybody_reads(tmp_path, file_system):
    """Without root nothing of the unpacked copy has the owners and modes of the image."""
    need(file_system)
    need_another_user()
    made = build(tar(tmp_path / "r.tar"), tmp_path / "w1", file_system=file_system)
    image = ready(made, tmp_path / "ready.img")
    want = workload_entries.of_root(made.tree, ("/opt/app",))
    place = tmp_path / "theirs"
    place.mkdir()
    for path in (place, *place.parents):
        if path.owner() == "root" and str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | 0o055)
    os.chown(place, 65534, 65534)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            tree = tree_ready.read(image, file_system, work=place)
            status = 0 if workload_entries.of_root(tree, ("/opt/app",)) == want else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.tool
def test_what_cannot_be_read_back_is_not_predicted(tmp_path):
    need("ext4")
    source = tmp_path / "a"
    (source / "opt").mkdir(parents=True)
    (source / "opt" / "a\n").write_bytes(b"x")
    image = tmp_path / "x.img"
    command = ["mkfs.ext4", "-q", "-b", "4096", "-O", "^has_journal", "-d", source, image, "8M"]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": SBIN})
    (tmp_path / "w").mkdir()
    tree = tree_ready.read(image, "ext4", work=tmp_path / "w", where="troth.toml:3")
    assert tree.resolve("/opt") == "opt"
    with pytest.raises(BuildError, match="cannot show") as caught:
        workload_entries.of_root(tree, ("/opt",))
    assert (caught.value.code, caught.value.where) == ("workload-ready", "troth.toml:3")
    assert "tar" in caught.value.hint


@pytest.mark.tool
def test_a_socket_is_no_workload(tmp_path):
    need("erofs")
    image = erofs_image(tmp_path)
    (tmp_path / "w").mkdir()
    tree = tree_ready.read(image, "erofs", work=tmp_path / "w")
    assert tree.doubts == {"run/s": "is a socket"}
    workload_entries.of_root(tree, ("/opt",))
    with pytest.raises(BuildError) as caught:
        workload_entries.of_root(tree, ("/run",))
    assert caught.value.code == "workload-ready"


def erofs_image(folder):
    import socket

    source = folder / "source"
    for name in ("opt/b", "run"):
        (source / name).mkdir(parents=True)
    (source / "opt/a").write_bytes(b"x" * 100)
    (source / "opt/b/c").symlink_to("../a")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(source / "run/s"))
    image = folder / "e.img"
    command = ["mkfs.erofs", "--quiet", "-T0", image, source]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": SBIN})
    return image


@given(st.binary(max_size=3000))
def test_arbitrary_bytes(data):
    fuzz_erofs.fuzz(data)
    fuzz_erofs.fuzz(bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(8) + b"\x0c" + data)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    need("erofs")
    return erofs_image(tmp_path_factory.mktemp("erofs")).read_bytes()


@pytest.mark.tool
@given(data=st.data())
def test_mutated(sample, data):
    end = len(sample.rstrip(b"\0"))
    at = data.draw(st.integers(1024, end - 1))
    put = data.draw(st.binary(min_size=1, max_size=8))
    cut = data.draw(st.integers(0, end))
    fuzz_erofs.fuzz(sample[:at] + put + sample[at + len(put) :])
    fuzz_erofs.fuzz(sample[:cut])


def test_what_is_no_erofs():
    with pytest.raises(FormatError) as caught:
        list(erofs.walk(io.BytesIO(bytes(4096))))
    assert caught.value.code == "erofs-superblock"

# SPDX-License-Identifier: Apache-2.0
"""Roots from directories, tars and ready images: the same bytes wherever and by whomever."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING

import pytest

from other_user import need_another_user
from troth.errors import BuildError, FormatError
from troth.image.inputs.kernel import Kernel
from troth.image.roots import root, root_lint
from troth.image.roots.root import ROOT_MOUNT_POINTS, RootRequest, make_root
from troth.image.roots.root_tree import CHARACTER, DIRECTORY, FILE, LINK, RootTree
from troth.image.roots.tree_image import run_fake

if TYPE_CHECKING:
    from pathlib import Path

TOOLS = {"erofs": "mkfs.erofs", "squashfs": "mksquashfs", "ext4": "debugfs"}
SBIN = os.environ["PATH"] + ":/usr/sbin:/sbin"
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def need(*programs: str) -> None:
    for program in (*programs, "fakeroot"):
        if shutil.which(program, path=SBIN) is None:
            pytest.skip(f"needs the program {program}")


def sample(folder: Path, *, backwards: bool = False) -> Path:
    files = {
        "sbin/init": ("#!/bin/sh\n", 0o755),
        "etc/passwd": ("root:x:0:0::/root:/bin/sh\n", 0o644),
        "opt/app/run": ("x" * 70000, 0o4755),
        'opt/app/odd "name" é': ("", 0o600),
        "usr/lib/libx.so": ("elf" * 5000, 0o644),
        **{f"usr/share/d{n % 5}/f{n}": (f"{n}" * n, 0o644) for n in range(120)},
    }
    for name in reversed(files) if backwards else files:
        text, mode = files[name]
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    (folder / "lib").symlink_to("usr/lib")
    os.link(folder / "usr/lib/libx.so", folder / "opt/app/copy.so")
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    folder.chmod(0o755)
    return folder


def build(source: Path, work: Path, **changes) -> root.RootImage:
    work.mkdir(parents=True)
    options = {"mount_points": ROOT_MOUNT_POINTS, **changes}
    request = RootRequest(source=source, image_name="demo", volume="root", **options)
    return make_root(request, work / "root.img", work=work)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.tool
def test_two_builds_differ_in_nothing(tmp_path, monkeypatch):
    need(*TOOLS.values())
    source = sample(tmp_path / "a")
    first = {name: build(source, tmp_path / f"1{name}", file_system=name) for name in TOOLS}
    deep = tmp_path / "another" / "place"
    deep.mkdir(parents=True)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    time.sleep(1.1)  # "now" and change times must be seen to differ
    copy = sample(deep / "b", backwards=True)
    other = sample(tmp_path / "c")
    (other / "etc/passwd").write_text("root:x:0:0::/root:/bin/bsh\n")
    for name, one in first.items():
        two = build(copy, deep / f"2{name}", file_system=name)
        assert digest(one.path) == digest(two.path), name
        assert one.verity.root_hash == two.verity.root_hash
        assert one.path.stat().st_size % 4096 == 0
        assert one.verity.superblock_block == one.verity.data_blocks
        three = build(other, tmp_path / f"3{name}", file_system=name)
        assert three.verity.root_hash != one.verity.root_hash
        assert three.verity.superblock.salt != one.verity.superblock.salt


@pytest.mark.tool
@pytest.mark.root
@pytest.mark.parametrize("file_system", sorted(TOOLS))
def test_another_user_builds_the_same(tmp_path, file_system):
    need(TOOLS[file_system], "setpriv")
    need_another_user()
    archive = tar_of(tmp_path / "r.tar")
    ours = build(archive, tmp_path / "w1", file_system=file_system)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.chmod(tmp_path, 0o777)
            for folder in tmp_path.parents:
                if str(folder).startswith("/tmp/") and folder.owner() == "root":
                    os.chmod(folder, 0o755)
            os.setgroups([])
            os.setgid(4242)
            os.setuid(4242)
            os.umask(0o077)
            build(archive, tmp_path / "w2", file_system=file_system)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert digest(ours.path) == digest(tmp_path / "w2" / "root.img")


def tar_of(path: Path, mode: str = "w") -> Path:
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:

        def add(name, kind=tarfile.REGTYPE, data=b"", **values):
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = len(data)
            for key, value in values.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))

        add("./", tarfile.DIRTYPE, mode=0o755)
        add("./etc", tarfile.DIRTYPE, mode=0o750, uid=5, gid=6)
        add("./etc/shadow", data=b"secret", mode=0o640, uid=0, gid=42)
        add(
            "./bin/ping",
            data=b"elf" * 9000,
            mode=0o755,
            pax_headers={"SCHILY.xattr.security.capability": CAPABILITY.decode()},
        )
        add("./bin/pong", tarfile.LNKTYPE, linkname="./bin/ping")
        add("./sbin/init", tarfile.SYMTYPE, linkname="/bin/ping")
        add("./dev/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3)
        add("./dev/vda", tarfile.BLKTYPE, mode=0o660, gid=6, devmajor=254, devminor=0)
        add("./var/pipe", tarfile.FIFOTYPE, mode=0o600)
        add("./etc", tarfile.DIRTYPE, mode=0o755)
        add("./" + "long/" * 40 + "name", data=b"deep")
        add("./usr/\u00e9t\u00e9", data=b"", uid=3_000_000)
    return path


@pytest.mark.tool
def test_tar_keeps_owners_modes_nodes_links_and_capabilities(tmp_path):
    need("mkfs.erofs", "dump.erofs", "fsck.erofs")
    made = build(tar_of(tmp_path / "r.tar"), tmp_path / "w")
    entries = made.tree.entries
    assert entries["etc"].mode == 0o755
    assert (entries["etc/shadow"].mode, entries["etc/shadow"].gid) == (0o640, 42)
    assert entries["dev/null"].kind == CHARACTER
    assert entries["dev/null"].device == (1, 3)
    assert entries["bin/pong"].same_as == "bin/ping"
    assert entries["bin/ping"].attributes == (("security.capability", CAPABILITY),)
    assert entries["long/long"].kind == DIRECTORY
    assert entries["tmp"].mode == 0o1777
    subprocess.run(["fsck.erofs", made.path], check=True, capture_output=True)

    def shown(path):
        return subprocess.run(
            ["dump.erofs", f"--path={path}", made.path], check=True, capture_output=True, text=True
        ).stdout

    assert "char dev" in shown("/dev/null")
    assert "0666" in shown("/dev/null")
    assert "Gid: 42" in shown("/etc/shadow")
    assert "Links: 2" in shown("/bin/ping")
    assert "Xattr size: 0" not in shown("/bin/ping")
    assert "Uid: 3000000" in shown("/usr/été")
    assert "1970-01-01 00:00:00" in shown("/etc/shadow")
    assert not (made.tree.folder / "dev/null").is_char_device()


@pytest.mark.tool
@pytest.mark.parametrize("suffix", ["gz", "xz", "zst"])
def test_compressed_tars_are_the_same_root(tmp_path, suffix):
    need("mkfs.erofs", "zstd", "xz", "gzip")
    plain = tar_of(tmp_path / "r.tar")
    packed = tmp_path / f"r.tar.{suffix}"
    program = {"gz": "gzip", "xz": "xz", "zst": "zstd"}[suffix]
    with packed.open("wb") as output:
        subprocess.run([program, "-c", plain], stdout=output, check=True, stderr=subprocess.DEVNULL)
    want = build(plain, tmp_path / "w1")
    found = build(packed, tmp_path / "w2")
    assert digest(want.path) == digest(found.path)
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(BuildError) as caught:
        build(packed, tmp_path / "w3")
    assert caught.value.code == "archive-broken"


@pytest.mark.tool
@pytest.mark.parametrize("file_system", sorted(TOOLS))
def test_ready_images_are_taken_as_they_are(tmp_path, file_system):
    need(TOOLS[file_system], "unsquashfs", "fsck.erofs", "debugfs")
    made = build(sample(tmp_path / "a"), tmp_path / "w1", file_system=file_system)
    image = tmp_path / "ready.img"
    data_bytes = made.verity.data_blocks * 4096
    image.write_bytes(made.path.read_bytes()[:data_bytes])
    found = build(image, tmp_path / "w2")
    assert found.ready
    assert found.file_system == file_system
    assert digest(found.path) == digest(made.path)
    assert found.tree.entries["opt/app/run"].kind == FILE
    assert found.tree.resolve("/lib/libx.so") == "usr/lib/libx.so"
    root_lint.lint(found.tree, init="/sbin/init", workload=("/opt/app",))
    with pytest.raises(BuildError, match="/srv/models"):
        build(image, tmp_path / "w3", mount_points=(("/srv/models", 0o755),))
    kernel = Kernel("6.1", tmp_path, tmp_path, "", "", "")
    with pytest.raises(BuildError) as caught:
        build(image, tmp_path / "w4", kernel=kernel)
    assert caught.value.code == "ready-image"
    image.write_bytes(image.read_bytes()[:4096] + os.urandom(8192))
    with pytest.raises((BuildError, FormatError)):
        build(image, tmp_path / "w5")


@pytest.mark.tool
def test_ext4_is_sound_and_says_what_the_tree_says(tmp_path):
    need("debugfs", "e2fsck")
    made = build(tar_of(tmp_path / "r.tar"), tmp_path / "w", file_system="ext4")
    checked = subprocess.run(
        ["e2fsck", "-fn", made.path],
        env={"PATH": SBIN},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout

    def shown(path):
        return subprocess.run(
            ["debugfs", "-R", f'stat "{path}"', made.path],
            env={"PATH": SBIN, "TZ": "UTC"}, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    assert "Mode:  0640" in shown("/etc/shadow")
    assert "Group:    42" in shown("/etc/shadow")
    assert "character special" in shown("/dev/null")
    assert "Links: 2" in shown("/bin/pong")
    assert "security.capability" in shown("/bin/ping")
    assert "FIFO" in shown("/var/pipe")
    assert made.options == "noload"


@pytest.mark.tool
def test_directory_owners_and_attributes_do_not_get_in(tmp_path):
    need("mkfs.erofs", "dump.erofs")
    source = sample(tmp_path / "a")
    before = build(source, tmp_path / "w1")
    if os.geteuid() == 0:
        os.chown(source / "etc/passwd", 1234, 1234)
        os.setxattr(source / "etc/passwd", "user.note", b"x")
    after = build(source, tmp_path / "w2")
    assert digest(before.path) == digest(after.path)
    assert after.tree.entries["opt/app/run"].mode == 0o4755


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_special_files_of_a_directory_are_refused_by_name(tmp_path, kind):
    import socket

    source = tmp_path / "a"
    source.mkdir()
    if kind == "fifo":
        os.mkfifo(source / "odd")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(source / "odd"))
    with pytest.raises(BuildError, match="odd") as caught:
        build(source, tmp_path / "w")
    assert caught.value.code == "source-file"


def test_sources_that_are_nothing(tmp_path):
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BuildError) as caught:
        build(tmp_path / "text", tmp_path / "w1")
    assert caught.value.code == "source-kind"
    with pytest.raises(BuildError) as caught:
        build(tmp_path / "absent", tmp_path / "w2")
    assert caught.value.code == "source-missing"


@pytest.mark.tool
def test_mount_points_are_made_and_must_be_directories(tmp_path):
    need("mkfs.erofs")
    points = (*ROOT_MOUNT_POINTS, ("/srv/deep/models", 0o755))
    made = build(sample(tmp_path / "a"), tmp_path / "w1", mount_points=points)
    assert made.tree.entries["srv/deep/models"].kind == DIRECTORY
    (tmp_path / "a/srv").symlink_to("/var")
    with pytest.raises(BuildError) as caught:
        build(tmp_path / "a", tmp_path / "w2", mount_points=points)
    assert caught.value.code == "mount-point"


def module_directory(folder: Path, *, indexed: bool) -> Kernel:
    (folder / "kernel/drivers").mkdir(parents=True)
    (folder / "kernel/drivers/x.ko").write_bytes(b"module")
    (folder / "modules.order").write_text("kernel/drivers/x.ko\n")
    (folder / "modules.builtin").write_text("")
    (folder / "build").symlink_to("/usr/src/linux")
    if indexed:
        (folder / "modules.dep").write_text("kernel/drivers/x.ko:\n")
    return Kernel("6.12.0-x", folder / "vmlinuz", folder, "", "", "")


@pytest.mark.tool
@pytest.mark.parametrize(("merged", "where"), [(True, "usr/lib"), (False, "lib")])
def test_module_tree_goes_where_the_root_keeps_libraries(tmp_path, merged, where):
    need("mkfs.erofs")
    source = sample(tmp_path / "a")
    if not merged:
        (source / "lib").unlink()
        (source / "lib").mkdir()
    kernel = module_directory(tmp_path / "m", indexed=True)
    made = build(source, tmp_path / "w1", kernel=kernel)
    assert made.tree.entries[f"{where}/modules/6.12.0-x/kernel/drivers/x.ko"].kind == FILE
    assert f"{where}/modules/6.12.0-x/modules.dep" in made.tree.entries
    assert f"{where}/modules/6.12.0-x/build" not in made.tree.entries
    assert made.tree.entries.get("lib", made.tree.entries["usr"]).kind == (
        LINK if merged else DIRECTORY
    )
    (source / where / "modules/6.12.0-x").mkdir(parents=True)
    with pytest.raises(BuildError) as caught:
        build(source, tmp_path / "w2", kernel=kernel)
    assert caught.value.code == "modules-present"


@pytest.mark.tool
def test_module_index_is_made_by_depmod(tmp_path):
    need("mkfs.erofs", "depmod")
    kernel = module_directory(tmp_path / "m", indexed=False)
    made = build(sample(tmp_path / "a"), tmp_path / "w1", kernel=kernel)
    assert "usr/lib/modules/6.12.0-x/modules.dep" in made.tree.entries


@pytest.mark.tool
def test_failing_programs_are_quoted(tmp_path):
    need("mkfs.erofs")
    (tmp_path / "w").mkdir()
    with RootTree(tmp_path / "t") as tree, pytest.raises(BuildError) as caught:
        run_fake(tree, ["mkfs.erofs", "--nonsense"], work=tmp_path / "w")
    assert caught.value.code == "program-failed"


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "4294967296", "\u0661"])
def test_source_date(monkeypatch, text):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(BuildError):
        root.source_date_epoch()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert root.source_date_epoch() == 1700000000

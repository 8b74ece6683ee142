# SPDX-License-Identifier: Apache-2.0
"""The initramfs as a whole: layout, reasons, identical bytes, budgets, the launcher."""

import hashlib
import os
import shutil
import subprocess
import sys

import pytest

from made_kernel import module_bytes, module_tree
from made_policy import policy
from troth.abi import cpio
from troth.errors import BuildError
from troth.image.inputs import interpreter as python
from troth.image.packing import entry, initramfs, launcher, module_closure, profile, python_closure
from troth.record import replace

pytestmark = pytest.mark.tool


@pytest.fixture(scope="module", autouse=True)
def tools():
    missing = [name for name in ("as", "ld", "strip") if shutil.which(name) is None]
    if missing or not python.DEFAULT.exists():
        pytest.skip(f"needs {python.DEFAULT} and binutils; missing: {missing}")


def request_for(place, **fields):
    wanted = policy(**fields)
    tree = module_tree(
        place,
        {
            f"{name}.ko": module_bytes()
            for name in ("virtio_pci", "virtio_blk", "dm-verity", "overlay", "erofs")
        },
    )
    profiles = profile.profiles_of(wanted)
    names = profile.kernel_modules(wanted, profiles, profile.load_platform("virtio"))
    return initramfs.Request(wanted, python.identify(), module_closure.close(tree, names), profiles)


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    return initramfs.collect(request_for(tmp_path_factory.mktemp("modules")))


@pytest.fixture(scope="module")
def entries(collected):
    return initramfs.bake(collected, policy_json=b"{}", twin="POLICY = {}\n")


def test_layout(collected, entries):
    version = collected.interpreter.version
    by_path = {item.path: item for item in entries}
    assert by_path["init"].mode == 0o755
    assert by_path["init"].data.startswith(f"#!/usr/bin/python{version} -ISB\n".encode())
    assert {path: by_path[path].target for path in ("usr", "lib", "lib64", "runtime/lib")} == {
        "usr": "runtime/usr",
        "lib": "runtime/usr/lib",
        "lib64": "runtime/lib64",
        "runtime/lib": "usr/lib",
    }
    assert by_path["runtime/etc/troth/policy.json"].data == b"{}"
    for path in ("runtime/lib64/ld-linux-x86-64.so.2", f"runtime/usr/bin/python{version}"):
        assert by_path[path].mode == 0o755
    for name in ("proc", "sys", "dev", "run", "tmp"):
        assert by_path[name].kind == by_path[f"runtime/{name}"].kind == "directory"
    assert f"runtime/usr/lib/python{version}/troth/boot/verity.pyc" in by_path
    assert f"runtime/usr/lib/python{version}/troth_baked.pyc" in by_path
    assert "modules/dm-verity.ko" in by_path
    assert not [path for path in by_path if path.endswith(".py")]


def test_where_files_came_from(collected):
    paths = {item.path for item in collected.entries}
    for files in (collected.elf_files, collected.python_files):
        assert files
        for origin, path in files:
            assert os.path.isfile(origin)
            assert path in paths
    assert not [path for _origin, path in collected.python_files if "/troth/" in path]


def test_troths_own_files_are_told_apart(collected, entries):
    """The lock pins them: each packed module of troth, init and launcher, nothing else."""
    names = {path for _origin, path in collected.troth_files}
    packed = {item.path for item in entries if "/troth/" in item.path and item.kind == "file"}
    assert {name for name in names if name.endswith(".pyc")} == {
        name for name in packed if name.endswith(".pyc")
    }
    assert {"init", "runtime/bin/troth"} <= names
    assert not names & {path for _origin, path in collected.python_files}
    assert all(os.path.isfile(origin) for origin, _path in collected.troth_files)


def test_every_entry_says_why(entries):
    assert all(item.why.strip() for item in entries)
    assert all(item.mode & 0o022 == 0 for item in entries if item.kind == "file")


def test_paths_are_known_before_the_policy_is_baked(collected, entries):
    assert collected.paths == tuple((item.path, item.kind) for item in entries)


def test_stages_follow_the_policy(tmp_path):
    wanted = policy(volumes=(), overlay="none", kind="supervise")
    modules = [name for name, _ in initramfs.entry_modules(wanted, profile.profiles_of(wanted))]
    assert "troth.boot.verity" not in modules
    assert "troth.boot.supervise" in modules
    assert not profile.kernel_modules(
        wanted, profile.profiles_of(wanted), profile.load_platform("virtio")
    )


def test_kernel_modules_by_policy():
    wanted = policy()
    profiles = profile.profiles_of(wanted)
    found = profile.kernel_modules(
        wanted, profiles, profile.load_platform("virtio"), ["virtio_net"]
    )
    assert [item.name for item in found] == [
        "sha256_ssse3",  # before all others: their signatures are hashed too
        "virtio_pci",
        "virtio_blk",
        "dm-verity",
        "overlay",
        "erofs",
        "virtio_net",
    ]
    assert [item.name for item in found if item.may_be_missing] == ["sha256_ssse3"]


DIGEST = """
import hashlib, pathlib, sys
sys.path[:0] = [{tests!r}, {agent!r}]
from unit_request import request_for
from troth.image.packing import entry, initramfs
collected = initramfs.collect(request_for(pathlib.Path(sys.argv[1])))
twin = "POLICY = {{'a': frozenset(('x', 'y', 'z'))}}\\n"
print(hashlib.sha256(entry.archive(
    initramfs.bake(collected, policy_json=b"{{}}", twin=twin))).hexdigest())
"""


def test_identical_bytes_in_another_place_language_and_time_zone(tmp_path):
    """The whole path in fresh processes that differ in all a caller's environment may change."""
    agent = str(python_closure.package_root())
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    (tmp_path / "lib").mkdir()
    shutil.copy(__file__, tmp_path / "lib/unit_request.py")
    moved = tmp_path / "moved" / "elsewhere"
    moved.mkdir(parents=True)
    shutil.copytree(
        os.path.join(agent, "troth"), moved / "troth",
        ignore=shutil.ignore_patterns("__pycache__"),
    )  # fmt: skip
    digests = []
    for number, (root, extra) in enumerate(
        [
            (agent, {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "1"}),
            (str(moved), {"LC_ALL": "C.UTF-8", "LANG": "de_DE.UTF-8", "TZ": "Asia/Kathmandu",
                          "PYTHONHASHSEED": "77", "PYTHONOPTIMIZE": "1", "LD_BIND_NOW": "1",
                          "SOURCE_DATE_EPOCH": "5"}),
        ]
    ):  # fmt: skip
        scratch = tmp_path / f"scratch-{number}"
        scratch.mkdir(mode=0o700)
        done = subprocess.run(
            [sys.executable, "-c", DIGEST.format(tests=tests, agent=root), scratch / "modules"],
            env={"PATH": os.environ["PATH"], "TMPDIR": str(scratch), "HOME": str(scratch),
                 "PYTHONPATH": str(tmp_path / "lib"), "PYTHONDONTWRITEBYTECODE": "1", **extra},
            cwd=scratch,
            umask=0o077 if number else 0o022,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        digests.append(done.stdout)
    assert digests[0] == digests[1]


def test_no_path_of_this_machine_gets_in(entries):
    archive = entry.archive(entries)
    for word in (os.path.dirname(initramfs.__file__), os.getcwd(), os.environ.get("HOME", "~~")):
        if len(word) > 5:
            assert word.encode() not in archive


def test_files_go_below_app(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files/run").write_bytes(b"#!/usr/bin/python3\n")
    (tmp_path / "files/run").chmod(0o755)
    request = request_for(tmp_path / "m", volumes=(), overlay="none", kind="supervise")
    found = initramfs.collect(replace(request, files=tmp_path / "files"))
    by_path = {item.path: item for item in found.entries}
    assert by_path["app/run"].mode == 0o755
    assert by_path["app/run"].why == "[initramfs] files"
    assert "modules/dm-verity.ko" not in by_path


def test_an_image_above_its_budget(tmp_path):
    request = request_for(tmp_path)
    small = tuple(replace(item, budget_bytes=1000) for item in request.profiles)
    with pytest.raises(BuildError, match="base, verity, overlay allow 3000") as caught:
        initramfs.collect(replace(request, profiles=small))
    assert caught.value.code == "initramfs-budget"


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("init", "#!/bin/sh\n", "initramfs-init"),
        ("profiles/base.toml", "python = 1\n", "profile-format"),
        ("profiles/base.toml", "python = [\n", "profile-format"),
        ("profiles/base.toml", None, "profile-format"),
        ("launcher.S", None, "initramfs-data"),
    ],
)
def test_broken_data(tmp_path, name, text, code):
    data = tmp_path / "data"
    shutil.copytree(profile.data_directory(), data)
    if text is None:
        (data / name).unlink()
    else:
        (data / name).write_text(text)
    request = request_for(tmp_path / "m")
    with pytest.raises(BuildError) as caught:  # noqa: PT012 - which call reads which file
        if name.startswith("profiles/"):
            profile.profiles_of(request.policy, data=data)
        else:
            initramfs.collect(request, data=data)
    assert caught.value.code == code


def test_unknown_keys_of_a_profile(tmp_path):
    shutil.copytree(profile.data_directory(), tmp_path / "data")
    path = tmp_path / "data/profiles/base.toml"
    path.write_text(path.read_text() + "colour = 1\n")
    with pytest.raises(BuildError, match="colour is not known"):
        profile.load("base", data=tmp_path / "data")


def test_the_launcher_passes_its_words_and_nothing_else(tmp_path):
    target = python.identify()
    loader = next(path for path in ("/lib64/ld-linux-x86-64.so.2",) if os.path.exists(path))
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, os\n"
        "e = os.environ\n"
        "print(sys.argv[1:], 'LD_PRELOAD' in e, 'HOME' in e, sys.flags.isolated)\n"
    )
    text = (profile.data_directory() / "launcher.S").read_text()
    paths = launcher.Paths(loader, "/usr/lib/x86_64-linux-gnu", str(target.path), str(script))
    code = launcher.assemble(text, paths)
    assert code == launcher.assemble(text, paths)
    assert len(code) < 4096
    program = tmp_path / "troth"
    program.write_bytes(code)
    program.chmod(0o755)
    environment = {"LD_PRELOAD": "/nowhere.so", "PYTHONHOME": "/nowhere", "HOME": "/"}
    for words in ([], ["status"], ["--json", "a b", ""], ["x"] * 2000):
        done = subprocess.run(
            [program, *words], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{words} False False 1\n"


def test_the_launcher_says_when_there_is_no_runtime(tmp_path):
    text = (profile.data_directory() / "launcher.S").read_text()
    program = tmp_path / "troth"
    program.write_bytes(launcher.assemble(text, launcher.Paths("/nowhere/ld", "/x", "/y", "/z")))
    program.chmod(0o755)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert done.stderr == "troth: the runtime cannot be started\n"
    with pytest.raises(BuildError) as caught:
        launcher.assemble(text, launcher.Paths('/a"\n', "/x", "/y", "/z"))
    assert caught.value.code == "launcher-path"


@pytest.mark.root
def test_the_runtime_starts_in_a_root_of_its_own(entries, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root for chroot")
    for member in cpio.parse(entry.archive(entries)):
        path = tmp_path / member.path
        if member.mode >> 12 == 4:
            path.mkdir()
        elif member.mode >> 12 == 10:
            path.symlink_to(member.data.decode())
        else:
            path.write_bytes(member.data)
            path.chmod(member.mode & 0o777)
    words = "import sys, _ctypes, troth.record; print(sys.prefix, sys.exec_prefix, sys.path)"
    for root, binary in (
        (tmp_path, "/usr/bin/python3"),
        (tmp_path / "runtime", "/usr/bin/python3"),
    ):
        done = subprocess.run(
            ["/usr/sbin/chroot", root, binary, "-ISB", "-c", words],
            env={},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("/usr /usr ['/usr/lib/python3")


def test_digest_of_an_entry_is_that_of_its_bytes(entries):
    rows = {row.path: row for row in entry.packed(entries)}
    for member in cpio.parse(entry.archive(entries)):
        if rows[member.path].kind == "file":
            assert rows[member.path].sha256 == hashlib.sha256(member.data).hexdigest()

# SPDX-License-Identifier: Apache-2.0
"""Verity images in files: against veritysetup and against the tree in memory, and damaged ones."""

import os
import random
import shutil
import subprocess

import pytest

from troth.abi import verity_sb
from troth.errors import BuildError, FormatError, HostError
from troth.image.hashing import fork_pool
from troth.image.hashing.verity_image import (
    append_tree,
    appended_offset,
    format_image,
    read_superblock,
    verify_image,
)
from troth.measure import verity_tree

UUID = bytes.fromhex("22222222333344445555666666666666")
UUID_TEXT = "22222222-3333-4444-5555-666666666666"
SALT = bytes.fromhex("1234") * 16


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


def veritysetup(*arguments):
    if not shutil.which("veritysetup"):
        pytest.skip("veritysetup is missing (apt install cryptsetup-bin)")
    done = subprocess.run(
        ["veritysetup", *map(str, arguments)], check=True, capture_output=True, text=True
    )
    roots = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Root hash")]
    return roots[0] if roots else ""


@pytest.mark.tool
@pytest.mark.parametrize(
    ("blocks", "options", "arguments"),
    [
        (1, [], {}),
        (128, [], {}),
        (129, [], {}),
        (2500, [], {}),
        (2500, ["--hash=sha512"], {"algorithm": "sha512"}),
        (700, ["--hash=sha1", "--format=0"], {"algorithm": "sha1", "hash_type": 0}),
        (
            900,
            ["--hash=sha384", "--data-block-size=512", "--hash-block-size=1024"],
            {"algorithm": "sha384", "data_block_bytes": 512, "hash_block_bytes": 1024},
        ),
        (700, ["--no-superblock"], {"with_superblock": False}),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_same_bytes_as_veritysetup(tmp_path, blocks, options, arguments, workers):
    size = blocks * arguments.get("data_block_bytes", 4096)
    image = noise(size)
    if blocks > 1000:  # a hole in the middle, as in a sparse image
        image = image[: 1 << 20] + bytes(5 << 20) + image[6 << 20 :]
    data, theirs, ours = tmp_path / "data", tmp_path / "theirs", tmp_path / "ours"
    data.write_bytes(image)
    root = veritysetup(
        "format", f"--uuid={UUID_TEXT}", f"--salt={SALT.hex()}", *options, data, theirs
    )
    made = format_image(data, ours, salt=SALT, uuid=UUID, workers=workers, **arguments)
    assert made.root_hash.hex() == root
    assert ours.read_bytes() == theirs.read_bytes()
    assert made.end_bytes == ours.stat().st_size
    parameters = None if arguments.get("with_superblock", True) else made.superblock
    found = verify_image(
        data, theirs, root_hash=made.root_hash, parameters=parameters, workers=workers
    )
    assert found == made.root_hash


@pytest.mark.tool
def test_an_appended_tree_is_as_veritysetup_appends_it(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    content = noise(300 * 4096 - 100)
    ours.write_bytes(content)
    theirs.write_bytes(content.ljust(300 * 4096, b"\0"))
    made = append_tree(ours, salt=SALT, uuid=UUID)
    root = veritysetup(
        "format",
        f"--uuid={UUID_TEXT}",
        f"--salt={SALT.hex()}",
        "--data-blocks=300",
        f"--hash-offset={300 * 4096}",
        theirs,
        theirs,
    )
    assert made.root_hash.hex() == root
    assert ours.read_bytes() == theirs.read_bytes()
    assert made.superblock_block == 300
    assert made.tree_start_block == 301
    assert made.tree_blocks == 4
    assert made.data_blocks == 300
    assert made.end_bytes == ours.stat().st_size == 305 * 4096
    veritysetup("verify", f"--hash-offset={300 * 4096}", ours, ours, root)


@pytest.fixture
def image(tmp_path):
    """An image of three levels' worth of small blocks with its tree appended."""
    path = tmp_path / "image"
    content = noise(40_000 * 512)
    path.write_bytes(content)
    made = format_image(
        path,
        path,
        salt=SALT,
        uuid=UUID,
        hash_offset_bytes=len(content),
        data_block_bytes=512,
        hash_block_bytes=4096,
    )
    assert made.tree_blocks == 1 + 3 + 313
    return path, made


def check(image, **options):
    path, made = image
    options = {
        "root_hash": made.root_hash,
        "hash_offset_bytes": made.hash_offset_bytes,
        "workers": 2,
    } | options
    return verify_image(path, path, **options)


def flip(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def refused(image, **options):
    with pytest.raises(FormatError) as caught:
        check(image, **options)
    return caught.value


def test_file_and_memory_agree(image):
    path, made = image
    content = path.read_bytes()
    tree = verity_tree.build(
        content[: made.hash_offset_bytes], salt=SALT, data_block_bytes=512, hash_block_bytes=4096
    )
    assert tree.root_hash == made.root_hash
    assert content[made.tree_start_block * 4096 :] == tree.blocks
    assert read_superblock(path, hash_offset_bytes=made.hash_offset_bytes) == made.superblock
    assert check(image) == check(image, root_hash=None, workers=1) == made.root_hash


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_first_bad_data_block_is_named(image, workers):
    path, _ = image
    for block in (39_999, 25_000, 20_001):
        flip(path, block * 512 + 511)
        error = refused(image, workers=workers)
        assert error.code == "verity-data"
        assert error.message.startswith(f"data block {block} (at byte {block * 512}) ")
        assert error.where == str(path)


@pytest.mark.parametrize(("tree_block", "named"), [(316, 316), (4, 4), (3, 3), (1, 1)])
def test_a_bad_hash_block_is_named(image, tree_block, named):
    path, made = image
    at = (made.tree_start_block + tree_block) * 4096
    flip(path, at)
    flip(path, 39_999 * 512)  # the level above is reported first
    error = refused(image)
    assert error.code == "verity-tree"
    assert error.message.startswith(f"hash block {named} (at byte {at}) ")


def test_the_top_block_is_refused_by_root_hash_or_by_its_spare_bytes(image):
    path, made = image
    flip(path, made.tree_start_block * 4096 + 4095)
    assert refused(image).code == "verity-root-hash"
    error = refused(image, root_hash=None)
    assert error.code == "verity-tree"
    assert "hash block 0 " in error.message
    assert "not zero" in error.message


def test_wrong_root_hash(image):
    _, made = image
    error = refused(image, root_hash=bytes(32))
    assert error.code == "verity-root-hash"
    assert made.root_hash.hex() in error.message


def test_changed_salt_in_the_superblock(image):
    path, made = image
    flip(path, made.hash_offset_bytes + 88)
    assert refused(image).code == "verity-root-hash"


def test_short_files(image):
    path, made = image
    os.truncate(path, made.end_bytes - 1)
    assert refused(image).code == "verity-short"
    os.truncate(path, made.hash_offset_bytes + 100)
    assert refused(image).code == "verity-superblock-short"


def test_a_superblock_that_claims_the_impossible_ends_at_once(tmp_path):
    huge = verity_sb.Superblock(UUID, "sha256", 2**50, b"")
    tree = tmp_path / "hash"
    tree.write_bytes(verity_sb.pack(huge).ljust(8192, b"\0"))
    with pytest.raises(FormatError) as caught:
        verify_image(tree, tree, root_hash=None)
    assert caught.value.code == "verity-short"


def test_what_cannot_be_formatted(tmp_path):
    data, tree = tmp_path / "data", tmp_path / "hash"
    data.write_bytes(bytes(4096 * 3 - 1))
    with pytest.raises(BuildError) as caught:
        format_image(data, tree, salt=b"", uuid=UUID)
    assert caught.value.code == "verity-data-size"
    data.write_bytes(b"")
    with pytest.raises(BuildError) as caught:
        format_image(data, tree, salt=b"", uuid=UUID)
    assert caught.value.code == "verity-data-size"
    data.write_bytes(bytes(8192))
    with pytest.raises(BuildError) as caught:
        format_image(data, data, salt=b"", uuid=UUID, hash_offset_bytes=4096, data_bytes=8192)
    assert caught.value.code == "verity-overlap"
    with pytest.raises(FormatError) as caught:
        format_image(data, tree, salt=b"", uuid=UUID, hash_offset_bytes=100)
    assert caught.value.code == "verity-geometry"
    with pytest.raises(HostError) as host:
        format_image(tmp_path / "absent", tree, salt=b"", uuid=UUID)
    assert host.value.code == "verity-io"
    assert str(tmp_path / "absent") in str(host.value)


def test_a_full_disk_is_an_error(tmp_path):
    data = tmp_path / "data"
    data.write_bytes(noise(2 * 128 * 4096))
    with pytest.raises(HostError) as caught:
        format_image(data, "/dev/full", salt=b"", uuid=UUID)
    assert caught.value.code == "verity-io"
    assert caught.value.where == "/dev/full"


def test_progress_ends_at_all(image):
    _, made = image
    seen = []
    check(image, progress=lambda done, total: seen.append((done, total)))
    total = made.hash_offset_bytes + made.tree_blocks * 4096
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


def test_what_lies_behind_the_tree_stays(tmp_path):
    data, tree = tmp_path / "data", tmp_path / "hash"
    data.write_bytes(noise(5 * 4096))
    tree.write_bytes(b"x" * 20_000)
    made = format_image(data, tree, salt=b"", uuid=UUID)
    assert made.end_bytes == 8192
    assert tree.read_bytes()[8192:] == b"x" * (20_000 - 8192)
    assert not tree.read_bytes()[512:4096].strip(b"\0")


def test_outcomes_come_in_order_from_every_number_of_workers():
    for workers in (1, 2, 7):
        found = list(fork_pool.outcomes(lambda task: (task % 3, task * task), 50, workers=workers))
        assert [(done.task, done.status, done.value) for done in found] == [
            (task, task % 3, task * task) for task in range(50)
        ]


def test_a_lost_worker_is_an_error_and_leaves_no_child():
    def work(task):
        if task == 5:
            os._exit(9)
        return 0, 0

    with pytest.raises(HostError) as caught:
        list(fork_pool.outcomes(work, 50, workers=2))
    assert caught.value.code == "worker-ended"
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_stopping_early_leaves_no_child():
    started = fork_pool.outcomes(lambda task: (0, task), 1000, workers=3)
    assert next(started).task == 0
    started.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("blocks", [1, 2, 128, 129, 130, 5000])
def test_an_appended_tree_is_found_by_size(tmp_path, blocks):
    path = tmp_path / "image"
    path.write_bytes(bytes(blocks * 4096))
    made = append_tree(path, salt=SALT, uuid=UUID)
    assert appended_offset(path) == made.hash_offset_bytes == blocks * 4096
    os.truncate(path, made.end_bytes + 1)
    with pytest.raises(FormatError) as caught:
        appended_offset(path)
    assert caught.value.code == "verity-appended"


@pytest.mark.parametrize("size", [0, 4096, 4095, 131 * 4096])
def test_sizes_that_no_appended_tree_has(tmp_path, size):
    path = tmp_path / "image"
    path.write_bytes(bytes(size))
    with pytest.raises(FormatError) as caught:
        appended_offset(path)
    assert caught.value.code == "verity-appended"

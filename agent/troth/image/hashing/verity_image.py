# SPDX-License-Identifier: Apache-2.0
"""dm-verity on files: build the hash tree beside or behind an image, and check it.

Serves ``troth build`` and ``troth verity``. Bytes are those of ``veritysetup
format`` for the same salt and UUID. Memory does not grow with the image: every
level goes to the file as it is made, and the level above reads it from there.
It must never trust a superblock for more than what is being checked with it.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from troth.abi import verity_sb
from troth.abi.verity_sb import Superblock
from troth.errors import BuildError, FormatError
from troth.image.hashing.verity_levels import Meter, TreeFiles, io_error
from troth.measure.verity_geometry import geometry, tree_start_block
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    Progress = Callable[[int, int], None]
    """Called with bytes done and bytes in all."""


@record
class VerityFormat:
    """A formatted image.

    ``superblock``: its parameters, also where none was written; ``hash_offset_bytes``:
    where the hash area begins; ``superblock_block``: hash block of the
    superblock, None where none was written; ``tree_start_block``: hash block of
    the top of the tree, the kernel's ``hash_start_block``; ``tree_blocks``: hash
    blocks of the tree; ``end_bytes``: size of the hash file up to the tree's end.
    """

    root_hash: bytes
    superblock: Superblock
    hash_offset_bytes: int
    superblock_block: int | None
    tree_start_block: int
    tree_blocks: int
    end_bytes: int

    @property
    def data_blocks(self) -> int:
        """Number of data blocks the tree covers."""
        return self.superblock.data_blocks


def format_image(
    data_path: PathLike[str] | str,
    hash_path: PathLike[str] | str,
    *,
    salt: bytes,
    uuid: bytes,
    hash_offset_bytes: int = 0,
    data_bytes: int | None = None,
    algorithm: str = "sha256",
    hash_type: int = 1,
    data_block_bytes: int = 4096,
    hash_block_bytes: int = 4096,
    with_superblock: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
) -> VerityFormat:
    """Write superblock and tree over ``data_path`` into ``hash_path`` at ``hash_offset_bytes``.

    The two may be one file; then the data ends where the hash area begins.
    ``data_bytes``: how much to cover, by default all of it, a whole number of
    data blocks. ``uuid``: 16 bytes; ``workers``: processes, by default one a
    core. What the hash file holds behind the tree is left alone. Raises
    ``BuildError`` ``verity-data-size`` and ``verity-overlap``, ``FormatError``
    ``verity-superblock-*`` and ``verity-geometry``, ``HostError`` ``verity-io``
    and ``worker-ended``.
    """
    with ExitStack() as stack:
        data = _open(data_path, os.O_RDONLY, stack)
        hash_ = _open(hash_path, os.O_RDWR | os.O_CREAT, stack)
        shared = os.path.sameopenfile(data, hash_)
        size_bytes = _size(data)
        if data_bytes is None:
            data_bytes = min(size_bytes, hash_offset_bytes) if shared else size_bytes
        if (
            not 0 < data_bytes <= size_bytes
            or data_block_bytes < 1
            or data_bytes % data_block_bytes
        ):
            raise BuildError(
                "verity-data-size",
                f"{data_bytes} bytes of {size_bytes} are not one or more whole blocks"
                f" of {data_block_bytes} bytes",
                where=os.fspath(data_path),
                hint="pad the image with zeros to its block size",
            )
        if shared and hash_offset_bytes < data_bytes:
            raise BuildError(
                "verity-overlap",
                f"the hash area at {hash_offset_bytes} would overwrite {data_bytes} bytes of data",
                where=os.fspath(data_path),
            )
        superblock = Superblock(
            uuid=uuid,
            algorithm=algorithm,
            data_blocks=data_bytes // data_block_bytes,
            salt=salt,
            data_block_bytes=data_block_bytes,
            hash_block_bytes=hash_block_bytes,
            hash_type=hash_type,
        )
        packed = verity_sb.pack(superblock)
        start_block = tree_start_block(
            hash_offset_bytes, superblock=with_superblock, hash_block_bytes=hash_block_bytes
        )
        files = TreeFiles(
            superblock,
            start_block * superblock.hash_block_bytes,
            data=(data, os.fspath(data_path)),
            hash_file=(hash_, os.fspath(hash_path)),
        )
        if with_superblock:
            gap_bytes = files.tree_bytes - hash_offset_bytes
            files.write_head(packed.ljust(gap_bytes, b"\0"), hash_offset_bytes)
        total_bytes = data_bytes + (files.layout.tree_blocks * hash_block_bytes)
        meter = Meter(progress, total_bytes)
        for depth in reversed(range(len(files.layout.levels))):
            files.write_level(depth, workers=workers, meter=meter)
        root_hash = files.root_hash()
        meter.finish()
    return VerityFormat(
        root_hash=root_hash,
        superblock=superblock,
        hash_offset_bytes=hash_offset_bytes,
        superblock_block=hash_offset_bytes // hash_block_bytes if with_superblock else None,
        tree_start_block=start_block,
        tree_blocks=files.layout.tree_blocks,
        end_bytes=files.tree_bytes + files.layout.tree_blocks * hash_block_bytes,
    )


def append_tree(
    image_path: PathLike[str] | str,
    *,
    salt: bytes,
    uuid: bytes,
    workers: int | None = None,
    progress: Progress | None = None,
) -> VerityFormat:
    """Make a root image of a file system image: zeros to 4096, superblock block, tree.

    sha256, blocks of 4096 bytes. Errors as ``format_image``.
    """
    with ExitStack() as stack:
        image = _open(image_path, os.O_RDWR, stack)
        size_bytes = -(-_size(image) // 4096) * 4096
        try:
            os.truncate(image, size_bytes)
        except OSError as error:
            raise io_error(error.errno or 0, os.fspath(image_path)) from error
    return format_image(
        image_path,
        image_path,
        salt=salt,
        uuid=uuid,
        hash_offset_bytes=size_bytes,
        workers=workers,
        progress=progress,
    )


def read_superblock(hash_path: PathLike[str] | str, *, hash_offset_bytes: int = 0) -> Superblock:
    """The superblock at ``hash_offset_bytes``; ``FormatError`` ``verity-superblock-*``."""
    with ExitStack() as stack:
        hash_ = _open(hash_path, os.O_RDONLY, stack)
        try:
            data = os.pread(hash_, verity_sb.SIZE_BYTES, hash_offset_bytes)
        except OSError as error:
            raise io_error(error.errno or 0, os.fspath(hash_path)) from error
    return verity_sb.parse(data, where=os.fspath(hash_path))


def appended_offset(image_path: PathLike[str] | str) -> int:
    """Where in a file made by ``append_tree`` the superblock lies, in bytes, by its size alone.

    Raises ``FormatError`` ``verity-appended`` where no data with its tree has
    that size, ``HostError`` ``verity-io``.
    """
    with ExitStack() as stack:
        size_bytes = _size(_open(image_path, os.O_RDONLY, stack))
    blocks, rest_bytes = divmod(size_bytes, 4096)
    # Data, superblock and tree grow together, so at most one size of data fits.
    low, high = 0, blocks
    while low + 1 < high:
        middle = (low + high) // 2
        if middle + 1 + geometry(middle).tree_blocks <= blocks:
            low = middle
        else:
            high = middle
    if rest_bytes or low == 0 or low + 1 + geometry(low).tree_blocks != blocks:
        raise FormatError(
            "verity-appended",
            f"no image with a hash tree behind it has {size_bytes} bytes",
            where=os.fspath(image_path),
        )
    return low * 4096


def verify_image(
    data_path: PathLike[str] | str,
    hash_path: PathLike[str] | str,
    *,
    root_hash: bytes | None,
    hash_offset_bytes: int = 0,
    parameters: Superblock | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Check every block of the tree, top down, then every data block; the root hash found.

    ``root_hash`` None checks only that data and tree agree: the caller must
    say so. ``parameters``: those of a hash area without superblock, else they
    are read from the superblock. Raises ``FormatError`` naming the first bad
    block: ``verity-root-hash``, ``verity-tree`` (a hash block),
    ``verity-data`` (a data block), ``verity-short`` (a file that ends too
    early), and the superblock's own; ``HostError`` as ``format_image``.
    """
    superblock = parameters
    if superblock is None:
        superblock = read_superblock(hash_path, hash_offset_bytes=hash_offset_bytes)
    else:
        verity_sb.pack(superblock)  # refuses what no superblock could say
    start_block = tree_start_block(
        hash_offset_bytes,
        superblock=parameters is None,
        hash_block_bytes=superblock.hash_block_bytes,
    )
    with ExitStack() as stack:
        data = _open(data_path, os.O_RDONLY, stack)
        hash_ = _open(hash_path, os.O_RDONLY, stack)
        files = TreeFiles(
            superblock,
            start_block * superblock.hash_block_bytes,
            data=(data, os.fspath(data_path)),
            hash_file=(hash_, os.fspath(hash_path)),
        )
        # Before any work: a superblock may claim more than could ever be hashed.
        tree_bytes = files.layout.tree_blocks * superblock.hash_block_bytes
        for path, size_bytes, needed_bytes in (
            (files.data_path, _size(data), superblock.data_bytes),
            (files.hash_path, _size(hash_), files.tree_bytes + tree_bytes if tree_bytes else 0),
        ):
            if size_bytes < needed_bytes:
                raise FormatError(
                    "verity-short",
                    f"the file has {size_bytes} bytes, the tree needs {needed_bytes}",
                    where=path,
                )
        found = files.root_hash()
        if root_hash is not None and found != root_hash:
            raise FormatError(
                "verity-root-hash",
                f"the root hash is {found.hex()}, not {root_hash.hex()}",
                where=files.hash_path,
            )
        meter = Meter(progress, superblock.data_bytes + tree_bytes)
        for depth in range(len(files.layout.levels)):
            files.check_level(depth, workers=workers, meter=meter)
        meter.finish()
    return found


def _open(path: PathLike[str] | str, flags: int, stack: ExitStack) -> int:
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise io_error(error.errno or 0, os.fspath(path)) from error
    stack.callback(os.close, descriptor)
    return descriptor


def _size(descriptor: int) -> int:
    # Not fstat, which says 0 for a block device.
    return os.lseek(descriptor, 0, os.SEEK_END)

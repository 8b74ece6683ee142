# SPDX-License-Identifier: Apache-2.0
"""One verity tree in its files: hash a level, or check it, on all cores.

Serves ``troth.image.hashing.verity_image``, which knows what lies where and in which
order. Every piece read is bounded and reused; nothing is kept from one task to
the next. It must never write outside the level it was asked for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from troth.abi.verity_sb import MAX_BLOCK_BYTES
from troth.errors import FormatError, HostError
from troth.image.hashing import fork_pool
from troth.measure.verity_geometry import geometry
from troth.measure.verity_tree import TreeHash, hash_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from troth.abi.verity_sb import Superblock

_TASK_BYTES = 2 << 20  # long enough to hide a message, short enough to share evenly
_READ_BYTES = MAX_BLOCK_BYTES  # and stays in a core's own cache between reading and hashing
_ZEROS = bytes(_READ_BYTES)

# Outcomes of a task, with what their value says.
_GOOD = 0
_BAD = 1  # the block below whose digest is wrong
_SPARE = 2  # the hash block of this level with something beside its digests
_BELOW_FAILED = 3  # errno of reading the blocks below, 0 where the file ended
_LEVEL_FAILED = 4  # errno of the hash file, 0 where the file ended


class _FileError(Exception):
    def __init__(self, status: int, number: int) -> None:
        super().__init__(number)
        self.outcome = (status, number)


class Meter:
    """Bytes done, handed to the caller's ``progress`` with ``total_bytes``."""

    def __init__(self, progress: Callable[[int, int], None] | None, total_bytes: int) -> None:
        self._progress = progress
        self._total_bytes = total_bytes
        self._done_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Count ``size_bytes`` more."""
        self._done_bytes = min(self._done_bytes + size_bytes, self._total_bytes)
        if self._progress is not None:
            self._progress(self._done_bytes, self._total_bytes)

    def finish(self) -> None:
        """Count what is left."""
        if self._done_bytes < self._total_bytes:
            self.add(self._total_bytes)


class TreeFiles:
    """The open data and hash file of one tree.

    ``data`` and ``hash_file``: descriptor and name; ``tree_bytes``: offset of
    the tree in the hash file. Levels are named by ``depth``, 0 at the top.
    """

    def __init__(
        self,
        superblock: Superblock,
        tree_bytes: int,
        *,
        data: tuple[int, str],
        hash_file: tuple[int, str],
    ) -> None:
        self.superblock = superblock
        self.tree_bytes = tree_bytes
        self.data, self.data_path = data
        self.hash, self.hash_path = hash_file
        self.hashing = TreeHash(
            superblock.algorithm, salt=superblock.salt, hash_type=superblock.hash_type
        )
        self.layout = geometry(
            superblock.data_blocks,
            digest_bytes=self.hashing.digest_bytes,
            hash_block_bytes=superblock.hash_block_bytes,
            hash_type=superblock.hash_type,
        )
        self._buffer = bytearray(_READ_BYTES)

    def write_head(self, data: bytes, offset_bytes: int) -> None:
        """Write ``data``, a superblock, into the hash file."""
        try:
            _write(self.hash, data, offset_bytes)
        except _FileError as error:
            self._raise(-1, *error.outcome)

    def root_hash(self) -> bytes:
        """The digest of the top hash block, or of the data block where it is the only one."""
        files, offset_bytes, block_bytes = self._below(-1)
        block = bytearray(block_bytes)
        try:
            _read(files, memoryview(block), offset_bytes, failed=_BELOW_FAILED)
        except _FileError as error:
            self._raise(-1, *error.outcome)
        return self.hashing.digest(block)

    def write_level(self, depth: int, *, workers: int | None, meter: Meter) -> None:
        """Hash the blocks below level ``depth`` and write the level; errors as ``check_level``."""

        def store(index: int, block: bytes) -> tuple[int, int]:
            _write(self.hash, block, self._offset(depth, index))
            return _GOOD, 0

        self._run(depth, store, workers, meter)

    def check_level(self, depth: int, *, workers: int | None, meter: Meter) -> None:
        """Hash the blocks below level ``depth`` and compare with the level as it stands.

        Raises for the first block that is wrong: ``FormatError``
        ``verity-data``, ``verity-tree``, ``verity-short``; ``HostError``
        ``verity-io``, ``worker-ended``.
        """
        block_bytes = self.layout.hash_block_bytes
        level = self.layout.levels[depth]
        per_block = self.layout.digests_per_block
        slot_bytes, digest_bytes = self.layout.slot_bytes, self.layout.digest_bytes
        stored = bytearray(block_bytes)

        def compare(index: int, block: bytes) -> tuple[int, int]:
            _read(self.hash, memoryview(stored), self._offset(depth, index), failed=_LEVEL_FAILED)
            if stored == block:
                return _GOOD, 0
            first = index * per_block
            for slot in range(min(per_block, level.digests - first)):
                start = slot * slot_bytes
                if stored[start : start + digest_bytes] != block[start : start + digest_bytes]:
                    return _BAD, first + slot
            return _SPARE, index

        self._run(depth, compare, workers, meter)

    def _run(
        self,
        depth: int,
        use: Callable[[int, bytes], tuple[int, int]],
        workers: int | None,
        meter: Meter,
    ) -> None:
        level = self.layout.levels[depth]
        _, _, below_bytes = self._below(depth)
        span_bytes = self.layout.digests_per_block * below_bytes
        per_task = max(1, _TASK_BYTES // span_bytes)

        def work(task: int) -> tuple[int, int]:
            first = task * per_task
            try:
                for index, block in self._hash_blocks(depth, first, first + per_task):
                    status, value = use(index, block)
                    if status != _GOOD:
                        return status, value
            except _FileError as error:
                return error.outcome
            return _GOOD, 0

        tasks = -(-level.blocks // per_task)
        cores = fork_pool.cores() if workers is None else workers
        for outcome in fork_pool.outcomes(work, tasks, workers=cores):
            self._raise(depth, outcome.status, outcome.value)
            meter.add(per_task * span_bytes)

    def _hash_blocks(self, depth: int, first: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """The hash blocks ``first`` to ``stop`` of a level, made from the blocks below."""
        descriptor, offset_bytes, block_bytes = self._below(depth)
        level = self.layout.levels[depth]
        per_block = self.layout.digests_per_block
        per_read = _READ_BYTES // block_bytes
        buffer = self._buffer
        view = memoryview(buffer)
        zero_digest = b""
        for index in range(first, min(stop, level.blocks)):
            digests: list[bytes] = []
            end = min((index + 1) * per_block, level.digests)
            for start in range(index * per_block, end, per_read):
                piece = view[: min(per_read, end - start) * block_bytes]
                _read(descriptor, piece, offset_bytes + start * block_bytes, failed=_BELOW_FAILED)
                if len(piece) == _READ_BYTES and buffer == _ZEROS:
                    # Images are often sparse, and comparing costs nothing beside hashing.
                    zero_digest = zero_digest or self.hashing.digest(_ZEROS[:block_bytes])
                    digests += [zero_digest] * per_read
                else:
                    digests += self.hashing.digests(piece, block_bytes)
            yield index, hash_block(digests, self.layout)

    def _below(self, depth: int) -> tuple[int, int, int]:
        """What level ``depth`` vouches for: file, offset in bytes, size of a block."""
        if depth + 1 == len(self.layout.levels):
            return self.data, 0, self.superblock.data_block_bytes
        return self.hash, self._offset(depth + 1, 0), self.layout.hash_block_bytes

    def _offset(self, depth: int, index: int) -> int:
        block = self.layout.levels[depth].first_block + index
        return self.tree_bytes + block * self.layout.hash_block_bytes

    def _raise(self, depth: int, status: int, value: int) -> None:
        if status == _GOOD:
            return
        below_is_data = depth + 1 == len(self.layout.levels)
        below_path = self.data_path if below_is_data else self.hash_path
        if status == _BAD:
            _, offset_bytes, block_bytes = self._below(depth)
            at = offset_bytes + value * block_bytes
            if below_is_data:
                raise FormatError(
                    "verity-data",
                    f"data block {value} (at byte {at}) does not match its digest",
                    where=below_path,
                )
            block = self.layout.levels[depth + 1].first_block + value
            raise FormatError(
                "verity-tree",
                f"hash block {block} (at byte {at}) does not match its digest",
                where=below_path,
            )
        if status == _SPARE:
            block = self.layout.levels[depth].first_block + value
            raise FormatError(
                "verity-tree",
                f"hash block {block} (at byte {self._offset(depth, value)}) has bytes beside"
                " its digests that are not zero",
                where=self.hash_path,
            )
        path = self.hash_path if status == _LEVEL_FAILED else below_path
        if value == 0:
            raise FormatError("verity-short", "the file ended while it was read", where=path)
        raise io_error(value, path)


def io_error(number: int, path: str) -> HostError:
    """The error for a file operation on ``path`` that failed with errno ``number``."""
    return HostError("verity-io", os.strerror(number), where=path)


def _write(descriptor: int, data: bytes, offset_bytes: int) -> None:
    """All of ``data`` at ``offset_bytes``."""
    view = memoryview(data)
    try:
        while view:
            done = os.pwrite(descriptor, view, offset_bytes)
            offset_bytes += done
            view = view[done:]
    except OSError as error:
        raise _FileError(_LEVEL_FAILED, error.errno or 0) from error


def _read(descriptor: int, view: memoryview, offset_bytes: int, *, failed: int) -> None:
    try:
        while view:
            done = os.preadv(descriptor, [view], offset_bytes)
            if done == 0:
                raise _FileError(failed, 0)
            offset_bytes += done
            view = view[done:]
    except OSError as error:
        raise _FileError(failed, error.errno or 0) from error

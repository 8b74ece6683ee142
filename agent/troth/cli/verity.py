# SPDX-License-Identifier: Apache-2.0
"""``troth verity format`` and ``troth verity verify``.

Serves people at a terminal and scripts. Reads options, words results; the work
is ``troth.image.hashing.verity_image``'s. Must never say "verified" about data whose
root hash nobody named.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol

from troth.cli.terminal import Terminal
from troth.errors import FormatError, UsageError

if TYPE_CHECKING:
    from troth.abi.verity_sb import Superblock

_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


class FormatOptions(Protocol):
    """What ``format_`` is given: two paths, ``salt`` and ``uuid`` as text or None."""

    data: str
    hash: str
    salt: str | None
    uuid: str | None
    json: bool


class VerifyOptions(Protocol):
    """What ``verify`` is given: two paths, and the root hash in hex or None."""

    data: str
    hash: str
    root_hash: str | None
    json: bool


def format_(options: FormatOptions) -> int:
    """Write superblock and tree of ``data`` into ``hash``; append where they are one file.

    Prints the parameters as ``veritysetup format`` does, or one JSON object.
    Raises ``UsageError`` ``verity-salt``, ``verity-uuid``, and the errors of
    ``troth.image.hashing.verity_image``.
    """
    from troth.abi.verity_sb import MAX_SALT_BYTES
    from troth.image.hashing.verity_image import append_tree, format_image

    # veritysetup's sign for "no salt"; a random one otherwise, as it does.
    text = "" if options.salt == "-" else options.salt
    salt = os.urandom(32) if text is None else _hex(text, "verity-salt", "the salt")
    if len(salt) > MAX_SALT_BYTES:
        raise UsageError("verity-salt", f"the salt has more than {MAX_SALT_BYTES} bytes")
    uuid = _uuid(options.uuid)
    with Terminal().passing_bar("hashing") as update:
        if _one_file(options.data, options.hash):
            made = append_tree(options.data, salt=salt, uuid=uuid, progress=update)
        else:
            made = format_image(options.data, options.hash, salt=salt, uuid=uuid, progress=update)
    found: dict[str, object] = {
        **_parameters(made.superblock),
        "hash_offset_bytes": made.hash_offset_bytes,
        "hash_start_block": made.tree_start_block,
        "hash_blocks": made.tree_blocks,
        "root_hash": made.root_hash.hex(),
    }
    _print(found, as_json=options.json)
    return 0


def verify(options: VerifyOptions) -> int:
    """Check all of ``data`` against the tree in ``hash``; 0 where every block is right, else 1.

    Without a root hash only the agreement of the two is checked, and the
    output says so. Raises ``UsageError`` ``verity-root-hash-syntax``,
    ``HostError``, and ``FormatError`` where there is no tree to check with.
    """
    from troth.image.hashing.verity_image import appended_offset, read_superblock, verify_image

    wanted: bytes | None = None
    if options.root_hash is not None:
        wanted = _hex(options.root_hash, "verity-root-hash-syntax", "the root hash")
        if not wanted:
            raise UsageError("verity-root-hash-syntax", "the root hash is empty")
    one_file = _one_file(options.data, options.hash)
    offset_bytes = appended_offset(options.hash) if one_file else 0
    superblock = read_superblock(options.hash, hash_offset_bytes=offset_bytes)
    result: dict[str, object] = {**_parameters(superblock), "hash_offset_bytes": offset_bytes}
    try:
        with Terminal().passing_bar("checking") as update:
            found = verify_image(
                options.data,
                options.hash,
                root_hash=wanted,
                hash_offset_bytes=offset_bytes,
                progress=update,
            )
    except FormatError as error:
        if not options.json:
            raise
        result |= {"verdict": "fail", "code": error.code, "message": str(error)}
        _print(result, as_json=True)
        return error.exit_status
    result["root_hash"] = found.hex()
    result["root_hash_check"] = "not-checked" if wanted is None else "pass"
    result["verdict"] = "partial" if wanted is None else "pass"
    _print(result, as_json=options.json)
    if wanted is None and not options.json:
        print(
            "troth: data and tree agree; the root hash was not compared with anything"
            " (--root-hash)",
            file=sys.stderr,
        )
    return 0


def _parameters(superblock: Superblock) -> dict[str, object]:
    return {
        "uuid": superblock.uuid_text,
        "hash_type": superblock.hash_type,
        "data_blocks": superblock.data_blocks,
        "data_block_bytes": superblock.data_block_bytes,
        "hash_block_bytes": superblock.hash_block_bytes,
        "algorithm": superblock.algorithm,
        "salt": superblock.salt.hex(),
    }


def _print(found: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        from troth.documents import strict

        sys.stdout.write(strict.pretty(found).decode())
        return
    for name, value in found.items():
        label = name.removesuffix("_bytes").replace("_", " ").capitalize()
        unit = " [bytes]" if name.endswith("_bytes") else ""
        print(f"{label + ':':<18}{value or '-' if name == 'salt' else value}{unit}")


def _one_file(first: str, second: str) -> bool:
    try:
        return os.path.samefile(first, second)
    except FileNotFoundError:
        return False  # the tree is yet to be made, or the open names what is missing


def _hex(text: str, code: str, noun: str) -> bytes:
    # bytes.fromhex would let spaces pass.
    if len(text) % 2 or not set(text) <= _HEX_DIGITS:
        raise UsageError(code, f"{noun} {text!r} is not hexadecimal digits in pairs")
    return bytes.fromhex(text)


def _uuid(text: str | None) -> bytes:
    import uuid

    if text is None:
        return uuid.uuid4().bytes
    try:
        value = uuid.UUID(text)
    except ValueError:
        value = None
    if value is None or str(value) != text.lower():
        raise UsageError(
            "verity-uuid",
            f"{text!r} is not a UUID",
            hint="write it as 8-4-4-4-12 hexadecimal digits",
        )
    return value.bytes

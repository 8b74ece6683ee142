# SPDX-License-Identifier: Apache-2.0
"""``troth inspect FILE.igvm``: words for what ``image.inspect_igvm`` finds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from troth.abi import snp_policy
from troth.abi.igvm import headers as h
from troth.abi.igvm.file import ARCHITECTURES
from troth.errors import FormatError
from troth.image import inspect_igvm as looking

if TYPE_CHECKING:
    from pathlib import Path

    from troth.image.id_block_check import Checked, Signed
    from troth.image.inspect_igvm import Block, Summary


def summary(path: Path, *, as_json: bool) -> int:
    """Print what is in the IGVM file at ``path``; 1 where an ID block is no good for this file.

    Raises ``FormatError`` ``igvm-*``.
    """
    found = looking.look(path)
    if as_json:
        print(json.dumps(_tree(found), indent=2))
    else:
        print("\n".join(_lines(found, path)))
    good = all(block.checked is None or block.checked.good for block in found.id_blocks)
    return 0 if good else 1


def _lines(found: Summary, path: Path) -> list[str]:
    architecture = ARCHITECTURES[found.architecture]
    lines = [
        f"igvm      {path} {found.size_bytes} bytes, version {found.version}, {architecture}",
    ]
    for platform in found.platforms:
        name = h.PLATFORMS[platform.platform_type]
        lines.append(f"platform  {name}, mask {platform.compatibility_mask:#x}")
    lines += [
        f"policy    {item.policy:#x}{_masked(found, item.compatibility_mask)}"
        f" {_policy_words(found, item)}".rstrip()
        for item in found.policies
    ]
    lines += [
        f"pages     {item.pages:>7} {item.kind:<10} {item.lowest:#x} to {item.end:#x}"
        + _masked(found, item.mask)
        for item in found.pages
    ]
    for area in found.areas:
        place = "nowhere" if area.gpa is None else f"at {area.gpa:#x}"
        writes = ", ".join(area.host_writes) or "nothing"
        data = ", over data of the file" if area.has_data else ""
        lines.append(
            f"parameter {area.index}, {area.size_bytes} bytes {place}:"
            f" the host writes {writes}{data}"
        )
    lines += [
        f"memory    {item.size_bytes} bytes at {item.gpa:#x} must be there"
        + _masked(found, item.compatibility_mask)
        for item in found.memory
    ]
    for context in found.contexts:
        registers = " ".join(f"{name}={value:#x}" for name, value in context.registers)
        lines.append(
            f"processor {context.vp_index} at {context.gpa:#x}"
            f"{_masked(found, context.mask)} {registers}".rstrip()
        )
    for block in found.id_blocks:
        lines += _block_lines(block, _masked(found, block.mask))
    lines.append("headers   " + ", ".join(f"{count} {name}" for name, count in found.headers))
    lines += [f"warning   {text}" for text in found.warnings]
    return lines


def _block_lines(block: Block, platforms: str) -> list[str]:
    author = "with author key" if block.has_author_key else "no author key"
    lines = [
        f"id block  svn {block.guest_svn}, {author}{platforms}",
        f"          family {block.family_id} image {block.image_id}",
        f"          expects launch digest {block.launch_digest}",
    ]
    checked = block.checked
    if checked is None:
        return [*lines, "          not checked: it is for no SNP launch"]
    lines.append(f"          this file has digest  {checked.measured.hex()} with one processor")
    lines.append(f"          {_agreement(checked)}")
    signed = checked.signatures
    if signed.id_key is None:
        return [*lines, f"          signatures: cannot be read: {signed.obstacle}"]
    lines += _key_lines("ID key", signed.id_key)
    if signed.author is not None:
        lines += _key_lines("author key", signed.author)
    return lines


def _agreement(checked: Checked) -> str:
    machine = checked.machine
    if machine is None:
        return "they DISAGREE, for any number of processors of any type known"
    if machine.signature is None:
        return "they agree"
    return (
        f"they agree for {machine.vcpus} processors like {machine.vcpu_type},"
        f" signature {machine.signature:#x}"
    )


def _key_lines(name: str, signed: Signed) -> list[str]:
    verdict = f"WRONG: {signed.obstacle}" if signed.obstacle else "valid"
    return [
        f"          {name} digest {signed.key_digest.hex()}",
        f"          {name} signature {verdict}",
    ]


def _masked(found: Summary, mask: int) -> str:
    """Which platforms, where there are several."""
    if len(found.platforms) < 2:
        return ""
    names = [
        h.PLATFORMS[item.platform_type]
        for item in found.platforms
        if item.compatibility_mask & mask
    ]
    return f" for {', '.join(names)}"


def _policy_words(found: Summary, policy: h.GuestPolicy) -> str:
    for item in found.platforms:
        if item.compatibility_mask & policy.compatibility_mask and item.platform_type == h.SEV_SNP:
            try:
                return " ".join(snp_policy.names(snp_policy.parse(policy.policy)))
            except FormatError as error:
                return f"({error.message})"
    return ""


def _tree(found: Summary) -> dict[str, object]:
    return {
        "kind": "igvm",
        "format_version": found.version,
        "architecture": ARCHITECTURES[found.architecture],
        "size_bytes": found.size_bytes,
        "header_bytes": found.header_bytes,
        "platforms": [
            {
                "name": h.PLATFORMS[item.platform_type],
                "mask": item.compatibility_mask,
                "highest_vtl": item.highest_vtl,
                "shared_gpa_boundary": f"{item.shared_gpa_boundary:#x}",
            }
            for item in found.platforms
        ],
        "policies": [
            {"policy": f"{item.policy:#x}", "mask": item.compatibility_mask}
            for item in found.policies
        ],
        "headers": dict(found.headers),
        "pages": [
            {
                "kind": item.kind,
                "mask": item.mask,
                "pages": item.pages,
                "lowest": f"{item.lowest:#x}",
                "end": f"{item.end:#x}",
            }
            for item in found.pages
        ],
        "parameters": [
            {
                "index": item.index,
                "size_bytes": item.size_bytes,
                "gpa": None if item.gpa is None else f"{item.gpa:#x}",
                "host_writes": list(item.host_writes),
                "has_data": item.has_data,
            }
            for item in found.areas
        ],
        "required_memory": [
            {
                "gpa": f"{item.gpa:#x}",
                "size_bytes": item.size_bytes,
                "mask": item.compatibility_mask,
            }
            for item in found.memory
        ],
        "processors": [
            {
                "index": item.vp_index,
                "mask": item.mask,
                "gpa": f"{item.gpa:#x}",
                "registers": {name: f"{value:#x}" for name, value in item.registers},
            }
            for item in found.contexts
        ],
        "id_blocks": [_block_tree(item) for item in found.id_blocks],
        "warnings": list(found.warnings),
    }


def _block_tree(block: Block) -> dict[str, object]:
    tree: dict[str, object] = {name: getattr(block, name) for name in looking.Block.__match_args__}
    checked = block.checked
    if checked is None:
        return tree
    machine, signed = checked.machine, checked.signatures
    tree["checked"] = {
        "measured_digest": checked.measured.hex(),
        "agrees": machine is not None,
        "vcpus": None if machine is None else machine.vcpus,
        "vcpu_signature": None
        if machine is None or machine.signature is None
        else f"{machine.signature:#x}",
        "signatures_valid": signed.valid,
        "obstacle": signed.obstacle or None,
        "id_key": _key_tree(signed.id_key),
        "author_key": _key_tree(signed.author),
    }
    return tree


def _key_tree(signed: Signed | None) -> dict[str, object] | None:
    if signed is None:
        return None
    return {"digest": signed.key_digest.hex(), "obstacle": signed.obstacle or None}

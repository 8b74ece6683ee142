# SPDX-License-Identifier: Apache-2.0
"""``troth inspect``: list, print and compare. Words only; ``image.inspect`` does the looking."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from troth.abi import ovmf
from troth.cli import inspect_hcl
from troth.cli import inspect_igvm as igvm_words
from troth.errors import UsageError
from troth.image import firmware as firmware_file
from troth.image import inspect as looking
from troth.image import inspect_igvm

if TYPE_CHECKING:
    from typing import Protocol

    from troth.abi.ovmf import Area, Entry, Firmware
    from troth.image.inspect import Target

    class Options(Protocol):
        """What the grammar gives."""

        target: str
        action: str | None
        rest: list[str]
        json: bool


_ACTIONS = {"summary": 0, "ls": 0, "cat": 1, "diff": 1, "firmware": 0}


def inspect(options: Options) -> int:
    """Do what was asked; 1 where two things differ or a bundle is not what it says."""
    action = options.action or "summary"
    if action not in _ACTIONS:
        raise UsageError(
            "inspect-action",
            f"no action is called {action!r}",
            hint="ls, cat PATH, diff OTHER, firmware, or nothing for a summary",
        )
    if len(options.rest) != _ACTIONS[action]:
        raise UsageError(
            "inspect-action",
            f"{action} takes {_ACTIONS[action]} argument, not {len(options.rest)}",
        )
    if action == "firmware":
        return _firmware(Path(options.target), as_json=options.json)
    if action == "summary" and inspect_igvm.is_igvm(Path(options.target)):
        return igvm_words.summary(Path(options.target), as_json=options.json)
    if action == "summary" and inspect_hcl.is_hcl(Path(options.target)):
        return inspect_hcl.summary(Path(options.target), as_json=options.json)
    target = looking.open_(Path(options.target))
    if action == "ls":
        return _list(target, as_json=options.json)
    if action == "cat":
        sys.stdout.flush()
        sys.stdout.buffer.write(looking.content(target, options.rest[0]))
        return 0
    if action == "diff":
        return _diff(target, looking.open_(Path(options.rest[0])), as_json=options.json)
    return _summary(target, as_json=options.json)


def _list(target: Target, *, as_json: bool) -> int:
    entries = looking.list_(target)
    if as_json:
        names = looking.Listed.__match_args__
        rows = [{name: getattr(item, name) for name in names} for item in entries]
        print(json.dumps(rows, indent=2))
    else:
        for item in entries:
            tail = f" -> {item.detail}" if item.kind == "link" else ""
            print(
                f"{item.kind[0]} {item.mode:04o} {item.size_bytes:>9} {item.sha256[:16]:<16}"
                f" {item.path}{tail}" + (f"  ({item.why})" if item.why else "")
            )
    return 1 if any(item.why == looking.UNKNOWN for item in entries) else 0


def _diff(one: Target, other: Target, *, as_json: bool) -> int:
    found = looking.first_difference(one, other)
    if as_json:
        names = looking.Difference.__match_args__
        tree = None if found is None else {name: getattr(found, name) for name in names}
        print(json.dumps({"equal": found is None, "first": tree}, indent=2))
    elif found is None:
        print("equal")
    else:
        place = f"{found.artefact}: {found.path}" if found.path else found.artefact
        print(f"{place}: {found.why}")
    return 0 if found is None else 1


def _firmware(path: Path, *, as_json: bool) -> int:
    found = firmware_file.read(path)
    pages = firmware_file.ovmf_hash(path, found).hex()
    uses = firmware_file.uses(found)
    if as_json:
        print(
            json.dumps(
                {
                    **_firmware_tree(found),
                    "ovmf_hash": pages,
                    "uses": [
                        {
                            "name": use.name,
                            "possible": not use.obstacle,
                            "obstacle": use.obstacle or None,
                        }
                        for use in uses
                    ],
                },
                indent=2,
            )
        )
        return 0
    print(f"firmware  {path} {found.size_bytes} bytes, in the guest at {found.gpa:#x}")
    print(f"ovmf hash {pages}")
    for entry in found.entries:
        name = ovmf.ENTRY_NAMES.get(entry.guid, "unknown")
        print(f"entry     {entry.guid} {name}: {_meaning(entry, found)}")
    for number, section in enumerate(found.sections, 1):
        print(
            f"section   {number:>2} {section.gpa:#010x} {section.pages:>5} pages"
            f"  {ovmf.SECTION_KINDS[section.kind]}"
        )
    if not found.sections:
        print("section   none")
    for use in uses:
        if use.obstacle:
            print(f"no        it cannot {use.ability}: {use.obstacle}")
        else:
            print(f"yes       it can {use.ability}")
    return 0


def _firmware_tree(found: Firmware) -> dict[str, object]:
    def area(place: Area | None) -> dict[str, int] | None:
        return None if place is None else {"gpa": place.gpa, "size_bytes": place.size_bytes}

    return {
        "size_bytes": found.size_bytes,
        "gpa": found.gpa,
        "entries": [
            {
                "guid": entry.guid,
                "name": ovmf.ENTRY_NAMES.get(entry.guid),
                "data": entry.data.hex(),
            }
            for entry in found.entries
        ],
        "ap_eip": found.ap_eip,
        "hashes_area": area(found.hashes_area),
        "launch_secret": area(found.launch_secret),
        "sections": [
            {
                "gpa": section.gpa,
                "size_bytes": section.size_bytes,
                "kind": ovmf.SECTION_KINDS[section.kind],
            }
            for section in found.sections
        ],
    }


def _meaning(entry: Entry, found: Firmware) -> str:
    if entry.guid == ovmf.RESET_BLOCK:
        return f"further processors start at {found.ap_eip:#x}"
    if entry.guid in (ovmf.HASHES_AREA, ovmf.INJECTION_AREA):
        place = found.hashes_area if entry.guid == ovmf.HASHES_AREA else found.launch_secret
        if place is None or not place.gpa:
            return "no such area (0, 0)"
        return f"{place.size_bytes} bytes at {place.gpa:#x}"
    if entry.guid == ovmf.SEV_METADATA:
        offset = int.from_bytes(entry.data, "little")
        return f"{len(found.sections)} sections, {offset} bytes before the end"
    return f"{len(entry.data)} bytes, not read"


def _summary(target: Target, *, as_json: bool) -> int:
    single = target.bundle is None and target.initramfs is None
    image = looking.image_kind(target.path) if single else ""
    wrong = looking.check_artefacts(target)
    entries = looking.list_(target) if target.initramfs is not None else ()
    size_bytes = sum(item.size_bytes for item in entries)
    unknown = [item.path for item in entries if item.why == looking.UNKNOWN]
    bundle = target.bundle
    if as_json:
        tree: dict[str, object] = {
            "entries": len(entries),
            "unpacked_bytes": size_bytes,
            "image": image or None,
            "wrong": list(wrong),
            "unknown": unknown,
        }
        if bundle is not None:
            for name in ("name", "svn", "kernel_release", "snp", "vtpm", "vtpm_kind", "acpi_aml"):
                tree[name] = getattr(bundle, name)
            tree["artefacts"] = {item.name: item.size_bytes for item in bundle.artefacts}
        print(json.dumps(tree, indent=2))
        return 1 if wrong or unknown else 0
    if bundle is not None:
        print(f"image     {bundle.name}, svn {bundle.svn}, made by troth {bundle.troth_version}")
        print(f"kernel    {bundle.kernel_release}")
        print(f"tee       snp {bundle.snp}, vtpm {bundle.vtpm} ({bundle.vtpm_kind})")
        print(f"acpi aml  {bundle.acpi_aml}")
        for item in bundle.artefacts:
            verdict = "DIFFERS FROM MANIFEST" if item.name in wrong else item.sha256
            print(f"file      {item.name} {item.size_bytes} {verdict}")
        for disk in bundle.disks:
            print(f"disk      serial {disk.serial}: {disk.file}")
    elif image:
        print(f"image     {target.path} {target.path.stat().st_size}, {image}")
    if target.initramfs is not None:
        print(f"initramfs {len(entries)} entries, {size_bytes} bytes unpacked")
    for path in unknown:
        print(f"unknown   {path}: not as manifest.json says")
    return 1 if wrong or unknown else 0

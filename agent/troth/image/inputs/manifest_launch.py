# SPDX-License-Identifier: Apache-2.0
"""``[launch]``: the machines whose launch digests a build computes.

Serves ``image.inputs.manifest`` only. Every refusal names the key and its
line; none looks at the file system.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from troth.abi import snp_policy, snp_tcb
from troth.documents.toml_source import nearest
from troth.errors import FormatError, UsageError
from troth.image.igvm import layout
from troth.image.inputs import manifest_rules as rules
from troth.image.inputs.manifest_records import Launch
from troth.measure.vcpu import MAX_VCPUS, SIGNATURES, SNP_ACTIVE

if TYPE_CHECKING:
    from pathlib import Path

    from troth.documents.toml_source import Table
    from troth.image.inputs.manifest_records import Image

KEYS = ("vcpus", "cpu_types", "memory", "ovmf", "guest_features", "policy", "products")
DEFAULT_VCPUS = 1
DEFAULT_CPU_TYPE = "EPYC-v4"
DEFAULT_MEMORY = "1G"

#: Each shape of an IGVM file is a file that holds kernel and initramfs once more.
MAX_IGVM_FILES = 16
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}", re.ASCII)
_UNITS = {"M": 1 << 20, "G": 1 << 30}
#: Words that belong to one of the two ways of launching -> that way.
_OF_IGVM = ("memory",)
_OF_OVMF = ("guest_features",)


def launch(table: Table, base: Path, *, image: Image, snp: str) -> Launch:
    """The table, its defaults filled in; nothing in it has a meaning without a way to launch."""
    igvm = image.igvm
    has_ovmf = table.has("ovmf")
    if table.tree and not igvm and not has_ovmf:
        raise table.fail(
            next(iter(table.tree)),
            "has a meaning with [image] igvm = true or [launch] ovmf only",
            code="manifest-conflict",
        )
    for keys, given, way in ((_OF_IGVM, igvm, "[image] igvm"), (_OF_OVMF, has_ovmf, "ovmf")):
        for key in keys:
            if table.has(key) and not given:
                raise table.fail(key, f"has a meaning with {way} only", code="manifest-conflict")
    found = Launch(
        vcpus=rules.numbers(table, "vcpus", minimum=1, maximum=MAX_VCPUS) or (DEFAULT_VCPUS,),
        cpu_types=_cpu_types(table),
        memory_bytes=_memory(table),
        ovmf=_ovmf(table, base) if has_ovmf else None,
        guest_features=_guest_features(table),
        policy=_policy(table, snp=snp),
        products=_products(table),
    )
    if igvm and image.acpi == "off" and max(found.vcpus) > 1:
        raise table.fail(
            "vcpus",
            'above 1 and [image] acpi = "off" exclude each other in an IGVM file: without ACPI'
            " Linux finds one processor",
            code="manifest-conflict",
        )
    files = len(found.vcpus) * len(found.memory_bytes)
    if igvm and files > MAX_IGVM_FILES:
        raise table.fail(
            "memory",
            f"and vcpus make {files} IGVM files, at most {MAX_IGVM_FILES} are made",
        )
    return found


def _some(table: Table, key: str) -> None:
    """Refuse an empty list: it would ask for no machine at all."""
    if table.has(key) and table.tree[key] == []:
        raise table.fail(key, "must not be empty")


def _cpu_types(table: Table) -> tuple[str, ...]:
    _some(table, "vcpus")
    _some(table, "cpu_types")
    found = rules.one_or_more(table, "cpu_types", rules.CPU_TYPE, "processor names")
    for name in found:
        if name not in SIGNATURES:
            raise table.fail(
                "cpu_types",
                f"holds {name!r}, whose signature is not known",
                hint=nearest(name, tuple(SIGNATURES)),
            )
    return found or (DEFAULT_CPU_TYPE,)


def _memory(table: Table) -> tuple[int, ...]:
    _some(table, "memory")
    texts = rules.one_or_more(table, "memory", rules.MEMORY, 'sizes like "512M" or "4G"')
    found: list[int] = []
    for text in texts or (DEFAULT_MEMORY,):
        size_bytes = int(text[:-1]) * _UNITS[text[-1]]
        if size_bytes in found:
            raise table.fail("memory", f"holds {text!r} twice")
        try:
            layout.check_memory(size_bytes)
        except UsageError as error:
            raise table.fail("memory", f"{text!r}: {error.message}", hint=error.hint) from None
        found.append(size_bytes)
    return tuple(found)


def _ovmf(table: Table, base: Path) -> Path:
    path = base / table.text("ovmf")
    if not _FILE.fullmatch(path.name):
        raise table.fail("ovmf", f"has a name that reference values cannot hold: {path.name!r}")
    return path


def _guest_features(table: Table) -> tuple[int, ...]:
    _some(table, "guest_features")
    found = rules.numbers(table, "guest_features", minimum=1, maximum=2**32 - 1)
    for number in found:
        if not number & SNP_ACTIVE:
            raise table.fail("guest_features", f"{number:#x} is no SNP guest: bit 0 must be set")
    return found or (SNP_ACTIVE,)


def _policy(table: Table, *, snp: str) -> int:
    value = table.integer("policy", snp_policy.DEFAULT, minimum=0, maximum=2**53 - 1)
    try:
        policy = snp_policy.parse(value)
    except FormatError as error:
        raise table.fail(
            "policy", f"is no guest policy: {error.message}", hint=error.hint
        ) from None
    opening = snp_policy.warnings(policy)
    if opening and snp == "required":
        raise table.fail(
            "policy", f"must not be with snp = required: {opening[0]}", code="manifest-conflict"
        )
    return value


def _products(table: Table) -> tuple[str, ...]:
    found = table.texts("products")
    for name in found:
        if name not in snp_tcb.PRODUCTS:
            hint = nearest(name, snp_tcb.PRODUCTS)
            if name in ("Bergamo", "Siena"):
                hint = 'write "Genoa": their keys and reports are of that line'
            raise table.fail("products", f"holds {name!r}, which has no SNP", hint=hint)
    return found

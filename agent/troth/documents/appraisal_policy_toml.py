# SPDX-License-Identifier: Apache-2.0
"""The verification policy as TOML: read strictly, each refusal with file, line and nearest word.

Serves ``troth verify`` and key brokers. The file is the relying party's own,
yet a mistake in it must never widen what is accepted: unknown keys, wrong
types and values out of range are errors, and a key that is not there has its
strict meaning (source: docs/formats.md, "Verification policy").
"""

from __future__ import annotations

import binascii
import re

from troth.abi import snp_tcb
from troth.documents import appraisal_policy as policy_of
from troth.documents import check_names, platform_references, result, tcb_floors
from troth.documents.appraisal_policy import (
    AppraisalPolicy,
    GuestPolicy,
    IdBlock,
    KeyPin,
    Launch,
    OneOf,
    PlatformInfo,
    Reference,
)
from troth.documents.toml_source import Table, nearest, read_source
from troth.errors import UsageError

#: Table -> its keys; "" holds those above all tables, "tcb.*" those of each kind of silicon.
KEYS = {
    "": (
        "schema", "platform", "permissive", "trusted_roots", "deny_products", "providers",
        "chip_ids", "report_versions", "masked_chip_id", "reserved_bits", "any_tcb_order",
    ),
    "tcb.*": (
        "dated", "source", "reported", "committed", "launch", "firmware", "launch_mitigations",
        "current_mitigations",
    ),
    "platform_info": (*policy_of.PLATFORM_BITS, "unknown_bits"),
    "guest_policy": (*policy_of.PERMITS, *policy_of.DEMANDS, "min_abi"),
    "launch": ("measurements", "vmpl", "host_data", "report_ids", "report_id_ma"),
    "id_block": ("id_keys", "author_keys", "family_ids", "image_ids", "min_guest_svn"),
    "reference": (
        "keys", "public_keys", "allow_unsigned", "min_svn", "acpi_aml", "accept", "callers",
        "paravisor", "svsm", "pcrs",
    ),
    "required": tuple(
        c.name for c in check_names.CHECKS
        if c.needed != check_names.ALWAYS or c.group == check_names.EVIDENCE
    ),
}  # fmt: skip

_TABLES = ("tcb", *(name for name in KEYS if name and name != "tcb.*"))
_VERSION = re.compile(r"(\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?", re.ASCII)
_MAX_SVN = (1 << 32) - 1
_MAX_PINS = 256


_WRITE = "write one with: troth verify init-policy -o policy.toml"


def parse(data: bytes, *, where: str) -> AppraisalPolicy:
    """The policy in ``data``; ``where`` names the file in errors.

    Raises ``UsageError``: ``verify-policy-syntax``, ``verify-policy-unknown-key``,
    ``verify-policy-missing-key``, ``verify-policy-type``, ``verify-policy-value``.
    """
    if data.lstrip()[:1] == b"{":
        raise UsageError(
            "verify-policy-syntax",
            "this is JSON, and a verification policy is TOML",
            where=where,
            hint=_WRITE,
        )
    source = read_source(data, where, refuse=_refuse)
    if "schema" not in source.tree:
        raise UsageError(
            "verify-policy-missing-key",
            "no verification policy: it has no schema",
            where=where,
            hint=_WRITE,
        )
    top = Table(source, source.tree, (), (*KEYS[""], *_TABLES))
    top.need("schema")
    top.text("schema", allowed=(policy_of.SCHEMA,))
    top.need("platform")
    platform = top.text("platform", allowed=result.PLATFORMS)
    roots = top.digests("trusted_roots", size_bytes=32)
    if platform == result.SIMULATED and not roots:
        raise top.fail(
            "trusted_roots",
            "must name the root of the simulated platform",
            hint="the SHA-256 of its root certificate in DER",
        )
    return AppraisalPolicy(
        platform=platform,
        permissive=top.boolean("permissive", default=False),
        trusted_roots=roots,
        deny_products=_words(
            top, "deny_products", snp_tcb.PRODUCTS, absent=policy_of.DENIED_BY_DEFAULT
        ),
        providers=top.texts("providers"),
        chip_ids=top.digests("chip_ids", size_bytes=64),
        report_versions=_numbers(
            top, "report_versions", policy_of.REPORT_VERSIONS, absent=policy_of.REPORT_VERSIONS
        ),
        masked_chip_id=top.boolean("masked_chip_id", default=False),
        reserved_bits=top.boolean("reserved_bits", default=False),
        any_tcb_order=top.boolean("any_tcb_order", default=False),
        tcb=_floors(top.table("tcb", tuple(tcb_floors.SILICON))),
        platform_info=_platform_info(top.table("platform_info", KEYS["platform_info"])),
        guest_policy=_guest_policy(top.table("guest_policy", KEYS["guest_policy"])),
        launch=_launch(top.table("launch", KEYS["launch"])),
        id_block=_id_block(top.table("id_block", KEYS["id_block"])),
        reference=_reference(top.table("reference", KEYS["reference"])),
        required=_required(top.table("required", KEYS["required"])),
    )


def _refuse(kind: str, message: str, where: str, hint: str) -> UsageError:
    code = "verify-policy-value"
    if kind == "syntax":
        code = "verify-policy-syntax"
    elif kind == "unknown-key":
        code = "verify-policy-unknown-key"
    elif kind == "missing-key":
        code = "verify-policy-missing-key"
    elif kind == "type":
        code = "verify-policy-type"
    return UsageError(code, message, where=where, hint=hint)


def _floors(table: Table) -> dict[str, tcb_floors.Floor]:
    found = {}
    for silicon in table.tree:
        own = table.table(silicon, KEYS["tcb.*"])
        own.need("source")
        found[silicon] = tcb_floors.Floor(
            dated=own.day("dated"),
            source=own.text("source"),
            reported=_tcb(own, "reported", silicon),
            committed=_tcb(own, "committed", silicon),
            launch=_tcb(own, "launch", silicon),
            firmware=_firmware(own),
            launch_mitigations=_bits(own, "launch_mitigations"),
            current_mitigations=_bits(own, "current_mitigations"),
        )
    return found


def _tcb(table: Table, key: str, silicon: str) -> snp_tcb.Tcb | None:
    if not table.has(key):
        return None
    has_fmc = snp_tcb.has_fmc(tcb_floors.SILICON[silicon])
    parts = tuple(part for part in snp_tcb.PARTS if part != "fmc" or has_fmc)
    own = table.table(key, parts)
    for part in parts:
        own.need(part)
    levels = {part: own.integer(part, 0, minimum=0, maximum=255) for part in parts}
    return snp_tcb.Tcb(
        fmc=levels.get("fmc"),
        bootloader=levels["bootloader"],
        tee=levels["tee"],
        snp=levels["snp"],
        microcode=levels["microcode"],
    )


def _firmware(table: Table) -> tuple[int, int, int] | None:
    numbers = _version(table, "firmware", parts=3)
    return (numbers[0], numbers[1], numbers[2]) if numbers else None


def _version(table: Table, key: str, *, parts: int) -> tuple[int, ...]:
    if not table.has(key):
        return ()
    found = _VERSION.fullmatch(table.text(key))
    numbers = tuple(int(part) for part in found.groups() if part) if found else ()
    if len(numbers) != parts or max(numbers) > 255:
        form = "1.55.40" if parts == 3 else "1.55"
        raise table.fail(key, f'must be a version such as "{form}"')
    return numbers


def _bits(table: Table, key: str) -> int:
    return table.integer(key, 0, minimum=0, maximum=(1 << 64) - 1)


def _platform_info(table: Table) -> PlatformInfo:
    return PlatformInfo(
        demanded=tuple(
            (name, table.boolean(name, default=False))
            for name in policy_of.PLATFORM_BITS
            if table.has(name)
        ),
        unknown_bits=table.boolean("unknown_bits", default=False),
    )


def _guest_policy(table: Table) -> GuestPolicy:
    abi = _version(table, "min_abi", parts=2)
    return GuestPolicy(
        permitted=tuple(n for n in policy_of.PERMITS if table.boolean(n, default=False)),
        demanded=tuple(n for n in policy_of.DEMANDS if table.boolean(n, default=False)),
        min_abi=(abi[0], abi[1]) if abi else None,
    )


def _launch(table: Table) -> Launch:
    return Launch(
        measurements=table.digests("measurements", size_bytes=48),
        vmpl=_numbers(table, "vmpl", policy_of.VMPLS, absent=()),
        host_data=_one_of(table, "host_data", size_bytes=32),
        report_ids=table.digests("report_ids", size_bytes=32),
        report_id_ma=_one_of(table, "report_id_ma", size_bytes=32) or OneOf(True, ()),
    )


def _id_block(table: Table) -> IdBlock:
    return IdBlock(
        id_keys=_pins(table, "id_keys"),
        author_keys=_pins(table, "author_keys"),
        family_ids=_one_of(table, "family_ids", size_bytes=16),
        image_ids=_one_of(table, "image_ids", size_bytes=16),
        min_guest_svn=table.integer("min_guest_svn", 0, minimum=0, maximum=_MAX_SVN),
    )


def _pins(table: Table, key: str) -> tuple[KeyPin, ...]:
    """Keys are accepted only together with the lowest SVN: old images keep their signatures."""
    pins: list[KeyPin] = []
    for own in table.tables(key, ("digest", "min_guest_svn")):
        own.need("min_guest_svn")
        pin = KeyPin(
            digest=own.digest("digest", size_bytes=48),
            min_guest_svn=own.integer("min_guest_svn", 0, minimum=0, maximum=_MAX_SVN),
        )
        if any(pin.digest == other.digest for other in pins):
            raise own.fail("digest", "is there twice")
        if not any(pin.digest):
            raise own.fail("digest", "is all zero, which is no key", hint=f"{key} = []")
        pins.append(pin)
    if len(pins) > _MAX_PINS:
        raise table.fail(key, f"has {len(pins)} keys, at most {_MAX_PINS}")
    return tuple(pins)


def _reference(table: Table) -> Reference:
    return Reference(
        keys=table.digests("keys", size_bytes=32),
        public_keys=_public_keys(table),
        allow_unsigned=table.boolean("allow_unsigned", default=False),
        min_svn=table.integer("min_svn", 0, minimum=0, maximum=_MAX_SVN),
        acpi_aml=_words(table, "acpi_aml", policy_of.ACPI_AML, absent=policy_of.ACPI_PROTECTED),
        accept=_words(table, "accept", policy_of.WEAKNESSES, absent=()),
        callers=table.texts("callers"),
        paravisors=platform_references.paravisors(table),
        svsms=platform_references.svsms(table),
        pcrs=platform_references.pcrs(table),
    )


def _public_keys(table: Table) -> tuple[bytes, ...]:
    """Whole keys, as base64 of their DER: what stands between the lines of a PEM file."""
    found = []
    for text in table.texts("public_keys"):
        try:
            found.append(binascii.a2b_base64(text.encode("ascii"), strict_mode=True))
        except ValueError:
            raise table.fail(
                "public_keys",
                "holds something that is not base64",
                hint="what stands between the first and the last line of the PEM file",
            ) from None
    return tuple(found)


def _required(table: Table) -> dict[str, bool]:
    found = {name: table.boolean(name, default=True) for name in table.tree}
    for name, value in found.items():
        if not value and check_names.BY_NAME[name].needed == check_names.ALWAYS:
            raise table.fail(name, "cannot be waived", hint="remove the line")
    return found


def _one_of(table: Table, key: str, *, size_bytes: int) -> OneOf | None:
    if not table.has(key):
        return None
    if isinstance(table.tree[key], str):
        table.text(key, allowed=("unused",))
        return OneOf(unused=True, values=())
    values = table.digests(key, size_bytes=size_bytes)
    if not values:
        raise table.fail(key, 'must be "unused" or name at least one value')
    return OneOf(unused=False, values=values)


def _words(
    table: Table, key: str, allowed: tuple[str, ...], *, absent: tuple[str, ...]
) -> tuple[str, ...]:
    if not table.has(key):
        return absent
    words = table.texts(key)
    for word in words:
        if word not in allowed:
            raise table.fail(key, f"has the unknown word {word!r}", hint=nearest(word, allowed))
    return words


def _numbers(
    table: Table, key: str, allowed: tuple[int, ...], *, absent: tuple[int, ...]
) -> tuple[int, ...]:
    if not table.has(key):
        return absent
    value = table.tree[key]
    if not isinstance(value, list) or any(type(item) is not int for item in value):
        raise table.fail(key, "must be an array of integers", kind="type")
    if not value or len(set(value)) != len(value) or not set(value) <= set(allowed):
        wanted = ", ".join(str(number) for number in allowed)
        raise table.fail(key, f"must name some of {wanted}, each once")
    return tuple(value)

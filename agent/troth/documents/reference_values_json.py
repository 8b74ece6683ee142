# SPDX-License-Identifier: Apache-2.0
"""reference-values.json as bytes, and as the predicate of a signed statement.

Serves ``image`` (which prints what it predicted) and everybody who judges a
guest. Reading is strict: unknown, missing, repeated and contradicting values
are refused. Pure: it never looks at a clock, so it does not judge dates.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from troth.abi.snp_tcb import PRODUCTS
from troth.documents import instant, statement, strict
from troth.documents.reference_values import (
    BANKS,
    COVERED,
    DIGEST_BYTES,
    FILE_NAME,
    INSTANCE_STATES,
    LAUNCH_DIGEST_BYTES,
    LAUNCH_KINDS,
    LAUNCH_PLATFORMS,
    MAX_LAUNCHES,
    MAX_REVOKED,
    MAX_VCPUS,
    NEVER,
    PLATFORMS,
    SCHEMA,
    SIMULATED,
    TPM_STATES,
    VMMS,
    Case,
    Flags,
    LaunchValue,
    ReferenceValues,
    Registers,
)
from troth.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from troth.documents.strict import Reader

#: What the predicate of a signed statement is called. A name, not an address.
PREDICATE_TYPE = "urn:troth:reference-values:v1"
MAX_BYTES = 16 << 20

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", re.ASCII)


def parse(data: bytes, *, where: str = FILE_NAME) -> ReferenceValues:
    """The values in ``data``.

    Raises ``FormatError``: ``json-*``; ``reference-twice``; ``reference-cmdline``;
    ``reference-launch`` (conditions that contradict each other or the cases);
    ``reference-dates``; ``reference-text``; ``reference-count``.
    """
    return from_tree(strict.parse(data, where=where, limit_bytes=MAX_BYTES), where=where)


def from_tree(tree: object, *, where: str = FILE_NAME) -> ReferenceValues:
    """As ``parse``, of a JSON tree that was read already."""
    try:
        strict.canonical(tree)
    except UnicodeEncodeError:
        # JSON can spell half a surrogate pair; nothing that is printed again can.
        raise FormatError("reference-text", "a text is no Unicode", where=where) from None
    top = strict.Reader(tree, where=where)
    top.text("schema", allowed=(SCHEMA,))
    values = ReferenceValues(
        image_name=top.text("image_name"),
        svn=top.integer("svn", maximum=2**32 - 1),
        troth_version=top.text("troth_version"),
        platform=top.text("platform", allowed=PLATFORMS),
        snp=top.text("snp", allowed=("required", "simulated", "none")),
        vtpm=top.text("vtpm", allowed=("required", "optional", "none")),
        vtpm_kind=top.text("vtpm_kind", allowed=("svsm", "paravisor", "host")),
        policy_sha256=top.digest("policy_sha256", size_bytes=32),
        root_hashes=top.each("root_hashes", _root_hash),
        workload=top.digest("workload", size_bytes=32) if top.raw("workload") else "",
        cases=top.each("cases", _case),
        flags=_flags(top.reader("flags")),
        launch=top.each("launch", _launch),
        products=_words(top, "products", PRODUCTS),
        revoked=_digests(top, "revoked"),
        artefacts=top.each("artefacts", _file),
        inputs=top.each("inputs", _file),
        issued=top.text("issued"),
        expires=top.text("expires"),
        commit=top.text("commit"),
        instance=top.text("instance", allowed=INSTANCE_STATES),
    )
    top.close()
    _check(values, where=where)
    return values


def _check(values: ReferenceValues, *, where: str) -> None:
    _once((name for name, _ in values.root_hashes), "a volume", where=where)
    _once(((case.cmdline, case.tpm) for case in values.cases), "a case", where=where)
    _once((value.digest for value in values.launch), "a launch digest", where=where)
    _once((name for name, _ in values.artefacts), "a file", where=where)
    _once((name for name, _ in values.inputs), "an input", where=where)
    if len(values.launch) > MAX_LAUNCHES or len(values.revoked) > MAX_REVOKED:
        raise FormatError("reference-count", "more launch digests than any image has", where=where)
    booted = {(case.form, case.cmdline) for case in values.cases}
    for value in values.launch:
        if (value.form, value.cmdline) not in booted:
            raise FormatError(
                "reference-launch",
                f"launch {value.digest[:16]}... leads to no case of its command line",
                where=where,
            )
        if value.kind == SIMULATED and values.snp != SIMULATED:
            raise FormatError(
                "reference-launch", "a simulated launch of an image that is not", where=where
            )
    if values.flags.simulated != (values.snp == SIMULATED):
        raise FormatError("reference-launch", "flags.simulated contradicts snp", where=where)
    _check_dates(values, where=where)
    if values.commit and not _COMMIT.fullmatch(values.commit):
        raise FormatError(
            "reference-text", "commit is not 40 or 64 lower-case hex digits", where=where
        )


def _check_dates(values: ReferenceValues, *, where: str) -> None:
    if bool(values.issued) != bool(values.expires):
        raise FormatError(
            "reference-dates", "issued and expires stand together or not at all", where=where
        )
    if not values.issued:
        return
    issued_s = instant.parse(values.issued, where=where)
    if values.expires != NEVER and instant.parse(values.expires, where=where) <= issued_s:
        raise FormatError("reference-dates", "expires is not after issued", where=where)


def _once(found: Iterable[object], what: str, *, where: str = "") -> None:
    items = list(found)
    if len(set(items)) != len(items):
        raise FormatError("reference-twice", f"{what} is given twice", where=where)


def _root_hash(reader: Reader) -> tuple[str, str]:
    return reader.text("volume"), reader.digest("root_hash", size_bytes=32)


def _file(reader: Reader) -> tuple[str, str]:
    return _matching(reader.text("name"), _FILE), reader.digest("sha256", size_bytes=32)


def _matching(text: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(text):
        raise FormatError("reference-text", f"{text[:100]!r} is no name")
    return text


def _words(reader: Reader, key: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Words of ``allowed``, each once."""
    words = reader.texts(key)
    for word in words:
        if word not in allowed:
            raise FormatError("reference-text", f"{key} holds {word[:100]!r}")
    _once(words, f"a word of {key}")
    return words


def _digests(reader: Reader, key: str) -> tuple[str, ...]:
    digests = reader.texts(key)
    for text in digests:
        if len(text) != 2 * LAUNCH_DIGEST_BYTES or not set(text) <= set("0123456789abcdef"):
            raise FormatError("reference-text", f"{key} holds no launch digest: {text[:100]!r}")
    _once(digests, f"a digest of {key}")
    return digests


def _case(reader: Reader) -> Case:
    case = Case(
        form=reader.text("form"),
        cmdline=reader.text("cmdline"),
        tpm=reader.text("tpm", allowed=TPM_STATES),
        workload=_registers(reader.reader("workload")),
        handover=_registers(reader.reader("handover")),
    )
    if reader.digest("cmdline_sha256", size_bytes=32) != _sha256(case.cmdline):
        raise FormatError("reference-cmdline", f"not the digest of {case.cmdline[:200]!r}")
    return case


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _registers(reader: Reader) -> Registers:
    registers = Registers(
        pcrs=reader.each("pcrs", _pcr),
        software=reader.digest("software", size_bytes=48),
    )
    _once(((bank, index) for bank, index, _ in registers.pcrs), "a PCR")
    reader.close()
    return registers


def _pcr(reader: Reader) -> tuple[str, int, str]:
    bank = reader.text("bank", allowed=BANKS)
    return (
        bank,
        reader.integer("index", maximum=23),
        reader.digest("value", size_bytes=DIGEST_BYTES[bank]),
    )


def _launch(reader: Reader) -> LaunchValue:
    kind = reader.text("kind", allowed=LAUNCH_KINDS)
    value = LaunchValue(
        digest=reader.digest("digest", size_bytes=LAUNCH_DIGEST_BYTES),
        kind=kind,
        platform=reader.text("platform", allowed=LAUNCH_PLATFORMS),
        file=_matching(reader.text("file"), _FILE),
        ovmf_hash=(
            reader.digest("ovmf_hash", size_bytes=LAUNCH_DIGEST_BYTES)
            if kind == "ovmf"
            else reader.text("ovmf_hash", allowed=("",))
        ),
        form=reader.text("form"),
        cmdline=reader.text("cmdline"),
        vcpus=reader.integer("vcpus", minimum=0 if kind == SIMULATED else 1, maximum=MAX_VCPUS),
        cpu_types=tuple(_matching(name, _NAME) for name in reader.texts("cpu_types")),
        vcpu_signature=reader.integer("vcpu_signature", maximum=2**32 - 1),
        memory_bytes=reader.integer("memory_bytes"),
        vmm=reader.text("vmm", allowed=VMMS),
        guest_features=reader.integer("guest_features"),
        policy=reader.integer("policy"),
        acpi_aml=reader.text("acpi_aml"),
        covers=_words(reader, "covers", COVERED),
        experimental=reader.text("experimental"),
    )
    _once(value.cpu_types, "a processor of one launch")
    if (kind == SIMULATED) != (value.platform == SIMULATED):
        raise FormatError(
            "reference-launch", f"platform {value.platform!r} does not fit kind {kind!r}"
        )
    if (kind == "igvm") != bool(value.memory_bytes):
        # An IGVM file holds every page of its memory; OVMF's digest covers none of it.
        raise FormatError("reference-launch", f"memory_bytes does not fit kind {kind!r}")
    if not value.cpu_types and value.vcpu_signature:
        raise FormatError("reference-launch", "a processor signature without a processor")
    if (value.form == "ovmf-direct") != (kind == "ovmf"):
        raise FormatError("reference-launch", f"form {value.form!r} does not fit kind {kind!r}")
    return value


def _flags(reader: Reader) -> Flags:
    flags = Flags(
        acpi_aml=reader.text("acpi_aml"),
        cryptomgr_notests=reader.boolean("cryptomgr_notests"),
        modules_disabled=reader.boolean("modules_disabled"),
        lockdown=reader.text("lockdown", allowed=("integrity", "confidentiality", "none")),
        unsigned_modules=reader.boolean("unsigned_modules"),
        io_error=reader.text("io_error", allowed=("panic", "survivable")),
        overlay=reader.text("overlay"),
        overlay_paths=reader.texts("overlay_paths"),
        simulated=reader.boolean("simulated"),
        unauthenticated_volumes=reader.texts("unauthenticated_volumes"),
        untracked_volumes=reader.texts("untracked_volumes"),
    )
    reader.close()
    return flags


def _registers_tree(registers: Registers) -> dict[str, object]:
    return {
        "pcrs": [
            {"bank": bank, "index": index, "value": value} for bank, index, value in registers.pcrs
        ],
        "software": registers.software,
    }


def to_tree(values: ReferenceValues) -> dict[str, object]:
    """The JSON tree of ``values``; the inverse of ``from_tree``."""
    tree: dict[str, object] = {"schema": SCHEMA}
    for name in values.__match_args__:
        value = getattr(values, name)
        tree[name] = list(value) if isinstance(value, tuple) else value
    tree["root_hashes"] = [
        {"volume": name, "root_hash": value} for name, value in values.root_hashes
    ]
    tree["cases"] = [
        {
            "form": case.form,
            "cmdline": case.cmdline,
            "cmdline_sha256": _sha256(case.cmdline),
            "tpm": case.tpm,
            "workload": _registers_tree(case.workload),
            "handover": _registers_tree(case.handover),
        }
        for case in values.cases
    ]
    for name, files in (("artefacts", values.artefacts), ("inputs", values.inputs)):
        tree[name] = [{"name": file, "sha256": digest} for file, digest in files]
    tree["launch"] = [_fields(value) for value in values.launch]
    tree["flags"] = _fields(values.flags)
    return tree


def _fields(value: Flags | LaunchValue) -> dict[str, object]:
    return {
        name: list(item) if isinstance(item := getattr(value, name), tuple) else item
        for name in value.__match_args__
    }


def print_(values: ReferenceValues) -> bytes:
    """reference-values.json for ``values``: sorted, indented, final newline."""
    return strict.pretty(to_tree(values))


def to_statement(values: ReferenceValues) -> bytes:
    """The statement to sign: the values, said of the files of their bundle."""
    return statement.print_(statement.Statement(values.artefacts, PREDICATE_TYPE, to_tree(values)))


def from_statement(data: bytes, *, where: str = "") -> ReferenceValues:
    """The values in a statement.

    Raises ``FormatError``: those of ``parse`` and of ``statement.parse``;
    ``statement-predicate`` for a statement about something else;
    ``statement-subject`` where its files are not those of the values.
    """
    found = statement.parse(data, where=where)
    if found.kind != PREDICATE_TYPE:
        raise FormatError(
            "statement-predicate",
            f"predicateType {found.kind[:100]!r} is not {PREDICATE_TYPE}",
            where=where,
        )
    values = from_tree(found.predicate, where=where)
    if found.subject != values.artefacts:
        raise FormatError(
            "statement-subject", "subject and artefacts name other files", where=where
        )
    return values

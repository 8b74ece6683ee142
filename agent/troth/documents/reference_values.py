# SPDX-License-Identifier: Apache-2.0
"""reference-values.json: what a guest of this image will show, if it is this image.

Flows from ``troth build`` to relying parties. Fields are described in
``docs/formats.md``. Pure: it holds predictions and never computes one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from troth.documents import strict
from troth.errors import FormatError
from troth.record import record

if TYPE_CHECKING:
    from troth.documents.strict import Reader

SCHEMA = "troth-reference-values-v1"
FILE_NAME = "reference-values.json"

PLATFORMS = ("none", "direct", "svsm", "azure-paravisor", "simulated")
TPM_STATES = ("present", "absent", "unused")
#: Banks that predictions are made for, in the order they are listed.
BANKS = ("sha1", "sha256", "sha384", "sha512")
DIGEST_BYTES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
SOFTWARE_BYTES = 48


@record
class Registers:
    """What the registers hold at one moment.

    ``pcrs``: (bank, index, lower-case hex), empty where no TPM is used;
    ``software``: the SHA-384 chain over the event log, in hex.
    """

    pcrs: tuple[tuple[str, int, str], ...]
    software: str


@record
class Case:
    """One boot the policy allows: a command line with its platform ``form`` and a TPM state.

    ``cmdline``: as /proc/cmdline without the final newline; its SHA-256 stands
    beside it in the document. ``tpm``: "present", "absent" or "unused";
    ``workload``, ``handover``: the two moments of DESIGN section 8.
    """

    form: str
    cmdline: str
    tpm: str
    workload: Registers
    handover: Registers


@record
class Flags:
    """Choices a relying party may want to refuse; none of them is a measurement.

    ``acpi_aml``: off, unprotected, ... (SECURITY S11); ``cryptomgr_notests``: the
    command line switches the kernel's cipher self-tests off, so that a broken AES
    would go unnoticed (S42); ``unsigned_modules``: packed modules carry no
    signature (S33); ``io_error``: "panic", or "survivable" on kernels that
    cannot panic on unreadable blocks (S34).
    """

    acpi_aml: str
    cryptomgr_notests: bool
    modules_disabled: bool
    lockdown: str
    unsigned_modules: bool
    io_error: str
    overlay: str
    overlay_paths: tuple[str, ...]


@record
class ReferenceValues:
    """The whole of reference-values.json.

    ``root_hashes``: (volume, hex), root first; ``workload``: the tree digest in
    hex, empty for images that measure none.
    """

    image_name: str
    svn: int
    troth_version: str
    platform: str
    snp: str
    vtpm: str
    vtpm_kind: str
    policy_sha256: str
    root_hashes: tuple[tuple[str, str], ...]
    workload: str
    cases: tuple[Case, ...]
    flags: Flags


def parse(data: bytes, *, where: str = FILE_NAME) -> ReferenceValues:
    """The values in ``data``; ``FormatError`` ``json-*``, ``reference-twice|cmdline``."""
    top = strict.Reader(strict.parse(data, where=where), where=where)
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
    )
    top.close()
    names = [name for name, _ in values.root_hashes]
    keys = [(case.cmdline, case.tpm) for case in values.cases]
    if len(set(names)) != len(names) or len(set(keys)) != len(keys):
        raise FormatError("reference-twice", "a volume or a case is given twice", where=where)
    return values


def _root_hash(reader: Reader) -> tuple[str, str]:
    return reader.text("volume"), reader.digest("root_hash", size_bytes=32)


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
        software=reader.digest("software", size_bytes=SOFTWARE_BYTES),
    )
    if len({(bank, index) for bank, index, _ in registers.pcrs}) != len(registers.pcrs):
        raise FormatError("reference-twice", "a PCR is given twice")
    reader.close()
    return registers


def _pcr(reader: Reader) -> tuple[str, int, str]:
    bank = reader.text("bank", allowed=BANKS)
    return (
        bank,
        reader.integer("index", maximum=23),
        reader.digest("value", size_bytes=DIGEST_BYTES[bank]),
    )


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


def print_(values: ReferenceValues) -> bytes:
    """reference-values.json for ``values``: sorted, indented, final newline."""
    flags = values.flags
    return strict.pretty(
        {
            "schema": SCHEMA,
            "image_name": values.image_name,
            "svn": values.svn,
            "troth_version": values.troth_version,
            "platform": values.platform,
            "snp": values.snp,
            "vtpm": values.vtpm,
            "vtpm_kind": values.vtpm_kind,
            "policy_sha256": values.policy_sha256,
            "root_hashes": [
                {"volume": name, "root_hash": value} for name, value in values.root_hashes
            ],
            "workload": values.workload,
            "cases": [
                {
                    "form": case.form,
                    "cmdline": case.cmdline,
                    "cmdline_sha256": _sha256(case.cmdline),
                    "tpm": case.tpm,
                    "workload": _registers_tree(case.workload),
                    "handover": _registers_tree(case.handover),
                }
                for case in values.cases
            ],
            "flags": {name: getattr(flags, name) for name in flags.__match_args__},
        }
    )

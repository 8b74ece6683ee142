# SPDX-License-Identifier: Apache-2.0
"""evidence.json: all that a guest shows of itself, bound to one report.

Flows from the agent, which makes it, to verifiers and brokers, which believe
none of it before the report's signature, the binding and the replay have been
judged. Packed into the guest: it must never import a cryptography library.

Source: docs/formats.md, "evidence.json"; SECURITY S3, S28.
"""

from __future__ import annotations

import binascii

from troth.abi.hashes import BANKS, sha256, sha384
from troth.documents import binding, strict
from troth.documents.binding import EvidenceBinding
from troth.errors import FormatError
from troth.record import record

SCHEMA = "troth-evidence-v1"

REPORT_BYTES = 1184
MAX_CERTIFICATES_BYTES = 1 << 20
MAX_LOG_BYTES = 16 << 20
MAX_AK_BYTES = 1024
MAX_ATTEST_BYTES = 4096
MAX_SIGNATURE_BYTES = 1024
MAX_SERVICE_BYTES = 1 << 20
MAX_PCRS = 24 * len(BANKS)
MAX_PCR = 23
LIMIT_BYTES = 32 << 20
"""Of the whole document: base64 of the largest fields, and room for the rest."""

#: Kinds whose trust comes by way of a service between processor and guest.
SERVICE_KINDS = ("svsm", "azure-paravisor")

SOFTWARE = "software"
"""The register that the agent keeps, SHA-384 over the log."""
TPM_COUNTERS = "tpm-counters"
"""The name under which ``Counters`` are bound; no register of that name is sent."""


@record
class PcrValue:
    """One PCR as it was read: ``bank`` as in event logs, ``index`` 0 to 23, ``value``."""

    bank: str
    index: int
    value: bytes


@record
class Counters:
    """What the TPM said of itself when the boot opened it: resets, restarts, its clock."""

    reset_count: int
    restart_count: int
    clock_ms: int


@record
class TpmPart:
    """A quote: ``ak_public``: TPMT_PUBLIC; ``attest``: TPMS_ATTEST; ``signature``: TPMT_SIGNATURE,
    all as the TPM has them, without a size before them; ``pcrs``: what the quote
    covers, by bank and index; ``counters``: None where the boot kept none.
    """  # noqa: D205 - the fields are the summary

    ak_public: bytes
    attest: bytes
    signature: bytes
    pcrs: tuple[PcrValue, ...]
    counters: Counters | None


@record
class ServicePart:
    """``data``: the paravisor's HCL report, or the SVSM's services manifest, by platform kind;
    ``report``: a second report, of the guest's own privilege level, empty where there is none.
    """  # noqa: D205 - the fields are the summary

    data: bytes
    report: bytes


@record
class Evidence:
    """Everything needed to compute the binding, and the report that carries it.

    ``platform_kind``: claimed: it selects a parser and is bound, and decides nothing
    else; ``report``: 1184 bytes; ``certificates``: the host's table, or empty;
    ``event_log``: the log's bytes as sent; ``log_records``: how many; ``registers``:
    (name, value), sorted by name: ``software``, and ``<bank>:<index>`` of a TPM;
    ``caller``: who asked, as the agent writes it; ``nonce``, ``user_data``,
    ``channel_sha256``: as the caller gave them, the last 32 bytes or empty.
    """

    platform_kind: str
    nonce: bytes
    user_data: bytes
    channel_sha256: bytes
    caller: str
    report: bytes
    certificates: bytes
    event_log: bytes
    log_records: int
    registers: tuple[tuple[str, bytes], ...]
    tpm: TpmPart | None = None
    service: ServicePart | None = None


def pcr_name(bank: str, index: int) -> str:
    """The name of a PCR among the registers."""
    return f"{bank}:{index}"


def pcr_of(name: str) -> tuple[str, int] | None:
    """(bank, index) of a register's name; None where it names no PCR."""
    bank, _, index = name.partition(":")
    if bank not in BANKS or not index.isdigit() or not index.isascii() or len(index) > 2:
        return None
    if int(index) > MAX_PCR or str(int(index)) != index:
        return None
    return bank, int(index)


def binding_of(evidence: Evidence, *, ak_name: bytes) -> bytes:
    """The 64 bytes that bind ``evidence``, whatever its report says.

    ``ak_name``: the Name of ``tpm.ak_public``, computed from it by the caller,
    empty where there is no TPM part. The agent calls this with a report of zeros.
    Raises ``UsageError`` ``nonce-length``, ``FormatError`` ``binding-field``.
    """
    registers, quote_sha256 = evidence.registers, b""
    if evidence.tpm is not None:
        quote_sha256 = sha256(evidence.tpm.attest + evidence.tpm.signature).digest()
        if evidence.tpm.counters is not None:
            registers = (*registers, (TPM_COUNTERS, _counters_bytes(evidence.tpm.counters)))
    return binding.evidence_binding(
        EvidenceBinding(
            nonce=evidence.nonce,
            platform_kind=evidence.platform_kind,
            channel_sha256=evidence.channel_sha256,
            ak_name=ak_name,
            quote_sha256=quote_sha256,
            registers=registers,
            log_sha384=sha384(evidence.event_log).digest(),
            log_records=evidence.log_records,
            caller=evidence.caller.encode("ascii"),
            user_data=evidence.user_data,
        )
    )


def print_(evidence: Evidence) -> bytes:
    """The document: canonical JSON and a newline."""
    tpm, service = evidence.tpm, evidence.service
    tree: dict[str, object] = {
        "schema": SCHEMA,
        "platform_kind": evidence.platform_kind,
        "nonce": evidence.nonce.hex(),
        "user_data": evidence.user_data.hex(),
        "channel_key_sha256": evidence.channel_sha256.hex(),
        "caller": evidence.caller,
        "report": _base64(evidence.report),
        "certificates": _base64(evidence.certificates),
        "event_log": _base64(evidence.event_log),
        "log_records": evidence.log_records,
        "registers": [{"name": name, "value": value.hex()} for name, value in evidence.registers],
        "tpm": None if tpm is None else _tpm_tree(tpm),
        "service": None
        if service is None
        else {"data": _base64(service.data), "report": _base64(service.report)},
    }
    return strict.canonical(tree) + b"\n"


def parse(data: bytes, *, where: str = "") -> Evidence:
    """The evidence in ``data``, compared with nothing.

    Raises ``FormatError``: those of ``documents.strict``; ``evidence-value`` where a
    text is not hex, not base64, or not printable; ``evidence-size`` where a value
    has a size its field cannot have; ``evidence-registers`` where registers or PCRs
    are there twice or not in order; ``evidence-service`` where a service speaks
    for a platform kind that has none.
    """
    top = strict.Reader(strict.parse(data, where=where, limit_bytes=LIMIT_BYTES), where=where)
    top.text("schema", allowed=(SCHEMA,))
    fields = _Fields(where)
    evidence = Evidence(
        platform_kind=top.text("platform_kind", allowed=binding.PLATFORM_KINDS),
        nonce=fields.hex(top, "nonce", binding.MIN_NONCE_BYTES, binding.MAX_NONCE_BYTES),
        user_data=fields.hex(top, "user_data", 0, binding.MAX_USER_DATA_BYTES),
        channel_sha256=fields.hex(top, "channel_key_sha256", 0, 32),
        caller=fields.text(top, "caller", binding.MAX_CALLER_BYTES),
        report=fields.base64(top, "report", REPORT_BYTES, REPORT_BYTES),
        certificates=fields.base64(top, "certificates", 0, MAX_CERTIFICATES_BYTES),
        event_log=fields.base64(top, "event_log", 0, MAX_LOG_BYTES),
        log_records=top.integer("log_records"),
        registers=top.each("registers", fields.register),
        tpm=None if top.raw("tpm") is None else _tpm(top.reader("tpm"), fields),
        service=None if top.raw("service") is None else _service(top.reader("service"), fields),
    )
    top.close()
    if len(evidence.channel_sha256) not in (0, 32):
        raise FormatError("evidence-size", "channel_key_sha256 has not 32 bytes", where=where)
    if len(evidence.registers) > binding.MAX_REGISTERS:
        raise FormatError("evidence-size", f"{len(evidence.registers)} registers", where=where)
    names = [name for name, _value in evidence.registers]
    if names != sorted(set(names)) or TPM_COUNTERS in names:
        raise FormatError(
            "evidence-registers", "registers are not each there once and in order", where=where
        )
    if evidence.service is not None and evidence.platform_kind not in SERVICE_KINDS:
        raise FormatError(
            "evidence-service", f"{evidence.platform_kind} guests have no service", where=where
        )
    return evidence


class _Fields:
    """Values of a document with their bounds; ``where``: the document's name."""

    def __init__(self, where: str) -> None:
        self._where = where

    def hex(self, reader: strict.Reader, key: str, least: int, most: int) -> bytes:
        """Lower-case hex of ``least`` to ``most`` bytes."""
        text = reader.text(key)
        self.within(key, len(text) // 2, least, most)
        if len(text) % 2 or not set(text) <= set("0123456789abcdef"):
            raise FormatError("evidence-value", f"{key} is not lower-case hex", where=self._where)
        return bytes.fromhex(text)

    def base64(self, reader: strict.Reader, key: str, least: int, most: int) -> bytes:
        """Base64 of ``least`` to ``most`` bytes, in the one form that encoders write."""
        text = reader.text(key)
        self.within(key, len(text) // 4 * 3, least, most + 2)
        try:
            value = binascii.a2b_base64(text, strict_mode=True) if text else b""
        except ValueError:
            raise FormatError("evidence-value", f"{key} is not base64", where=self._where) from None
        if _base64(value) != text:
            raise FormatError("evidence-value", f"{key} is not base64", where=self._where)
        self.within(key, len(value), least, most)
        return value

    def text(self, reader: strict.Reader, key: str, most: int) -> str:
        """Printable ASCII of at most ``most`` characters."""
        text = reader.text(key)
        self.within(key, len(text), 0, most)
        if not text.isascii() or not text.isprintable():
            raise FormatError("evidence-value", f"{key} is not printable ASCII", where=self._where)
        return text

    def register(self, reader: strict.Reader) -> tuple[str, bytes]:
        """One of ``registers``."""
        name = self.text(reader, "name", 64)
        self.within("name", len(name), 1, 64)
        return name, self.hex(reader, "value", 1, 64)

    def pcr(self, reader: strict.Reader) -> PcrValue:
        """One of ``tpm.pcrs``."""
        bank = reader.text("bank", allowed=tuple(BANKS))
        size = BANKS[bank][1]
        return PcrValue(
            bank, reader.integer("index", maximum=MAX_PCR), self.hex(reader, "value", size, size)
        )

    def ordered(self, pcrs: tuple[PcrValue, ...]) -> tuple[PcrValue, ...]:
        """``pcrs``, once each and sorted."""
        keys = [(value.bank, value.index) for value in pcrs]
        if keys != sorted(set(keys)):
            raise FormatError(
                "evidence-registers", "PCRs are not each there once and in order", where=self._where
            )
        return pcrs

    def within(self, key: str, size: int, least: int, most: int) -> None:
        """Refuse a size outside the bounds."""
        if not least <= size <= most:
            raise FormatError(
                "evidence-size",
                f"{key} cannot have {size} bytes, but {least} to {most}",
                where=self._where,
            )


def _tpm(reader: strict.Reader, fields: _Fields) -> TpmPart:
    counters = None
    if reader.raw("counters") is not None:
        own = reader.reader("counters")
        counters = Counters(
            own.integer("reset_count", maximum=0xFFFFFFFF),
            own.integer("restart_count", maximum=0xFFFFFFFF),
            own.integer("clock_ms"),
        )
        own.close()
    part = TpmPart(
        ak_public=fields.base64(reader, "ak_public", 1, MAX_AK_BYTES),
        attest=fields.base64(reader, "attest", 1, MAX_ATTEST_BYTES),
        signature=fields.base64(reader, "signature", 1, MAX_SIGNATURE_BYTES),
        pcrs=fields.ordered(reader.each("pcrs", fields.pcr)),
        counters=counters,
    )
    reader.close()
    return part


def _tpm_tree(part: TpmPart) -> dict[str, object]:
    counters = part.counters
    return {
        "ak_public": _base64(part.ak_public),
        "attest": _base64(part.attest),
        "signature": _base64(part.signature),
        "pcrs": [
            {"bank": pcr.bank, "index": pcr.index, "value": pcr.value.hex()} for pcr in part.pcrs
        ],
        "counters": None
        if counters is None
        else {
            "reset_count": counters.reset_count,
            "restart_count": counters.restart_count,
            "clock_ms": counters.clock_ms,
        },
    }


def _service(reader: strict.Reader, fields: _Fields) -> ServicePart:
    data = fields.base64(reader, "data", 1, MAX_SERVICE_BYTES)
    report = fields.base64(reader, "report", 0, REPORT_BYTES)
    reader.close()
    if report:
        fields.within("report", len(report), REPORT_BYTES, REPORT_BYTES)
    return ServicePart(data, report)


def _counters_bytes(counters: Counters) -> bytes:
    """As they are bound: resets and restarts as u32, the clock as u64, little-endian."""
    return (
        counters.reset_count.to_bytes(4, "little")
        + counters.restart_count.to_bytes(4, "little")
        + counters.clock_ms.to_bytes(8, "little")
    )


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()

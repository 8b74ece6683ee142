# SPDX-License-Identifier: Apache-2.0
"""Evidence of an SNP guest as the key broker protocol (KBS) carries it, ``kbs-snp``.

Serves ``troth verify evidence --format kbs-snp``, the broker, and the guest that
asks one for a key. The report does not travel as
its bytes but field by field, so the bytes that were signed are made again from
the fields, reserved ones as zeros: a report that used them fails its signature
here, and passes as it is with ``troth verify report``. Must never print a field
into a place that the report's version does not have.

Source: virtee/sev, "AttestationReport" as serde writes it; AMD 56860, table
"ATTESTATION_REPORT structure".
"""

from __future__ import annotations

import json

from troth.abi import cert_table, snp_report, snp_tcb
from troth.documents import foreign, strict
from troth.documents.foreign import ForeignEvidence
from troth.errors import FormatError

# Name -> (offset, size) of numbers, and of arrays of bytes.
_NUMBERS = {
    "version": (0x000, 4),
    "guest_svn": (0x004, 4),
    "policy": (0x008, 8),
    "vmpl": (0x030, 4),
    "sig_algo": (0x034, 4),
    "plat_info": (0x040, 8),
    "key_info": (0x048, 4),
}
_ARRAYS = {
    "family_id": (0x010, 16),
    "image_id": (0x020, 16),
    "report_data": (0x050, 64),
    "measurement": (0x090, 48),
    "host_data": (0x0C0, 32),
    "id_key_digest": (0x0E0, 48),
    "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32),
    "report_id_ma": (0x160, 32),
    "chip_id": (0x1A0, 64),
}
_TCBS = {
    "current_tcb": 0x038,
    "reported_tcb": 0x180,
    "committed_tcb": 0x1E0,
    "launch_tcb": 0x1F0,
}
# Build, minor and major, each in its byte.
_FIRMWARE = {"current": 0x1E8, "committed": 0x1EC}
# These are null where the version has none, and may then be left out.
_OPTIONAL = {
    "cpuid_fam_id": (0x188, 1),
    "cpuid_mod_id": (0x189, 1),
    "cpuid_step": (0x18A, 1),
    "launch_mit_vector": (0x1F8, 8),
    "current_mit_vector": (0x200, 8),
}
_SIGNATURE = {"r": 0x2A0, "s": 0x2E8}
_SIGNATURE_PART_BYTES = 72

_CERTIFICATE_TYPES = ("VCEK", "VLEK", "ASK", "ARK", "CRL", "Empty")


def parse(data: bytes, *, where: str = "") -> ForeignEvidence:
    """The evidence in ``data``, compared with nothing.

    Raises ``FormatError``: ``foreign-evidence`` where a value has another form;
    ``json-*``; ``snp-tcb`` for levels that the processor named cannot have;
    ``snp-report-version``.
    """
    tree = _tree(data, where)
    top = strict.Reader(tree, where=where)
    report = _report(top.reader("attestation_report"), where)
    certificates = _certificates(top, where)
    top.close()
    # A version that is not known may have other fields in these places.
    snp_report.parse(report, where=where)
    return ForeignEvidence(format=foreign.KBS_SNP, report=report, certificates=certificates)


def print_(report: bytes, certificates: tuple[tuple[str, bytes], ...] = ()) -> bytes:
    """The document of ``report`` (1184 bytes) and ``certificates`` (kind, DER).

    A kind is a value of ``cert_table.NAMES``, or a GUID. Without certificates the
    broker looks for them itself. Raises ``FormatError``: ``kbs-evidence-reserved``
    where the report says something that this form has no field for, so that its
    signature would fail; ``snp-report-*``, ``snp-tcb``.
    """
    found = snp_report.parse(report)
    family, model = report[0x188], report[0x189]
    product = snp_tcb.product_of(family, model) or snp_tcb.MILAN
    own: dict[str, object] = {
        name: int.from_bytes(report[at : at + size], "little")
        for name, (at, size) in _NUMBERS.items()
    }
    own |= {name: list(report[at : at + size]) for name, (at, size) in _ARRAYS.items()}
    own |= {name: _levels(report[at : at + 8], product) for name, at in _TCBS.items()}
    for name, at in _FIRMWARE.items():
        own[name] = {"major": report[at + 2], "minor": report[at + 1], "build": report[at]}
    for name, (at, size) in _OPTIONAL.items():
        is_there = found.version >= (3 if name.startswith("cpuid") else 5)
        own[name] = int.from_bytes(report[at : at + size], "little") if is_there else None
    size = _SIGNATURE_PART_BYTES
    own["signature"] = {name: list(report[at : at + size]) for name, at in _SIGNATURE.items()}
    chain = [{"cert_type": _kind(name), "data": list(data)} for name, data in certificates]
    tree = {"attestation_report": own, "cert_chain": chain or None}
    text = json.dumps(tree, separators=(",", ":")).encode()
    if parse(text).report != report:
        raise FormatError(
            "kbs-evidence-reserved",
            "the report uses bytes that the key broker protocol does not carry",
            hint="this firmware is newer than the protocol",
        )
    return text


def _levels(raw: bytes, product: str) -> dict[str, object]:
    tcb = snp_tcb.decode(raw, product)
    return {name: getattr(tcb, name) for name in ("fmc", *_LEVELS)}


def _kind(name: str) -> object:
    known = name.upper()
    if name in cert_table.NAMES.values():
        return known
    return {"OTHER": name}


def _tree(data: bytes, where: str) -> object:
    return strict.parse(data, where=where, limit_bytes=foreign.MAX_DOCUMENT_BYTES)


def _report(own: strict.Reader, where: str) -> bytes:
    raw = bytearray(snp_report.REPORT_BYTES)

    def put(offset: int, value: bytes) -> None:
        raw[offset : offset + len(value)] = value

    for name, (offset, size) in _NUMBERS.items():
        put(offset, _number(own.raw(name), name, size, where))
    for name, (offset, size) in _ARRAYS.items():
        value = own.raw(name)
        put(offset, foreign.octets(value, name, least=size, most=size, where=where))
    for name, (offset, size) in _OPTIONAL.items():
        if own.has(name) and own.raw(name) is not None:
            put(offset, _number(own.raw(name), name, size, where))
    for name, offset in _TCBS.items():
        put(offset, _tcb(own.reader(name), raw[0x188], raw[0x189], where))
    for name, offset in _FIRMWARE.items():
        part = own.reader(name)
        numbers = [_number(part.raw(key), key, 1, where) for key in ("build", "minor", "major")]
        part.close()
        put(offset, b"".join(numbers))
    signature = own.reader("signature")
    for name, offset in _SIGNATURE.items():
        size = _SIGNATURE_PART_BYTES
        value = signature.raw(name)
        put(offset, foreign.octets(value, name, least=size, most=size, where=where))
    signature.close()
    own.close()
    return bytes(raw)


def _tcb(own: strict.Reader, family: int, model: int, where: str) -> bytes:
    levels = [int.from_bytes(_number(own.raw(n), n, 1, where), "little") for n in _LEVELS]
    fmc = own.raw("fmc") if own.has("fmc") else None
    if fmc is not None:
        fmc = int.from_bytes(_number(fmc, "fmc", 1, where), "little")
    own.close()
    # A report of version 2 does not name its processor; the part fmc tells the layout.
    product = snp_tcb.product_of(family, model) if family or model else None
    if product is None:
        product = snp_tcb.MILAN if fmc is None else snp_tcb.TURIN
    try:
        return snp_tcb.encode(snp_tcb.Tcb(fmc, *levels), product)
    except FormatError as error:
        raise FormatError(error.code, error.message, where=where) from None


_LEVELS = ("bootloader", "tee", "snp", "microcode")


def _certificates(top: strict.Reader, where: str) -> tuple[tuple[str, bytes], ...]:
    listed = top.raw("cert_chain") if top.has("cert_chain") else None
    if listed is None:
        return ()
    if not isinstance(listed, list) or len(listed) > foreign.MAX_CERTIFICATES:
        raise foreign.wrong("cert_chain is no short array", where)
    found = []
    for index, item in enumerate(listed):
        own = strict.Reader(item, where=where, path=f"$.cert_chain[{index}]")
        kind = own.raw("cert_type")
        data = foreign.octets(
            own.raw("data"), "data", least=0, most=foreign.MAX_CERTIFICATE_BYTES, where=where
        )
        own.close()
        if isinstance(kind, dict):
            strict.Reader(kind, where=where).text("OTHER")
            continue
        if kind not in _CERTIFICATE_TYPES:
            raise foreign.wrong("cert_type is unknown", where)
        if kind != "Empty":
            found.append((f"{kind.lower()}-{index}", data))
    return tuple(found)


def _number(value: object, name: str, size: int, where: str) -> bytes:
    # Beyond 2**53 too: a policy is a whole u64, and JSON's integers have no bound of their own.
    if type(value) is not int or not 0 <= value < 1 << 8 * size:
        raise foreign.wrong(f"{name} is no number of {size} bytes", where)
    return value.to_bytes(size, "little")

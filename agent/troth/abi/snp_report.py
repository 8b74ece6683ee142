# SPDX-License-Identifier: Apache-2.0
"""The SEV-SNP attestation report: 1184 bytes made and signed by the secure processor.

Serves the verifier and the guest, which compares its own report with what it
asked for. The report comes from the host's hands: nothing in it is true before
the signature over ``signed`` holds. Must never write a parsed report anew to
verify it: the bytes that came are what is signed. Unknown versions are refused,
never guessed.

Source: AMD SEV Secure Nested Paging Firmware ABI Specification (56860) 1.58,
table "ATTESTATION_REPORT structure"; versions 2, 3 and 5 there, 4 as seen in
the field with the layout of 3.
"""

from __future__ import annotations

import struct

from troth.errors import FormatError
from troth.record import record

REPORT_BYTES = 1184
SIGNED_BYTES = 0x2A0
VERSIONS = (2, 3, 4, 5)
ECDSA_P384_SHA384 = 1

VCEK = "vcek"
VLEK = "vlek"
UNSIGNED = "none"
RESERVED_KEY = "reserved"

_SIGNING_KEYS = {0: VCEK, 1: VLEK, 7: UNSIGNED}

# What stands from 0x000 to 0x2A0, without the gaps that are reserved in every version.
_HEAD = struct.Struct("<IIQ16s16sII8sQI")
_MIDDLE = struct.Struct("<64s48s32s48s48s32s32s8sBBB")
_TAIL = struct.Struct("<64s8sBBBxBBBx8sQQ")
_HEAD_AT, _MIDDLE_AT, _TAIL_AT = 0x000, 0x050, 0x1A0

_NUMBER_BYTES = 72
_R_AT = SIGNED_BYTES
_S_AT = _R_AT + _NUMBER_BYTES
SIGNATURE_END = _S_AT + _NUMBER_BYTES
"""Zeros follow."""

_KEY_INFO_KNOWN = 0x1F
_POLICY_ONE = 1 << 17
_POLICY_KNOWN = (1 << 26) - 1
#: Bit 6 has no name in the specification, but genuine Turin firmware sets it.
_PLATFORM_INFO_KNOWN = 0xFF

# Regions that hold zeros, with the versions for which they do.
_RESERVED = (
    (0x04C, 0x050, VERSIONS),
    (0x188, 0x18B, (2,)),
    (0x18B, 0x1A0, VERSIONS),
    (0x1EB, 0x1EC, VERSIONS),
    (0x1EF, 0x1F0, VERSIONS),
    (0x1F8, 0x208, (2, 3, 4)),
    (0x208, SIGNED_BYTES, VERSIONS),
    (SIGNATURE_END, REPORT_BYTES, VERSIONS),
)


@record
class FirmwareVersion:
    """Version of the secure processor's firmware as a report gives it."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


@record
class SnpReport:
    """One report.

    ``raw``: all 1184 bytes as they came. The TCB fields are 8 bytes each, whose
    layout depends on the product (``troth.abi.snp_tcb``). ``cpuid_*``: the
    combined family and model, and the stepping; 0 in version 2, which has none.
    ``*_mit_vector``: bits of applied mitigations; 0 before version 5, which has none.
    """

    raw: bytes
    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algo: int
    current_tcb: bytes
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid_family: int
    cpuid_model: int
    cpuid_stepping: int
    chip_id: bytes
    committed_tcb: bytes
    current_firmware: FirmwareVersion
    committed_firmware: FirmwareVersion
    launch_tcb: bytes
    launch_mit_vector: int
    current_mit_vector: int

    @property
    def signed(self) -> bytes:
        """The bytes under the signature."""
        return self.raw[:SIGNED_BYTES]

    @property
    def has_cpuid(self) -> bool:
        """Whether this version says family, model and stepping."""
        return self.version >= 3

    @property
    def author_key_enabled(self) -> bool:
        """Whether ``author_key_digest`` is that of a key which signed the ID key."""
        return bool(self.key_info & 1)

    @property
    def chip_key_masked(self) -> bool:
        """Whether the host asked for reports without signature."""
        return bool(self.key_info & 2)

    @property
    def signing_key(self) -> str:
        """Which key signed: ``VCEK``, ``VLEK``, ``UNSIGNED`` or ``RESERVED_KEY``."""
        return _SIGNING_KEYS.get(self.key_info >> 2 & 7, RESERVED_KEY)

    @property
    def signature_r(self) -> int:
        """The number R of the ECDSA signature, not yet checked against the curve's order."""
        return int.from_bytes(self.raw[_R_AT:_S_AT], "little")

    @property
    def signature_s(self) -> int:
        """The number S, likewise."""
        return int.from_bytes(self.raw[_S_AT:SIGNATURE_END], "little")

    @property
    def unknown_platform_info(self) -> int:
        """The bits of ``platform_info`` that no known firmware sets."""
        return self.platform_info & ~_PLATFORM_INFO_KNOWN


_HEX = frozenset(b"0123456789abcdefABCDEF\r\n \t")
_HEX_BYTES = 4 * REPORT_BYTES


def _size_hint(data: bytes) -> str:
    if data and len(data) <= _HEX_BYTES and _HEX.issuperset(data):
        return "this is hex text; make it binary: xxd -r -p FILE report.bin"
    return "give the report alone, in binary: no header before it, no certificates behind it"


def parse(data: bytes, *, where: str = "") -> SnpReport:
    """The report in ``data``, exactly 1184 bytes.

    Raises ``FormatError``: ``snp-report-size``, ``snp-report-version``.
    """
    if len(data) != REPORT_BYTES:
        raise FormatError(
            "snp-report-size",
            f"an SNP report has {REPORT_BYTES} bytes, these are {len(data)}",
            where=where,
            hint=_size_hint(data),
        )
    raw = bytes(data)
    (
        version,
        guest_svn,
        policy,
        family_id,
        image_id,
        vmpl,
        signature_algo,
        current_tcb,
        platform_info,
        key_info,
    ) = _HEAD.unpack_from(raw, _HEAD_AT)
    if version not in VERSIONS:
        raise FormatError(
            "snp-report-version",
            f"report version {version} is not known; known are 2 to 5",
            where=where,
            hint="" if raw.strip(b"\0") else "all bytes are zero: the request for it had failed",
        )
    (
        report_data,
        measurement,
        host_data,
        id_key_digest,
        author_key_digest,
        report_id,
        report_id_ma,
        reported_tcb,
        family,
        model,
        stepping,
    ) = _MIDDLE.unpack_from(raw, _MIDDLE_AT)
    (
        chip_id,
        committed_tcb,
        current_build,
        current_minor,
        current_major,
        committed_build,
        committed_minor,
        committed_major,
        launch_tcb,
        launch_mit_vector,
        current_mit_vector,
    ) = _TAIL.unpack_from(raw, _TAIL_AT)
    return SnpReport(
        raw=raw,
        version=version,
        guest_svn=guest_svn,
        policy=policy,
        family_id=family_id,
        image_id=image_id,
        vmpl=vmpl,
        signature_algo=signature_algo,
        current_tcb=current_tcb,
        platform_info=platform_info,
        key_info=key_info,
        report_data=report_data,
        measurement=measurement,
        host_data=host_data,
        id_key_digest=id_key_digest,
        author_key_digest=author_key_digest,
        report_id=report_id,
        report_id_ma=report_id_ma,
        reported_tcb=reported_tcb,
        cpuid_family=family if version >= 3 else 0,
        cpuid_model=model if version >= 3 else 0,
        cpuid_stepping=stepping if version >= 3 else 0,
        chip_id=chip_id,
        committed_tcb=committed_tcb,
        current_firmware=FirmwareVersion(current_major, current_minor, current_build),
        committed_firmware=FirmwareVersion(committed_major, committed_minor, committed_build),
        launch_tcb=launch_tcb,
        launch_mit_vector=launch_mit_vector if version >= 5 else 0,
        current_mit_vector=current_mit_vector if version >= 5 else 0,
    )


def reserved_problems(report: SnpReport) -> tuple[str, ...]:
    """Each reserved region or bit of ``report`` that is not as its version says; none is good.

    The verifier's policy decides what follows. Bits of ``platform_info`` are not
    among them (``unknown_platform_info``): firmware takes new ones into use
    without a new version. Nor are the reserved bytes of the TCB fields, which
    depend on the product.
    """
    problems = [
        f"bytes {start:#05x} to {end - 1:#05x} are not zero"
        for start, end, versions in _RESERVED
        if report.version in versions and report.raw[start:end].strip(b"\0")
    ]
    if report.key_info & ~_KEY_INFO_KNOWN:
        problems.append(f"key_info {report.key_info:#x} has reserved bits")
    if not report.policy & _POLICY_ONE:
        problems.append(f"policy {report.policy:#x} lacks bit 17, which is always one")
    if report.policy & ~_POLICY_KNOWN:
        problems.append(f"policy {report.policy:#x} has reserved bits")
    return tuple(problems)

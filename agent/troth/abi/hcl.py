# SPDX-License-Identifier: Apache-2.0
"""The report that Azure's paravisor (HCL, OpenHCL) keeps in an NV index of its TPM.

Serves the guest that reads the index and the verifier of what it sends on. The
hardware's report inside is signed; of the rest only the claims are bound, by
their digest in REPORT_DATA. Must never be believed in its header and lengths,
which nobody signs: they are used for finding, within bounds, and the claims
count as the exact bytes that were hashed.

Source: microsoft/openvmm, openhcl/openhcl_attestation_protocol, "igvm_attest";
little-endian. Version 2 may put four bytes of capabilities before the claims,
which is why they are found from their end.
"""

from __future__ import annotations

import struct

from troth.abi.hashes import sha256, sha384, sha512
from troth.errors import FormatError
from troth.record import record

NV_REPORT = 0x01400001
"""Where the report is; it is read whole and padded with zeros."""
NV_USER_DATA = 0x01400002
"""What is written here, 64 bytes, comes back in the claims of the next report."""
AK_HANDLE = 0x81000003

USER_DATA_BYTES = 64
MAX_BYTES = 16384
"""Six times the largest index seen."""

HARDWARE_REPORT_BYTES = 1184
VERSIONS = (1, 2)

# Types of the hardware's report.
VBS = 1
SNP = 2
TVM = 3
TDX = 4

_SIGNATURE = b"HCLA"
#: signature, version, report_size, request_type, status, reserved
_HEADER = struct.Struct("<4sIIII12s")
#: data_size, version, report_type, hash_type, var_size
_RUNTIME = struct.Struct("<IIIII")
_RUNTIME_AT = _HEADER.size + HARDWARE_REPORT_BYTES
_CAPABILITIES_BYTES = 4
_HASHES = {1: sha256, 2: sha384, 3: sha512}


@record
class HclReport:
    """One report of the paravisor.

    ``version``, ``request_type``, ``status``: of its header, signed by nobody;
    ``report_type``: ``SNP`` and others; ``hash_type``: 1 to 3, SHA-256, 384, 512;
    ``hardware_report``: 1184 bytes, for ``SNP`` the attestation report;
    ``claims``: the exact bytes of the JSON that REPORT_DATA is bound to.
    """

    version: int
    request_type: int
    status: int
    report_type: int
    hash_type: int
    hardware_report: bytes
    claims: bytes

    @property
    def report_data(self) -> bytes:
        """The 64 bytes that REPORT_DATA must be: the digest of the claims, then zeros."""
        return _HASHES[self.hash_type](self.claims).digest().ljust(64, b"\0")


def is_report(data: bytes) -> bool:
    """Whether ``data`` begins as such a report does."""
    return data[:4] == _SIGNATURE


def parse(data: bytes, *, where: str = "") -> HclReport:
    """The report in ``data``, the content of ``NV_REPORT``.

    Raises ``FormatError``: ``hcl-magic``, ``hcl-size``, ``hcl-version``,
    ``hcl-hash``, ``hcl-bounds``.
    """
    if not is_report(data):
        raise FormatError("hcl-magic", "this is no report of Azure's paravisor", where=where)
    first_free = _RUNTIME_AT + _RUNTIME.size
    if not first_free <= len(data) <= MAX_BYTES:
        raise FormatError(
            "hcl-size", f"a report of {first_free} to {MAX_BYTES} bytes, not {len(data)}",
            where=where,
        )  # fmt: skip
    _, version, _, request_type, status, _ = _HEADER.unpack_from(data)
    if version not in VERSIONS:
        raise FormatError("hcl-version", f"version {version} is not known", where=where)
    data_bytes, _, report_type, hash_type, claims_bytes = _RUNTIME.unpack_from(data, _RUNTIME_AT)
    if hash_type not in _HASHES:
        raise FormatError("hcl-hash", f"hash {hash_type} is not known", where=where)
    before = data_bytes - claims_bytes - _RUNTIME.size
    allowed = (0,) if version == 1 else (0, _CAPABILITIES_BYTES)
    end = _RUNTIME_AT + data_bytes
    if before not in allowed or end > len(data):
        raise FormatError(
            "hcl-bounds",
            f"{claims_bytes} bytes of claims in {data_bytes} bytes of {len(data) - _RUNTIME_AT}",
            where=where,
        )
    return HclReport(
        version=version,
        request_type=request_type,
        status=status,
        report_type=report_type,
        hash_type=hash_type,
        hardware_report=bytes(data[_HEADER.size : _RUNTIME_AT]),
        claims=bytes(data[end - claims_bytes : end]),
    )

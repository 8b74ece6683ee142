# SPDX-License-Identifier: Apache-2.0
"""The few TPM 2.0 commands that PID 1 speaks, as bytes (big endian).

TPM 2.0 Library part 2 (structures) and part 3 (commands): GetCapability
(30.2), PCR_Read (22.4), PCR_Extend (22.2), NV_ReadPublic (31.6), ReadClock
(29.1). Everything else goes through a library in another process.
"""

from __future__ import annotations

from struct import Struct, error, pack, unpack, unpack_from

from troth.errors import FormatError

_HEADER = Struct(">HII")
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_CC_NV_READ_PUBLIC, _CC_GET_CAPABILITY, _CC_PCR_READ, _CC_PCR_EXTEND = 0x169, 0x17A, 0x17E, 0x182
_CC_READ_CLOCK = 0x181
_CAP_PCRS = 5
#: The empty password: session TPM_RS_PW, no nonce, no attributes, no HMAC.
_PASSWORD = pack(">IHBH", 0x40000009, 0, 0, 0)

ALGORITHMS = {"sha1": 0x0004, "sha256": 0x000B, "sha384": 0x000C, "sha512": 0x000D}
_NAMES = {number: name for name, number in ALGORITHMS.items()}
SIZES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}


def _command(tag: int, code: int, body: bytes) -> bytes:
    return _HEADER.pack(tag, _HEADER.size + len(body), code) + body


def get_banks() -> bytes:
    """GetCapability(TPM_CAP_PCRS)."""
    return _command(_NO_SESSIONS, _CC_GET_CAPABILITY, pack(">III", _CAP_PCRS, 0, 1))


def pcr_read(banks: tuple[str, ...], pcrs: tuple[int, ...]) -> bytes:
    """PCR_Read of ``pcrs`` (0 to 23) in each of ``banks``, at most eight values in all."""
    bitmap = sum(1 << pcr for pcr in pcrs).to_bytes(3, "little")
    selections = b"".join(pack(">HB", ALGORITHMS[bank], 3) + bitmap for bank in banks)
    return _command(_NO_SESSIONS, _CC_PCR_READ, pack(">I", len(banks)) + selections)


def pcr_extend(pcr: int, digests: tuple[tuple[str, bytes], ...]) -> bytes:
    """PCR_Extend of ``pcr`` in every bank of ``digests``."""
    values = b"".join(pack(">H", ALGORITHMS[bank]) + value for bank, value in digests)
    body = pack(">II", pcr, len(_PASSWORD)) + _PASSWORD + pack(">I", len(digests)) + values
    return _command(_SESSIONS, _CC_PCR_EXTEND, body)


def nv_read_public(index: int) -> bytes:
    """NV_ReadPublic of NV ``index``."""
    return _command(_NO_SESSIONS, _CC_NV_READ_PUBLIC, pack(">I", index))


def read_clock() -> bytes:
    """ReadClock."""
    return _command(_NO_SESSIONS, _CC_READ_CLOCK, b"")


def clock(body: bytes) -> tuple[int, int, int]:
    """(resets, restarts, milliseconds) of ReadClock's answer. ``FormatError`` ``tpm-response``."""
    try:
        _time, milliseconds, resets, restarts, _safe = unpack(">QQIIB", body)
    except error:
        raise FormatError("tpm-response", "an answer of another size about the clock") from None
    return resets, restarts, milliseconds


def response(data: bytes) -> tuple[int, bytes]:
    """(response code, body) of a TPM's answer; ``FormatError`` ``tpm-response``."""
    if len(data) < _HEADER.size:
        raise FormatError("tpm-response", f"an answer of {len(data)} bytes has no header")
    _tag, size, code = _HEADER.unpack_from(data)
    if size != len(data):
        raise FormatError("tpm-response", f"an answer of {len(data)} bytes says {size}")
    return code, data[_HEADER.size :]


def banks(body: bytes) -> tuple[str, ...]:
    """Names of the banks with at least one PCR, from GetCapability's answer.

    ``FormatError``: ``tpm-response``; ``tpm-bank`` for an active bank whose
    algorithm troth cannot compute, since events could not cover it.
    """
    found: list[str] = []
    try:
        _more, capability, count = unpack_from(">BII", body)
        if capability != _CAP_PCRS or count > 16:
            raise FormatError("tpm-response", "not an answer about PCR banks")
        offset = 9
        for _ in range(count):
            algorithm, size = unpack_from(">HB", body, offset)
            bitmap = body[offset + 3 : offset + 3 + size]
            if len(bitmap) != size:
                raise FormatError("tpm-response", "a PCR selection is cut off")
            offset += 3 + size
            if not any(bitmap):
                continue
            if algorithm not in _NAMES:
                raise FormatError("tpm-bank", f"PCR bank 0x{algorithm:04x} is active but unknown")
            found.append(_NAMES[algorithm])
    except error:
        raise FormatError("tpm-response", "the list of PCR banks is cut off") from None
    return tuple(found)


def pcr_values(
    body: bytes, banks: tuple[str, ...], pcrs: tuple[int, ...]
) -> dict[tuple[str, int], bytes]:
    """(bank, PCR) -> value from PCR_Read's answer to ``pcr_read(banks, pcrs)``.

    The TPM answers bank by bank in ascending PCR order. ``FormatError``
    ``tpm-response`` where it read anything but what was asked.
    """
    bitmap = sum(1 << pcr for pcr in pcrs).to_bytes(3, "little")
    asked = b"".join(pack(">HB", ALGORITHMS[bank], 3) + bitmap for bank in banks)
    # updateCounter, then the selection that was read.
    head = pack(">I", len(banks)) + asked + pack(">I", len(banks) * len(pcrs))
    offset = 4 + len(head)
    if body[4:offset] != head:
        raise FormatError("tpm-response", "other PCRs were read than asked for")
    values = {}
    for bank in banks:
        for pcr in sorted(pcrs):
            value = body[offset + 2 : offset + 2 + SIZES[bank]]
            if body[offset : offset + 2] != pack(">H", SIZES[bank]) or len(value) != SIZES[bank]:
                raise FormatError("tpm-response", f"a {bank} value has another size")
            values[bank, pcr] = value
            offset += 2 + SIZES[bank]
    return values

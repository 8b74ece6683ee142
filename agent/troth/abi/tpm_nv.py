# SPDX-License-Identifier: Apache-2.0
"""TPM 2.0 commands for non-volatile indices, as bytes (big endian).

Serves ``registers.tpm_nv``, and through it whoever reads what a platform keeps
in its TPM. Apart from ``tpm_wire``, so that a PID 1 that never reads an index
does not carry it. All authorizations are the empty password. Must never take a
length from an answer without comparing it with the bytes that came.

Source: TPM 2.0 Library, part 2 (13.2 "TPMS_NV_PUBLIC", 13.4 "TPMA_NV"; 6.13
"TPM_PT"), part 3 (31.3 NV_DefineSpace, 31.6 NV_ReadPublic, 31.7 NV_Write, 31.13
NV_Read, 30.2 GetCapability).
"""

from __future__ import annotations

from struct import Struct, error, pack, unpack_from

from troth.errors import FormatError
from troth.record import record

_HEADER = Struct(">HII")
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_CC_DEFINE_SPACE, _CC_WRITE, _CC_READ, _CC_READ_PUBLIC = 0x12A, 0x137, 0x14E, 0x169
_CC_GET_CAPABILITY = 0x17A
_CAP_PROPERTIES, _PT_NV_BUFFER_MAX = 6, 0x12C
#: The empty password: session TPM_RS_PW, no nonce, no attributes, no HMAC.
_PASSWORD = pack(">IHBH", 0x40000009, 0, 0, 0)
_SHA256 = 0x000B

OWNER = 0x40000001
"""TPM_RH_OWNER, the hierarchy of whoever owns the TPM."""

# Bits of TPMA_NV.
OWNER_WRITE = 1 << 1
AUTH_WRITE = 1 << 2
WRITE_LOCKED = 1 << 11
OWNER_READ = 1 << 17
AUTH_READ = 1 << 18
READ_LOCKED = 1 << 28
WRITTEN = 1 << 29

MAX_INDEX_BYTES = 0xFFFF
MAX_BUFFER_BYTES = 2048
"""The most that one command reads or writes here, whatever a TPM offers."""
_MIN_BUFFER_BYTES = 64

# Response codes (part 2, 6.6).
NO_SUCH_INDEX = 0x18B
"""TPM_RC_HANDLE for the first handle: what is asked for does not exist."""
TRY_AGAIN = (0x908, 0x90A, 0x920, 0x922)
"""TPM_RC_YIELDED, TESTING, NV_RATE and RETRY: the same command may work later."""


@record
class NvPublic:
    """What an index says of itself: number, TPMA_NV, and its size."""

    index: int
    attributes: int
    size_bytes: int

    @property
    def kind(self) -> int:
        """TPM_NT: 0 for an index that holds bytes, others count, extend or lock."""
        return self.attributes >> 4 & 0xF


def read_public(index: int) -> bytes:
    """NV_ReadPublic of ``index``."""
    return _plain(_CC_READ_PUBLIC, pack(">I", index))


def buffer_max() -> bytes:
    """GetCapability of the most bytes that one NV command carries."""
    return _plain(_CC_GET_CAPABILITY, pack(">III", _CAP_PROPERTIES, _PT_NV_BUFFER_MAX, 1))


def read(index: int, authority: int, *, size_bytes: int, offset: int) -> bytes:
    """NV_Read of ``index``, authorized by ``authority``: ``OWNER``, or the index itself."""
    _fits(size_bytes, offset)
    handles = pack(">II", authority, index)
    return _authorized(_CC_READ, handles, pack(">HH", size_bytes, offset))


def write(index: int, authority: int, data: bytes, *, offset: int = 0) -> bytes:
    """NV_Write of ``data``, authorized as ``read`` is."""
    _fits(len(data), offset)
    handles = pack(">II", authority, index)
    return _authorized(_CC_WRITE, handles, _sized(data) + pack(">H", offset))


def define_space(index: int, attributes: int, *, size_bytes: int) -> bytes:
    """NV_DefineSpace by the owner: an index with an empty password and no policy."""
    public = pack(">IHIHH", index, _SHA256, attributes, 0, size_bytes)
    return _authorized(_CC_DEFINE_SPACE, pack(">I", OWNER), _sized(b"") + _sized(public))


def public_of(body: bytes, index: int) -> NvPublic:
    """The answer to ``read_public(index)``; ``FormatError`` ``tpm-response``."""
    try:
        size, found, _algorithm, attributes, policy_bytes = unpack_from(">HIHIH", body)
        if size != 14 + policy_bytes:
            raise FormatError("tpm-response", "the public part of an index has another size")
        (data_bytes,) = unpack_from(">H", body, 14 + policy_bytes)
        (name_bytes,) = unpack_from(">H", body, 2 + size)
    except error:
        raise FormatError("tpm-response", "the public part of an index is cut off") from None
    if found != index or 4 + size + name_bytes != len(body):
        raise FormatError("tpm-response", f"not an answer about index 0x{index:08x}")
    return NvPublic(found, attributes, data_bytes)


def buffer_max_of(body: bytes) -> int:
    """The answer to ``buffer_max``, at most ``MAX_BUFFER_BYTES``; ``FormatError``."""
    try:
        _more, capability, count, name, found = unpack_from(">BIIII", body)
    except error:
        raise FormatError("tpm-response", "not an answer about a property") from None
    wanted = (_CAP_PROPERTIES, 1, _PT_NV_BUFFER_MAX)
    if (capability, count, name) != wanted or len(body) != 17 or found < _MIN_BUFFER_BYTES:
        raise FormatError("tpm-response", "not an answer about the size of an NV command")
    return min(int(found), MAX_BUFFER_BYTES)


def data_of(body: bytes, *, size_bytes: int) -> bytes:
    """What ``read`` of ``size_bytes`` read, exactly; ``FormatError`` ``tpm-response``."""
    try:
        parameter_bytes, data_bytes = unpack_from(">IH", body)
    except error:
        raise FormatError("tpm-response", "what an index holds is cut off") from None
    data = body[6 : 6 + data_bytes]
    if parameter_bytes != 2 + data_bytes or len(data) != size_bytes or data_bytes != size_bytes:
        raise FormatError(
            "tpm-response", f"{data_bytes} bytes of an index came instead of {size_bytes}"
        )
    return bytes(data)


def _plain(code: int, body: bytes) -> bytes:
    return _HEADER.pack(_NO_SESSIONS, _HEADER.size + len(body), code) + body


def _authorized(code: int, handles: bytes, parameters: bytes) -> bytes:
    body = handles + pack(">I", len(_PASSWORD)) + _PASSWORD + parameters
    return _HEADER.pack(_SESSIONS, _HEADER.size + len(body), code) + body


def _sized(data: bytes) -> bytes:
    return pack(">H", len(data)) + data


def _fits(size_bytes: int, offset: int) -> None:
    if size_bytes > MAX_BUFFER_BYTES or not 0 <= offset <= MAX_INDEX_BYTES - size_bytes:
        raise FormatError("tpm-nv", f"{size_bytes} bytes at {offset} fit no NV command")

# SPDX-License-Identifier: Apache-2.0
"""What REPORT_DATA holds: a nonce and what goes with it, bound by one SHA-512.

Serves the agent, which fills REPORT_DATA, and the verifier, which computes the
same 64 bytes from what it knows. What a TPM's quote is asked to sign along is
bound likewise, by one SHA-256. Fields are type, length, value, all of them
always there, so that no two different sets of values give the same bytes; the
tag keeps bindings of different meaning apart. Must never leave a field out
because it is empty (source: docs/formats.md, "Bindings").
"""

from __future__ import annotations

from troth.abi.hashes import sha256, sha512
from troth.errors import FormatError, UsageError
from troth.record import record

REPORT_TAG = b"troth-report-v1"
EVIDENCE_TAG = b"troth-evidence-v1"
QUOTE_TAG = b"troth-quote-v1"
EVIDENCE_FORMAT_VERSION = 1

BINDING_BYTES = 64
MIN_NONCE_BYTES = 16
MAX_NONCE_BYTES = 64
MAX_USER_DATA_BYTES = 4096
MAX_CALLER_BYTES = 4096
MAX_REGISTERS = 64

PLATFORM_KINDS = ("direct", "svsm", "azure-paravisor", "simulated")

# The type of each field. A number is never used for two meanings, in no binding.
_FORMAT_VERSION = 1
_TAG = 2
_NONCE = 3
_PLATFORM_KIND = 4
_CHANNEL = 5
_AK_NAME = 6
_QUOTE = 7
_REGISTERS = 8
_LOG_DIGEST = 9
_LOG_RECORDS = 10
_CALLER = 11
_USER_DATA = 12


@record
class EvidenceBinding:
    """The values that evidence binds.

    ``nonce``: 16 to 64 bytes from the verifier; ``platform_kind``: one of
    ``PLATFORM_KINDS``; ``channel_sha256``: SHA-256 of the channel key's SPKI, 32
    bytes or empty; ``ak_name``: the TPM Name of the attestation key, 34 to 66
    bytes or empty; ``quote_sha256``: SHA-256 of quote message and signature, 32
    bytes or empty; ``registers``: distinct names of printable ASCII with values
    of 1 to 64 bytes, in any order; ``log_sha384``: of the log's bytes as sent, 48
    bytes; ``log_records``: how many records it has; ``caller``: who asked, as the
    agent writes it, at most 4096 bytes; ``user_data``: at most 4096 bytes.
    """

    nonce: bytes
    platform_kind: str
    channel_sha256: bytes
    ak_name: bytes
    quote_sha256: bytes
    registers: tuple[tuple[str, bytes], ...]
    log_sha384: bytes
    log_records: int
    caller: bytes
    user_data: bytes


def check_nonce(nonce: bytes) -> None:
    """Refuse a nonce outside 16 to 64 bytes: ``UsageError`` ``nonce-length``."""
    if not MIN_NONCE_BYTES <= len(nonce) <= MAX_NONCE_BYTES:
        raise UsageError(
            "nonce-length",
            f"a nonce has {MIN_NONCE_BYTES} to {MAX_NONCE_BYTES} bytes, this one {len(nonce)}",
            hint="take 32 random bytes, and never the same twice",
        )


def report_binding(nonce: bytes, user_data: bytes = b"") -> bytes:
    """The 64 bytes of ``troth-report-v1``, which anyone who has the nonce can compute.

    Raises ``UsageError`` ``nonce-length``; ``FormatError`` ``binding-field`` for
    user data over 4096 bytes.
    """
    check_nonce(nonce)
    _at_most("user data", user_data, MAX_USER_DATA_BYTES)
    return _sha512((_TAG, REPORT_TAG), (_NONCE, nonce), (_USER_DATA, user_data))


def evidence_binding(values: EvidenceBinding) -> bytes:
    """The 64 bytes of ``troth-evidence-v1`` over ``values``.

    Raises ``UsageError`` ``nonce-length``; ``FormatError`` ``binding-field`` for a
    value that its field does not allow.
    """
    check_nonce(values.nonce)
    if values.platform_kind not in PLATFORM_KINDS:
        raise _wrong("platform kind", f"{values.platform_kind!r} is none")
    _sized("channel key digest", values.channel_sha256, (0, 32))
    _sized("AK Name", values.ak_name, (0, *range(34, 67)))
    _sized("quote digest", values.quote_sha256, (0, 32))
    _sized("log digest", values.log_sha384, (48,))
    if not 0 <= values.log_records < 1 << 64:
        raise _wrong("number of log records", f"{values.log_records} has not 64 bits")
    _at_most("caller", values.caller, MAX_CALLER_BYTES)
    _at_most("user data", values.user_data, MAX_USER_DATA_BYTES)
    return _sha512(
        (_FORMAT_VERSION, EVIDENCE_FORMAT_VERSION.to_bytes(4, "little")),
        (_TAG, EVIDENCE_TAG),
        (_NONCE, values.nonce),
        (_PLATFORM_KIND, values.platform_kind.encode()),
        (_CHANNEL, values.channel_sha256),
        (_AK_NAME, values.ak_name),
        (_QUOTE, values.quote_sha256),
        (_REGISTERS, _registers(values.registers)),
        (_LOG_DIGEST, values.log_sha384),
        (_LOG_RECORDS, values.log_records.to_bytes(8, "little")),
        (_CALLER, values.caller),
        (_USER_DATA, values.user_data),
    )


def quote_binding(nonce: bytes, ak_name: bytes) -> bytes:
    """The 32 bytes of ``troth-quote-v1``, a quote's qualifyingData.

    ``ak_name``: the TPM Name of the key that signs, 34 to 66 bytes: a key with
    another Name gives no quote that could be taken for this one's. The report
    binds the quote, not the other way round, since it comes later. Raises
    ``UsageError`` ``nonce-length``; ``FormatError`` ``binding-field``.
    """
    check_nonce(nonce)
    _sized("AK Name", ak_name, tuple(range(34, 67)))
    return sha256(_fields((_TAG, QUOTE_TAG), (_NONCE, nonce), (_AK_NAME, ak_name))).digest()


def _sha512(*fields: tuple[int, bytes]) -> bytes:
    return sha512(_fields(*fields)).digest()


def _fields(*fields: tuple[int, bytes]) -> bytes:
    return b"".join(bytes([kind]) + _length(value) + value for kind, value in fields)


def _registers(registers: tuple[tuple[str, bytes], ...]) -> bytes:
    if len(registers) > MAX_REGISTERS:
        raise _wrong("registers", f"{len(registers)}, at most {MAX_REGISTERS}")
    names = [name for name, _value in registers]
    if len(set(names)) != len(names):
        raise _wrong("registers", "a name is there twice")
    body = b""
    for name, value in sorted(registers):
        if not 1 <= len(name) <= 64 or not name.isascii() or not name.isprintable():
            raise _wrong("registers", f"{name[:64]!r} is no name")
        _sized(f"register {name}", value, tuple(range(1, 65)))
        body += _length(name.encode()) + name.encode() + _length(value) + value
    return body


def _length(value: bytes) -> bytes:
    return len(value).to_bytes(4, "little")


def _sized(what: str, value: bytes, allowed_bytes: tuple[int, ...]) -> None:
    if len(value) not in allowed_bytes:
        raise _wrong(what, f"it cannot have {len(value)} bytes")


def _at_most(what: str, value: bytes, limit_bytes: int) -> None:
    if len(value) > limit_bytes:
        raise _wrong(what, f"{len(value)} bytes, at most {limit_bytes}")


def _wrong(what: str, message: str) -> FormatError:
    return FormatError("binding-field", f"{what}: {message}")

# SPDX-License-Identifier: Apache-2.0
"""Evidence in other projects' JSON, brought into one form.

Serves ``verify.kinds.foreign``; ``azure_evidence`` and ``kbs_evidence`` read the
documents. What is here has no troth event log and no troth binding: it is a
report, what goes with it, and at most a quote. Must never be taken for more.
"""

from __future__ import annotations

import binascii

from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Octets(Protocol):
        """A way to write bytes in JSON."""

        def __call__(
            self, value: object, path: str, *, least: int, most: int, where: str
        ) -> bytes: ...


KBS_SNP = "kbs-snp"
AZURE = "az-snp-vtpm"
HCL = "hcl"
"""A paravisor's report by itself: bytes, not JSON."""
FORMATS = (KBS_SNP, AZURE, HCL)

MAX_DOCUMENT_BYTES = 8 << 20
MAX_CERTIFICATE_BYTES = 1 << 16
MAX_CERTIFICATES = 16


@record
class RawQuote:
    """A quote over all 24 PCRs of the bank sha256.

    ``message``: TPMS_ATTEST; ``signature``: RSASSA-PKCS1-v1_5 with SHA-256, the
    bare number in big-endian; ``pcrs``: 24 values of 32 bytes.
    """

    message: bytes
    signature: bytes
    pcrs: tuple[bytes, ...]


@record
class ForeignEvidence:
    """``format``: one of ``FORMATS``; ``report``: 1184 bytes, the hardware's report;
    ``certificates``: (name, DER or PEM) as they came; ``service``: the paravisor's
    report, empty in the format without; ``quote``: None there.
    """  # noqa: D205 - the fields are the summary

    format: str
    report: bytes
    certificates: tuple[tuple[str, bytes], ...]
    service: bytes = b""
    quote: RawQuote | None = None


def octets(value: object, path: str, *, least: int, most: int, where: str) -> bytes:
    """The bytes of an array of numbers 0 to 255. ``FormatError`` ``foreign-evidence``."""
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise wrong(f"{path} is no array of {_between(least, most)} bytes", where)
    if any(type(item) is not int or not 0 <= item <= 255 for item in value):
        raise wrong(f"{path} holds what is no byte", where)
    return bytes(value)


def hex_octets(value: object, path: str, *, least: int, most: int, where: str) -> bytes:
    """The bytes of a hex text in either case. ``FormatError`` ``foreign-evidence``."""
    if not isinstance(value, str) or not 2 * least <= len(value) <= 2 * most:
        raise wrong(f"{path} is no hex text of {_between(least, most)} bytes", where)
    if len(value) % 2 or not set(value) <= set("0123456789abcdefABCDEF"):
        raise wrong(f"{path} is not hex", where)
    return bytes.fromhex(value)


def base64url(value: object, path: str, *, least: int, most: int, where: str) -> bytes:
    """The bytes of a base64url text, padded or not. ``FormatError`` ``foreign-evidence``."""
    if not isinstance(value, str) or len(value) > 4 * (most + 2) // 3 + 2:
        raise wrong(f"{path} is no base64url text of at most {most} bytes", where)
    bare = value.rstrip("=")
    standard = bare.replace("-", "+").replace("_", "/") + "=" * (-len(bare) % 4)
    try:
        found = binascii.a2b_base64(standard, strict_mode=True) if bare else b""
    except ValueError:
        found = None
    # One text for each value: no other letters, padded wholly or not at all.
    if found is None or set(bare) & set("+/") or value not in (bare, standard_of(found)):
        raise wrong(f"{path} is not base64url", where)
    if not least <= len(found) <= most:
        raise wrong(f"{path} has {len(found)} bytes, not {_between(least, most)}", where)
    return found


def standard_of(data: bytes) -> str:
    """``data`` in base64url with its padding."""
    text = binascii.b2a_base64(data, newline=False).decode()
    return text.replace("+", "-").replace("/", "_")


def wrong(message: str, where: str) -> FormatError:
    """``foreign-evidence``."""
    return FormatError("foreign-evidence", message, where=where)


def _between(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"

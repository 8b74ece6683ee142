# SPDX-License-Identifier: Apache-2.0
"""What AMD writes into the certificate of a report-signing key (VCEK or VLEK).

Serves the verifier, which compares it with the report. Says nothing about
whether the certificate is genuine. Must never tell the two forms of the chip's
id apart by its first byte: ids begin with any byte.

Source: AMD 57230, "Versioned Chip Endorsement Key (VCEK) Certificate and KDS
Interface Specification", table of X.509v3 extensions; the same for the VLEK.
"""

from __future__ import annotations

from troth.abi import der
from troth.abi.snp_tcb import Tcb
from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "1.3.6.1.4.1.3704.1."
STRUCT_VERSION = PREFIX + "1"
PRODUCT_NAME = PREFIX + "2"
HWID = PREFIX + "4"
CSP_ID = PREFIX + "5"
SPL = {
    "bootloader": PREFIX + "3.1",
    "tee": PREFIX + "3.2",
    "snp": PREFIX + "3.3",
    "microcode": PREFIX + "3.8",
    "fmc": PREFIX + "3.9",
}
RESERVED_SPL = tuple(f"{PREFIX}3.{number}" for number in (4, 5, 6, 7))

MAX_TEXT_BYTES = 128
"""Of a product's or a provider's name: results repeat them."""

HWID_BYTES = (8, 64)
"""Turin and later, and before."""


@record
class VekExtensions:
    """What the extensions say.

    ``tcb.fmc`` is None where the certificate has none; ``reserved``: the levels
    of the parts that have no name; ``hwid``: 8 or 64 bytes, None in a VLEK's;
    ``csp_id``: of the cloud provider, None in a VCEK's.
    """

    struct_version: int
    product_name: str
    tcb: Tcb
    reserved: tuple[int, ...]
    hwid: bytes | None
    csp_id: str | None


def parse(extensions: Mapping[str, bytes], *, where: str = "") -> VekExtensions:
    """What ``extensions`` (dotted OID to raw value) say; foreign ones are passed over.

    Raises ``FormatError``: ``vek-extension``, ``der-value``.
    """
    levels = {
        name: _level(_must(extensions, oid, where), oid, where)
        for name, oid in SPL.items()
        if name != "fmc" or oid in extensions
    }
    hwid = extensions.get(HWID)
    csp_id = extensions.get(CSP_ID)
    return VekExtensions(
        struct_version=der.integer(_must(extensions, STRUCT_VERSION, where), where=where),
        product_name=_text(_must(extensions, PRODUCT_NAME, where), where),
        tcb=Tcb(
            fmc=levels.get("fmc"),
            bootloader=levels["bootloader"],
            tee=levels["tee"],
            snp=levels["snp"],
            microcode=levels["microcode"],
        ),
        reserved=tuple(
            _level(extensions[oid], oid, where) for oid in RESERVED_SPL if oid in extensions
        ),
        hwid=None if hwid is None else _hwid(hwid, where),
        csp_id=None if csp_id is None else _text(csp_id, where),
    )


def _must(extensions: Mapping[str, bytes], oid: str, where: str) -> bytes:
    value = extensions.get(oid)
    if value is None:
        raise FormatError("vek-extension", f"the extension {oid} is missing", where=where)
    return value


def _level(value: bytes, oid: str, where: str) -> int:
    level = der.integer(value, where=where)
    if not 0 <= level <= 0xFF:
        raise FormatError("vek-extension", f"{oid} is {level}, not a byte", where=where)
    return level


def _text(value: bytes, where: str) -> str:
    if len(value) > MAX_TEXT_BYTES:
        raise FormatError("vek-extension", f"a name of {len(value)} bytes", where=where)
    return der.ia5_string(value, where=where)


def _hwid(value: bytes, where: str) -> bytes:
    # AMD writes the id bare. Some tools have met it wrapped as an OCTET STRING.
    if len(value) - 2 in HWID_BYTES:
        value = der.content(value, der.OCTET_STRING, where=where)
    if len(value) not in HWID_BYTES:
        raise FormatError("vek-extension", f"a chip id of {len(value)} bytes", where=where)
    return value

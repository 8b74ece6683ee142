# SPDX-License-Identifier: Apache-2.0
"""The claims of Azure's paravisor: the TPM's keys, the machine, and the user's 64 bytes.

Serves the verifier, and the guest that waits until its own bytes are in there.
True only once their digest was found in a verified report. Members that are not
known are passed over: the paravisor adds some with time.

Source: microsoft/openvmm, openhcl/openhcl_attestation_protocol, "runtime_claims".
"""

from __future__ import annotations

import binascii

from troth.abi import hcl
from troth.documents import strict
from troth.errors import FormatError
from troth.record import record

AK = "HCLAkPub"
EK = "HCLEkPub"

LIMIT_BYTES = 16384
MAX_KEYS = 16
USER_DATA_BYTES = 64
_MODULUS_BYTES = (128, 1024)
# Of the hardware's report: AMD 56860, table "ATTESTATION_REPORT structure".
_REPORT_DATA = slice(0x50, 0x90)


@record
class RsaKey:
    """A public key: ``modulus`` and ``exponent``."""

    modulus: int
    exponent: int


@record
class HclClaims:
    """``keys``: (name, key) in order; ``user_data``: 64 bytes, zeros where none were written;
    ``vm_configuration``: what the paravisor says of the machine, by name.
    """  # noqa: D205 - the fields are the summary

    keys: tuple[tuple[str, RsaKey], ...]
    user_data: bytes
    vm_configuration: dict[str, object]

    def key(self, name: str) -> RsaKey | None:
        """The key ``name``, none where there is none."""
        return dict(self.keys).get(name)


def parse(data: bytes, *, where: str = "") -> HclClaims:
    """The claims in ``data``, the exact JSON that was hashed.

    Raises ``FormatError``: ``json-*``, ``hcl-claims``.
    """
    top = strict.Reader(strict.parse(data, where=where, limit_bytes=LIMIT_BYTES), where=where)
    listed = top.raw("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise _wrong("keys is no short list", where)
    keys = tuple(_key(item, where) for item in listed)
    if len({name for name, _ in keys}) != len(keys):
        raise _wrong("a key is there twice", where)
    machine = top.raw("vm-configuration") if top.has("vm-configuration") else {}
    if not isinstance(machine, dict):
        raise _wrong("vm-configuration is no object", where)
    return HclClaims(keys, _user_data(top, where), machine)


def bound_user_data(service: bytes, report: bytes, *, where: str = "") -> bytes:
    """The user data that the paravisor's report ``service`` carries around ``report``.

    Empty where ``service`` holds another report, or REPORT_DATA is not the digest of
    the claims. No signature is looked at. Raises ``FormatError``: ``hcl-*``, ``json-*``.
    """
    found = hcl.parse(service, where=where)
    bound = report[_REPORT_DATA] == found.report_data
    if not bound or found.hardware_report != report or found.report_type != hcl.SNP:
        return b""
    return parse(found.claims, where=where).user_data


def _key(item: object, where: str) -> tuple[str, RsaKey]:
    reader = strict.Reader(item, where=where, path="$.keys[]")
    reader.text("kty", allowed=("RSA",))
    modulus = _number(reader.text("n"), where)
    exponent = _number(reader.text("e"), where)
    low, high = (8 * size for size in _MODULUS_BYTES)
    if not low <= modulus.bit_length() <= high or not 3 <= exponent < 1 << 32:
        raise _wrong("a key has an odd size", where)
    return reader.text("kid"), RsaKey(modulus, exponent)


def _number(text: str, where: str) -> int:
    """A base64url number, without padding (RFC 7518, section 2)."""
    plain = text.replace("-", "+").replace("_", "/")
    try:
        raw = binascii.a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)
    except ValueError:
        raw = b""
    if not raw or set(text) & set("+/="):
        raise _wrong("a number of a key is not base64url", where)
    return int.from_bytes(raw, "big")


def _user_data(top: strict.Reader, where: str) -> bytes:
    # Upper case in older paravisors, lower in newer ones.
    text = top.text("user-data").lower() if top.has("user-data") else ""
    if text and (len(text) != 2 * USER_DATA_BYTES or not set(text) <= set("0123456789abcdef")):
        raise _wrong(f"user-data is not {USER_DATA_BYTES} bytes of hex", where)
    return bytes.fromhex(text) or bytes(USER_DATA_BYTES)


def _wrong(message: str, where: str) -> FormatError:
    return FormatError("hcl-claims", f"claims of the paravisor: {message}", where=where)

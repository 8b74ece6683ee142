# SPDX-License-Identifier: Apache-2.0
"""What a TPM says when it quotes: the attestation, its key's public area, its signature.

Serves the guest, which checks what its TPM gave before it sends it, and the
verifier, which believes none of it before signature and binding hold. Big
endian, no padding, nothing optional: every parser takes the whole of its bytes
and gives back a value that prints as the same bytes. Must never accept a size
that the structure does not allow, nor an algorithm that troth cannot compute.

Source: TCG, Trusted Platform Module 2.0 Library, part 2 "Structures": 8.3
(TPMA_OBJECT), 10.6 (TPMS_PCR_SELECTION), 10.11 (TPMS_CLOCK_INFO), 10.12
(TPMS_ATTEST), 11.3 (TPMT_SIGNATURE), 12.2 (TPMT_PUBLIC); part 1, 16 "Names".
"""

from __future__ import annotations

from struct import pack

from troth.abi import tpm_wire
from troth.abi.hashes import digest
from troth.abi.tpm_bytes import MAX_BYTES, TpmBytes, sized
from troth.errors import FormatError
from troth.record import record

MAGIC = 0xFF544347
"""TPM_GENERATED: no key of a TPM that is restricted signs outside bytes that begin so."""
ATTEST_QUOTE = 0x8018

ATTRIBUTES = {
    "fixedTPM": 1 << 1,
    "stClear": 1 << 2,
    "fixedParent": 1 << 4,
    "sensitiveDataOrigin": 1 << 5,
    "userWithAuth": 1 << 6,
    "adminWithPolicy": 1 << 7,
    "firmwareLimited": 1 << 8,
    "svnLimited": 1 << 9,
    "noDA": 1 << 10,
    "encryptedDuplication": 1 << 11,
    "restricted": 1 << 16,
    "decrypt": 1 << 17,
    "sign": 1 << 18,
    "x509sign": 1 << 19,
}
"""Name of an object's attribute -> its bit."""

RSASSA, RSAPSS, ECDSA, NO_SCHEME = "rsassa", "rsapss", "ecdsa", "null"
CURVES = {"p256": (3, 32), "p384": (4, 48), "p521": (5, 66)}
"""Name of a curve -> its number, and the bytes of a coordinate."""

_RSA, _ECC, _NULL, _AES = 0x0001, 0x0023, 0x0010, 0x0006
_SCHEMES = {RSASSA: 0x0014, RSAPSS: 0x0016, ECDSA: 0x0018}
_SCHEME_NAMES = {number: name for name, number in _SCHEMES.items()}
_CURVE_NAMES = {number: name for name, (number, _size) in CURVES.items()}
_KNOWN_ATTRIBUTES = sum(ATTRIBUTES.values())
_RSA_BITS = (1024, 2048, 3072, 4096)
_AES_BITS = (128, 192, 256)
_MAX_DIGEST = 64
_MAX_NAME = 2 + _MAX_DIGEST
_MAX_BANKS = 16
#: The PC client platform has 24 PCRs, so three bytes select among them.
_SELECT_BYTES = 3


@record
class Clock:
    """The TPM's own time: milliseconds, resets, restarts (resumes), whether it went back."""

    milliseconds: int
    resets: int
    restarts: int
    safe: bool


@record
class Selection:
    """PCRs of one bank, ascending."""

    bank: str
    pcrs: tuple[int, ...]


@record
class Quote:
    """A TPMS_ATTEST of the type quote.

    ``signer``: qualified Name of the key; ``extra_data``: what was asked to be
    signed along; ``firmware``: version, as the TPM's vendor counts; ``digest``:
    over the values of ``selected`` PCRs, by the signature's hash.
    """

    signer: bytes
    extra_data: bytes
    clock: Clock
    firmware: int
    selected: tuple[Selection, ...]
    digest: bytes


@record
class RsaKey:
    """``exponent``: as written, where 0 stands for 65537."""

    bits: int
    exponent: int
    modulus: bytes


@record
class EccKey:
    """``curve``: one of ``CURVES``; coordinates as written, big-endian."""

    curve: str
    x: bytes
    y: bytes


@record
class Public:
    """A TPMT_PUBLIC of an RSA or ECC key.

    ``attributes``: bits of ``ATTRIBUTES``; ``symmetric``: (AES bits, mode) of a
    key that protects others, else None; ``scheme``: with ``scheme_hash`` how it
    signs, ``NO_SCHEME`` and "" where that is open.
    """

    name_algorithm: str
    attributes: int
    auth_policy: bytes
    symmetric: tuple[int, int] | None
    scheme: str
    scheme_hash: str
    key: RsaKey | EccKey

    def has(self, attribute: str) -> bool:
        """Whether ``attribute`` of ``ATTRIBUTES`` is set."""
        return bool(self.attributes & ATTRIBUTES[attribute])


@record
class Signature:
    """A TPMT_SIGNATURE: ``values`` are one number (RSA) or r and s (ECDSA), big-endian."""

    scheme: str
    hash: str
    values: tuple[bytes, ...]


def parse_quote(data: bytes, *, where: str = "") -> Quote:
    """The TPMS_ATTEST in ``data``.

    Raises ``FormatError``: ``tpm-attest-magic``, ``tpm-attest-type`` where it is
    something else; ``tpm-structure``; ``tpm-selection``.
    """
    rest = TpmBytes(data, where)
    if rest.number(4) != MAGIC:
        raise FormatError("tpm-attest-magic", "no TPM generated this", where=where)
    if rest.number(2) != ATTEST_QUOTE:
        raise FormatError("tpm-attest-type", "an attestation, but no quote", where=where)
    signer = rest.sized("the signer's name", _MAX_NAME + 2)
    extra = rest.sized("the extra data", _MAX_NAME)
    milliseconds, resets, restarts = rest.number(8), rest.number(4), rest.number(4)
    safe = rest.number(1)
    if safe > 1:
        raise rest.wrong("a flag is neither yes nor no")
    firmware = rest.number(8)
    selected = _selection(rest)
    found = Quote(
        signer,
        extra,
        Clock(milliseconds, resets, restarts, safe == 1),
        firmware,
        selected,
        rest.sized("the digest", _MAX_DIGEST),
    )
    rest.end()
    return found


def print_quote(quote: Quote) -> bytes:
    """The bytes that ``parse_quote`` reads."""
    clock = quote.clock
    return b"".join(
        (
            pack(">IH", MAGIC, ATTEST_QUOTE),
            sized(quote.signer),
            sized(quote.extra_data),
            pack(">QIIB", clock.milliseconds, clock.resets, clock.restarts, clock.safe),
            pack(">Q", quote.firmware),
            print_selection(quote.selected),
            sized(quote.digest),
        )
    )


def print_selection(selected: tuple[Selection, ...]) -> bytes:
    """A TPML_PCR_SELECTION."""
    body = pack(">I", len(selected))
    for item in selected:
        bitmap = sum(1 << pcr for pcr in item.pcrs).to_bytes(_SELECT_BYTES, "little")
        body += pack(">HB", tpm_wire.ALGORITHMS[item.bank], _SELECT_BYTES) + bitmap
    return body


def parse_public(data: bytes, *, where: str = "") -> Public:
    """The TPMT_PUBLIC in ``data``. Raises ``FormatError``: ``tpm-structure``, ``tpm-public``."""
    rest = TpmBytes(data, where)
    kind = rest.number(2)
    if kind not in (_RSA, _ECC):
        raise rest.wrong("neither an RSA nor an ECC key", code="tpm-public")
    name_algorithm = rest.hash_name()
    attributes = rest.number(4)
    if attributes & ~_KNOWN_ATTRIBUTES:
        raise rest.wrong("reserved attributes are set", code="tpm-public")
    auth_policy = rest.sized("the policy", _MAX_DIGEST)
    if len(auth_policy) not in (0, tpm_wire.SIZES[name_algorithm]):
        raise rest.wrong("the policy has another size than its hash", code="tpm-public")
    symmetric = _symmetric(rest)
    scheme, scheme_hash = _scheme(rest, (RSASSA, RSAPSS) if kind == _RSA else (ECDSA,))
    found = Public(
        name_algorithm,
        attributes,
        auth_policy,
        symmetric,
        scheme,
        scheme_hash,
        _rsa_key(rest) if kind == _RSA else _ecc_key(rest),
    )
    rest.end()
    return found


def print_public(public: Public) -> bytes:
    """The bytes that ``parse_public`` reads."""
    key = public.key
    rsa = isinstance(key, RsaKey)
    body = pack(
        ">HHI",
        _RSA if rsa else _ECC,
        tpm_wire.ALGORITHMS[public.name_algorithm],
        public.attributes,
    ) + sized(public.auth_policy)
    body += pack(">H", _NULL) if public.symmetric is None else pack(">HHH", _AES, *public.symmetric)
    if public.scheme == NO_SCHEME:
        body += pack(">H", _NULL)
    else:
        body += pack(">HH", _SCHEMES[public.scheme], tpm_wire.ALGORITHMS[public.scheme_hash])
    if isinstance(key, RsaKey):
        return body + pack(">HI", key.bits, key.exponent) + sized(key.modulus)
    return body + pack(">HH", CURVES[key.curve][0], _NULL) + sized(key.x) + sized(key.y)


def parse_public_2b(data: bytes, *, where: str = "") -> Public:
    """The TPM2B_PUBLIC in ``data``: a size, then what ``parse_public`` reads."""
    return parse_public(public_area(data, where=where), where=where)


def public_area(data: bytes, *, where: str = "") -> bytes:
    """The TPMT_PUBLIC of the TPM2B_PUBLIC ``data``. ``FormatError`` ``tpm-structure``."""
    rest = TpmBytes(data, where)
    area = rest.sized("the public area", MAX_BYTES)
    rest.end()
    return area


def public_2b(area: bytes) -> bytes:
    """The TPM2B_PUBLIC around the TPMT_PUBLIC ``area``."""
    return sized(area)


def name(area: bytes, *, where: str = "") -> bytes:
    """The Name of the key whose TPMT_PUBLIC is ``area``: hash algorithm, then the digest.

    Raises ``FormatError`` ``tpm-structure`` where the algorithm is unknown.
    """
    rest = TpmBytes(area, where)
    rest.number(2)
    algorithm = rest.hash_name()
    return pack(">H", tpm_wire.ALGORITHMS[algorithm]) + digest(algorithm, area)


def parse_signature(data: bytes, *, where: str = "") -> Signature:
    """The TPMT_SIGNATURE in ``data``. Raises ``FormatError``: ``tpm-structure``."""
    rest = TpmBytes(data, where)
    number = rest.number(2)
    if number not in _SCHEME_NAMES:
        raise rest.wrong(f"signature scheme 0x{number:04x} is unknown")
    scheme = _SCHEME_NAMES[number]
    algorithm = rest.hash_name()
    if scheme == ECDSA:
        widest = CURVES["p521"][1]
        values = tuple(rest.sized(f"the number {part}", widest, least=1) for part in ("r", "s"))
    else:
        values = (rest.sized("the signature", _RSA_BITS[-1] // 8, least=1),)
    rest.end()
    return Signature(scheme, algorithm, values)


def print_signature(signature: Signature) -> bytes:
    """The bytes that ``parse_signature`` reads."""
    head = pack(">HH", _SCHEMES[signature.scheme], tpm_wire.ALGORITHMS[signature.hash])
    return head + b"".join(sized(value) for value in signature.values)


def _selection(rest: TpmBytes) -> tuple[Selection, ...]:
    count = rest.number(4)
    if count > _MAX_BANKS:
        raise rest.wrong(f"{count} banks are selected", code="tpm-selection")
    found: list[Selection] = []
    for _ in range(count):
        bank = rest.hash_name()
        if rest.number(1) != _SELECT_BYTES:
            raise rest.wrong("PCRs are not selected by three bytes", code="tpm-selection")
        bitmap = int.from_bytes(rest.take(_SELECT_BYTES), "little")
        if any(bank == other.bank for other in found):
            # The digest would then cover values that nobody can tell apart.
            raise rest.wrong(f"the bank {bank} is selected twice", code="tpm-selection")
        found.append(Selection(bank, tuple(pcr for pcr in range(24) if bitmap >> pcr & 1)))
    return tuple(found)


def _symmetric(rest: TpmBytes) -> tuple[int, int] | None:
    number = rest.number(2)
    if number == _NULL:
        return None
    if number != _AES:
        raise rest.wrong(f"the symmetric algorithm 0x{number:04x} is not used", code="tpm-public")
    bits = rest.number(2)
    if bits not in _AES_BITS:
        raise rest.wrong(f"AES with {bits} bits", code="tpm-public")
    return bits, rest.number(2)


def _scheme(rest: TpmBytes, allowed: tuple[str, ...]) -> tuple[str, str]:
    number = rest.number(2)
    if number == _NULL:
        return NO_SCHEME, ""
    scheme = _SCHEME_NAMES.get(number, "")
    if scheme not in allowed:
        raise rest.wrong(f"scheme 0x{number:04x} is none of this key", code="tpm-public")
    return scheme, rest.hash_name()


def _rsa_key(rest: TpmBytes) -> RsaKey:
    bits, exponent = rest.number(2), rest.number(4)
    if bits not in _RSA_BITS:
        raise rest.wrong(f"an RSA key of {bits} bits", code="tpm-public")
    modulus = rest.sized("the modulus", _RSA_BITS[-1] // 8)
    if len(modulus) * 8 != bits or not modulus[0] >> 7 or not modulus[-1] & 1:
        raise rest.wrong(f"the modulus is none of {bits} bits", code="tpm-public")
    return RsaKey(bits, exponent, modulus)


def _ecc_key(rest: TpmBytes) -> EccKey:
    number = rest.number(2)
    if number not in _CURVE_NAMES:
        raise rest.wrong(f"curve 0x{number:04x} is not used", code="tpm-public")
    curve = _CURVE_NAMES[number]
    if rest.number(2) != _NULL:
        raise rest.wrong("a key derivation belongs to no signing key", code="tpm-public")
    size_bytes = CURVES[curve][1]
    x = rest.sized("a coordinate", size_bytes, least=1)
    return EccKey(curve, x, rest.sized("a coordinate", size_bytes, least=1))

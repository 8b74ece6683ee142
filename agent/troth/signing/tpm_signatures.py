# SPDX-License-Identifier: Apache-2.0
"""Signatures by keys of a TPM, checked: RSASSA, RSAPSS and ECDSA.

Serves ``verify.quote``. Says only whether these numbers hold; what kind of key
it is, and whether a TPM has it, is judged elsewhere. SHA-1 signs nothing here.
Must never raise for bytes that are merely wrong: they are a no.

Source: TPM 2.0 Library, part 1, annexes B (RSA) and C (ECC); RFC 8017
(PKCS #1); FIPS 186-4 (ECDSA).
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from troth.abi.tpm_attest import ECDSA, RSAPSS, RSASSA, EccKey, Public, RsaKey, Signature

DEFAULT_EXPONENT = 65537
"""What an exponent of 0 in a public area stands for."""

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_CURVES: dict[str, ec.EllipticCurve] = {
    "p256": ec.SECP256R1(),
    "p384": ec.SECP384R1(),
    "p521": ec.SECP521R1(),
}


def verifies(public: Public, signature: Signature, data: bytes) -> bool:
    """Whether ``signature`` is that of ``public`` over ``data``.

    A signature in another scheme than the key's kind has, by SHA-1, or by a key
    that is no key (a point off its curve) is a no.
    """
    algorithm = _HASHES.get(signature.hash)
    if algorithm is None:
        return False
    try:
        if isinstance(public.key, RsaKey):
            return _rsa(public.key, signature, data, algorithm)
        return _ecc(public.key, signature, data, algorithm)
    except (InvalidSignature, ValueError):
        return False


def _rsa(key: RsaKey, signature: Signature, data: bytes, algorithm: hashes.HashAlgorithm) -> bool:
    if signature.scheme not in (RSASSA, RSAPSS):
        return False
    numbers = rsa.RSAPublicNumbers(
        key.exponent or DEFAULT_EXPONENT, int.from_bytes(key.modulus, "big")
    )
    way: padding.AsymmetricPadding = padding.PKCS1v15()
    if signature.scheme == RSAPSS:
        # TPMs differ in the salt's length: as long as fits, or as the digest.
        way = padding.PSS(padding.MGF1(algorithm), salt_length=padding.PSS.AUTO)
    (value,) = signature.values
    numbers.public_key().verify(value, data, way, algorithm)
    return True


def _ecc(key: EccKey, signature: Signature, data: bytes, algorithm: hashes.HashAlgorithm) -> bool:
    if signature.scheme != ECDSA:
        return False
    x, y = int.from_bytes(key.x, "big"), int.from_bytes(key.y, "big")
    numbers = ec.EllipticCurvePublicNumbers(x, y, _CURVES[key.curve])
    r, s = (int.from_bytes(value, "big") for value in signature.values)
    der = utils.encode_dss_signature(r, s)
    numbers.public_key().verify(der, data, ec.ECDSA(algorithm))
    return True

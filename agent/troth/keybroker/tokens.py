# SPDX-License-Identifier: Apache-2.0
"""The token of an attested guest: a JWT that says what was judged, and whose key answers are for.

Serves ``keybroker.routes``; guests pass it on unread, or show it instead of their
cookie. Signed by a key of this process only, so no token outlives it, and none that
somebody else wrote counts, whatever key its header names. A stolen one is useless
without the guest's own key. Must never take a claim from a token before its
signature is good.

Source: draft-ietf-rats-ear for the claims, in the places where Trustee's key broker
looks for them; RFC 7515, RFC 7519.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from troth.documents import base64_text, jwk, strict
from troth.errors import FormatError
from troth.record import record

if TYPE_CHECKING:
    from troth.documents.jwk import PublicKey
    from troth.signing.es256 import TokenKey

LIFE_S = 300
MAX_CHARACTERS = 16 << 10

_ISSUER = "troth-keybroker"
_PROFILE = "tag:github.com,2023:veraison/ear"
#: AR4SI: affirming values of what was checked.
_VECTOR = {"configuration": 2, "executables": 2, "hardware": 2, "instance-identity": 0}


@record
class Claims:
    """What a token says: the guest's class and launch, the nonce it answered, its key."""

    image: str
    svn: int
    report_id: bytes
    measurement: bytes
    nonce: str
    tee_pubkey: PublicKey


def print_(claims: Claims, key: TokenKey, *, at: int) -> str:
    """The token, valid from ``at`` (seconds since 1970) for ``LIFE_S``."""
    x, y = key.point
    header = {
        "alg": "ES256",
        "typ": "JWT",
        "jwk": {
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "use": "sig",
            "x": base64_text.url(x),
            "y": base64_text.url(y),
        },
    }
    body = {
        "eat_profile": _PROFILE,
        "iss": _ISSUER,
        "iat": at,
        "nbf": at,
        "exp": at + LIFE_S,
        "submods": {
            "cpu0": {
                "ear.status": "affirming",
                "ear.trustworthiness-vector": _VECTOR,
                "ear.veraison.annotated-evidence": {
                    "snp": {
                        "measurement": claims.measurement.hex(),
                        "report_id": claims.report_id.hex(),
                    },
                    "troth": {"image": claims.image, "svn": claims.svn},
                    "runtime_data_claims": {
                        "nonce": claims.nonce,
                        "tee-pubkey": jwk.tree(claims.tee_pubkey),
                    },
                },
            }
        },
    }
    signed = f"{_part(header)}.{_part(body)}"
    return f"{signed}.{base64_text.url(key.sign(signed.encode()))}"


def parse(token: str, key: TokenKey, *, at: int) -> Claims:
    """What the token says, which this process signed and which is valid at ``at``.

    Raises ``FormatError`` ``broker-token``.
    """
    parts = token.split(".")
    if len(token) > MAX_CHARACTERS or len(parts) != 3:
        raise _wrong("is no JWT")
    signature = base64_text.from_url(parts[2])
    if signature is None or not key.verify(signature, f"{parts[0]}.{parts[1]}".encode()):
        raise _wrong("was not signed by this broker since it was started")
    # From here on it is our own text.
    body = base64_text.from_url(parts[1]) or b""
    own = strict.Reader(strict.parse(body))
    if not own.integer("nbf") <= at < own.integer("exp"):
        raise _wrong("is not valid now")
    found = own.reader("submods").reader("cpu0").reader("ear.veraison.annotated-evidence")
    snp, troth, runtime = (found.reader(n) for n in ("snp", "troth", "runtime_data_claims"))
    return Claims(
        troth.text("image"),
        troth.integer("svn"),
        bytes.fromhex(snp.text("report_id")),
        bytes.fromhex(snp.text("measurement")),
        runtime.text("nonce"),
        jwk.parse(runtime.reader("tee-pubkey")),
    )


def _part(tree: object) -> str:
    return base64_text.url(json.dumps(tree, separators=(",", ":")).encode())


def _wrong(said: str) -> FormatError:
    return FormatError("broker-token", f"the token {said}")

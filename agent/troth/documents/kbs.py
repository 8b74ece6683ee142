# SPDX-License-Identifier: Apache-2.0
"""Messages of the key broker protocol (KBS) 0.4.0, as a guest and as a broker.

Serves ``boot.key_sources`` and ``keybroker``; other guests and other brokers
speak it too, so what they may send is taken and what they must get is printed
byte for byte. What is hashed into REPORT_DATA is computed here for both. Must
never look into evidence or a token: to these messages both are opaque.

Source: Trustee v0.14 and later, kbs/docs/kbs_attestation_protocol.md; kbs-types
for names and order of members; RFC 8785 for the runtime data.
"""

from __future__ import annotations

import json

from troth.abi import hashes
from troth.documents import jwk, strict
from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.jwk import PublicKey

VERSION = "0.4.0"
"""Compared as text: the peers do so too."""
MAX_BODY_BYTES = 1 << 20
COOKIE = "kbs-session-id"
SESSION_CHARACTERS = 32
"""Lower-case hex."""

PREFIX = "/kbs/v0"
AUTH_PATH = f"{PREFIX}/auth"
ATTEST_PATH = f"{PREFIX}/attest"
RESOURCE_PATH = f"{PREFIX}/resource/"
"""The name of the resource follows."""

SNP = "snp"
SAMPLE = "sample"
TEES = (
    SNP, SAMPLE, "tpm", "az-snp-vtpm", "azsnpvtpm", "az-tdx-vtpm", "aztdxvtpm", "tdx", "sgx",
    "cca", "csv", "se", "sampledevice", "nvidia", "hygondcu",
)  # fmt: skip
HASH_ALGORITHMS = ("sha256", "sha384", "sha512")
REPORT_DATA_BYTES = 64
DIGEST_BYTES = 48

_MAX_NONCE_CHARACTERS = 256
_MAX_TOKEN_CHARACTERS = 64 << 10
_MAX_INIT_DATA_CHARACTERS = 64 << 10


@record
class AuthRequest:
    """A guest begins: which ``tee`` it is in. What else it says of itself decides nothing."""

    tee: str


@record
class Challenge:
    """``nonce``: printable text, used as it is; ``hash_algorithm``: "" stands for SHA-384."""

    nonce: str
    hash_algorithm: str = ""


@record
class AttestRequest:
    """``evidence``: JSON text of the kind that the tee has; ``additional_evidence``: text, mostly
    empty; ``init_data``: text in TOML, or none.
    """  # noqa: D205 - the fields are the summary

    nonce: str
    tee_pubkey: PublicKey
    evidence: bytes
    additional_evidence: str = ""
    init_data: str | None = None


def print_auth(request: AuthRequest) -> bytes:
    """The body of ``POST /kbs/v0/auth``."""
    extra = {"supported-hash-algorithms": list(HASH_ALGORITHMS)}
    return _print({"version": VERSION, "tee": request.tee, "extra-params": extra})


def parse_auth(data: bytes, *, where: str = "") -> AuthRequest:
    """The request in ``data``; ``extra-params`` must be there and may be any JSON.

    Raises ``FormatError``: ``kbs-version``, ``json-*``.
    """
    own = _reader(data, where)
    version = own.text("version")
    if version != VERSION:
        raise FormatError(
            "kbs-version",
            f"the guest speaks version {version[:20]!r} of the protocol, this is {VERSION}",
            where=where,
        )
    tee = own.text("tee", allowed=TEES)
    own.raw("extra-params")
    own.close()
    return AuthRequest(tee)


def print_challenge(challenge: Challenge) -> bytes:
    """The answer to ``/auth``."""
    chosen = challenge.hash_algorithm
    extra: object = {"selected-hash-algorithm": chosen} if chosen else ""
    return _print({"nonce": challenge.nonce, "extra-params": extra})


def parse_challenge(data: bytes, *, where: str = "") -> Challenge:
    """The challenge in ``data``.

    Raises ``FormatError``: ``kbs-nonce``, ``kbs-hash`` where another algorithm than
    SHA-384 is chosen, ``json-*``.
    """
    own = _reader(data, where)
    nonce = own.text("nonce")
    extra = own.raw("extra-params")
    own.close()
    _check_nonce(nonce, where)
    # Other members are hints for other TEEs; brokers also send an empty text.
    chosen = extra.get("selected-hash-algorithm", "") if isinstance(extra, dict) else ""
    if chosen not in ("", "sha384"):
        raise FormatError("kbs-hash", "the broker wants another hash than SHA-384", where=where)
    return Challenge(nonce, str(chosen))


def print_attest(request: AttestRequest) -> bytes:
    """The body of ``POST /kbs/v0/attest``. ``FormatError``: ``json-*`` for bad evidence."""
    init = request.init_data
    return _print(
        {
            "init-data": None if init is None else {"format": "toml", "body": init},
            "runtime-data": {
                "nonce": request.nonce,
                "tee-pubkey": jwk.tree(request.tee_pubkey),
            },
            "tee-evidence": {
                "primary_evidence": strict.parse(request.evidence),
                "additional_evidence": request.additional_evidence,
            },
        }
    )


def parse_attest(data: bytes, *, where: str = "") -> AttestRequest:
    """The request in ``data``, compared with nothing.

    Raises ``FormatError``: ``kbs-nonce``, ``kbs-evidence``, ``kbs-init-data``,
    ``jwk-form``, ``json-*``.
    """
    own = _reader(data, where)
    init_data = None
    if own.has("init-data") and own.raw("init-data") is not None:
        init_data = _init_data(own.reader("init-data"), where)
    runtime = own.reader("runtime-data")
    nonce = runtime.text("nonce")
    _check_nonce(nonce, where)
    key = jwk.parse(runtime.reader("tee-pubkey"), where=where)
    runtime.close()
    evidence = own.reader("tee-evidence")
    primary = evidence.raw("primary_evidence")
    additional = evidence.text("additional_evidence")
    evidence.close()
    own.close()
    if not isinstance(primary, dict) or not _is_unicode(additional):
        raise FormatError("kbs-evidence", "evidence is no object and text", where=where)
    try:
        text = _print(primary)
    except RecursionError:
        raise FormatError("kbs-evidence", "evidence is nested too deep", where=where) from None
    return AttestRequest(nonce, key, text, additional, init_data)


def runtime_data(request: AttestRequest) -> bytes:
    """What stands behind REPORT_DATA, canonical."""
    return strict.canonical(
        {
            "additional-evidence": request.additional_evidence,
            "nonce": request.nonce,
            "tee-pubkey": jwk.tree(request.tee_pubkey),
        }
    )


def report_data(request: AttestRequest) -> bytes:
    """The 64 bytes that SNP evidence must carry: SHA-384 of the runtime data, then zeros.

    The evidence itself is not part of them, and may still be empty.
    """
    digest: bytes = hashes.digest("sha384", runtime_data(request))
    return digest + bytes(REPORT_DATA_BYTES - DIGEST_BYTES)


def print_token(token: str) -> bytes:
    """The answer to ``/attest``."""
    return _print({"token": token})


def parse_token(data: bytes, *, where: str = "") -> str:
    """The token in ``data``, not looked into. ``FormatError``: ``kbs-token``, ``json-*``."""
    own = _reader(data, where)
    token = own.text("token")
    own.close()
    if len(token) > _MAX_TOKEN_CHARACTERS or not _is_visible(token):
        raise FormatError("kbs-token", "the token is no short text without spaces", where=where)
    return token


def is_session(text: str) -> bool:
    """Whether ``text`` can be the value of the session's cookie."""
    return len(text) == SESSION_CHARACTERS and set("0123456789abcdef").issuperset(text)


def _init_data(own: strict.Reader, where: str) -> str:
    own.text("format", allowed=("toml",))
    body = own.text("body")
    own.close()
    if len(body) > _MAX_INIT_DATA_CHARACTERS or not _is_unicode(body):
        raise FormatError("kbs-init-data", "init-data is no short text", where=where)
    return body


def _check_nonce(nonce: str, where: str) -> None:
    if not 0 < len(nonce) <= _MAX_NONCE_CHARACTERS or not _is_visible(nonce):
        raise FormatError("kbs-nonce", "the nonce is no short text without spaces", where=where)


def _is_visible(text: str) -> bool:
    return text.isascii() and all("!" <= letter <= "~" for letter in text)


def _is_unicode(text: str) -> bool:
    """JSON can spell halves of characters, which no encoding has."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _reader(data: bytes, where: str) -> strict.Reader:
    tree = strict.parse(data, where=where, limit_bytes=MAX_BODY_BYTES)
    return strict.Reader(tree, where=where)


def _print(tree: object) -> bytes:
    # ASCII, in the order given: evidence has whole u64 numbers, which canonical JSON has not.
    return json.dumps(tree, separators=(",", ":")).encode()

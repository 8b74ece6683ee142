# SPDX-License-Identifier: Apache-2.0
"""Something encrypted to a public key: the flattened JSON form of JWE.

Serves both sides of key release. One content cipher and two key algorithms are
known; every other word, "dir" first of all, is refused before anything is
decrypted, and so are members that nobody needs (``aad``, ``header``). The
protected text is kept as it came, because the content's tag covers its letters.
Must never decide whether the algorithm is the one that was asked for: that is
the one who opens it.

Source: RFC 7516, sections 5 and 7.2.2. The order of the protected header's
members is that of guest-components, which prints it anew before it decrypts.
"""

from __future__ import annotations

import json

from troth.documents import base64_text, jwk, strict
from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.jwk import EcPublicKey

MAX_DOCUMENT_BYTES = 1 << 20
MAX_PROTECTED_CHARACTERS = 2048
CONTENT = "A256GCM"
CONTENT_KEY_BYTES = 32
IV_BYTES = 12
TAG_BYTES = 16
WRAPPED_KEY_BYTES = 40
"""Of 32 bytes, by RFC 3394."""
ALGORITHMS = (jwk.ECDH, jwk.RSA_OAEP)


@record
class Jwe:
    """``protected``: the text of the header as it stands in the document; ``algorithm`` and
    ``ephemeral`` (with ``jwk.ECDH`` only) are what it says; the rest are bytes.
    """  # noqa: D205 - the fields are the summary

    protected: str
    algorithm: str
    ephemeral: EcPublicKey | None
    encrypted_key: bytes
    iv: bytes
    ciphertext: bytes
    tag: bytes


def protect(algorithm: str, ephemeral: EcPublicKey | None = None) -> str:
    """The protected text for ``algorithm``: ``ephemeral`` with ``jwk.ECDH``, none else."""
    tree: dict[str, object] = {"alg": algorithm, "enc": CONTENT}
    if ephemeral is not None:
        tree["epk"] = jwk.ephemeral_tree(ephemeral)
    return base64_text.url(json.dumps(tree, separators=(",", ":")).encode())


def print_(jwe: Jwe) -> bytes:
    """The document of ``jwe``."""
    tree = {
        "protected": jwe.protected,
        "encrypted_key": base64_text.url(jwe.encrypted_key),
        "iv": base64_text.url(jwe.iv),
        "ciphertext": base64_text.url(jwe.ciphertext),
        "tag": base64_text.url(jwe.tag),
    }
    return json.dumps(tree, separators=(",", ":")).encode()


def parse(data: bytes, *, where: str = "") -> Jwe:
    """The encrypted thing in ``data``, not decrypted.

    Raises ``FormatError``: ``jwe-algorithm`` for one that is not known, ``jwe``
    for parts of another form or size, ``jwk-form``, ``json-*``.
    """
    top = strict.Reader(strict.parse(data, where=where, limit_bytes=MAX_DOCUMENT_BYTES))
    protected = top.text("protected")
    algorithm, ephemeral = _header(protected, where)
    most = WRAPPED_KEY_BYTES if algorithm == jwk.ECDH else jwk.RSA_BITS[1] // 8
    least = WRAPPED_KEY_BYTES if algorithm == jwk.ECDH else jwk.RSA_BITS[0] // 8
    found = Jwe(
        protected,
        algorithm,
        ephemeral,
        _part(top, "encrypted_key", least, most, where),
        _part(top, "iv", IV_BYTES, IV_BYTES, where),
        _part(top, "ciphertext", 0, MAX_DOCUMENT_BYTES, where),
        _part(top, "tag", TAG_BYTES, TAG_BYTES, where),
    )
    top.close()
    return found


def _header(protected: str, where: str) -> tuple[str, EcPublicKey | None]:
    raw = None
    if len(protected) <= MAX_PROTECTED_CHARACTERS:
        raw = base64_text.from_url(protected)
    if raw is None:
        raise FormatError(
            "jwe-form", "the protected header is no short base64url text", where=where
        )
    own = strict.Reader(strict.parse(raw, where=where), where=where, path="$.protected")
    for name, known in (("alg", ALGORITHMS), ("enc", (CONTENT,))):
        value = own.raw(name)
        if value not in known:
            said = repr(value)[:40]
            raise FormatError("jwe-algorithm", f"{name} is {said}, which is not taken", where=where)
    algorithm = own.text("alg")
    ephemeral = None
    if algorithm == jwk.ECDH:
        ephemeral = jwk.parse_ephemeral(own.reader("epk"), where=where)
    own.close()
    return algorithm, ephemeral


def _part(own: strict.Reader, name: str, least: int, most: int, where: str) -> bytes:
    value = base64_text.from_url(own.text(name))
    if value is None or not least <= len(value) <= most:
        between = str(least) if least == most else f"{least} to {most}"
        raise FormatError("jwe-form", f"{name} is not {between} bytes of base64url", where=where)
    return value

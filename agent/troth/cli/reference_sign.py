# SPDX-License-Identifier: Apache-2.0
"""``troth reference sign``: values, dated, in an envelope that somebody vouches for.

Serves whoever publishes an image. With ``--detached`` and ``--signature`` the
private key never comes near: it may live in an HSM.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from troth.cli import output_file, reference_file
from troth.documents import dsse, instant, reference_document, reference_values_json
from troth.documents.reference_values import LAUNCH_DIGEST_BYTES, NEVER
from troth.errors import UsageError
from troth.record import replace
from troth.signing import keys, reference

if TYPE_CHECKING:
    from typing import Protocol

    from troth.documents.dsse import Envelope
    from troth.documents.reference_values import ReferenceValues

    class Options(Protocol):
        """What the grammar gives."""

        file: str
        key: list[str]
        issued: str | None
        expires: str | None
        valid_days: int | None
        commit: str | None
        revoke: list[str]
        detached: bool
        signature: list[str]
        output: str


_DAY_S = 86400
_MAX_DAYS = 36525
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)


def sign(options: Options) -> int:
    """Write the envelope, or with ``--detached`` the bytes to sign.

    Raises ``UsageError``: ``reference-key-missing``, ``reference-expiry``,
    ``reference-issued-missing``, ``reference-revoke``, ``reference-commit``, ``time-form``,
    ``reference-key-twice``, ``reference-signature-foreign``; errors of the keys.
    """
    _check(options)
    document = reference_file.read(options.file)
    if document.envelope is not None:
        _say("signatures that the file has are dropped; they were not verified")
    values = _dated(options, reference_document.values(document))
    # What cannot be read again must not be signed.
    reference_values_json.from_statement(reference_values_json.to_statement(values))
    if options.detached:
        output_file.write(options.output, reference.to_sign(values))
        _say(f"{options.output} is what a key must sign; then the same again with --signature")
        return 0
    envelope = _envelope(options, values)
    output_file.write(options.output, dsse.print_(envelope))
    for item in envelope.signatures:
        _say(f"signed by {item.key_id}")
    _say(f"in force from {values.issued}, expires {values.expires}")
    if not values.commit:
        _say("no commit is stated (--commit): what was built from what stays untold")
    return 0


def _check(options: Options) -> None:
    if not options.key and not options.detached:
        raise UsageError(
            "reference-key-missing",
            "no key to sign with",
            hint="openssl genpkey -algorithm ed25519 makes one",
        )
    if options.detached and (options.key or options.signature):
        raise UsageError("usage", "--detached needs no key and no signature")
    if options.signature and len(options.signature) != len(options.key):
        raise UsageError("usage", "each --signature needs its --key (public), in the same order")
    if (options.detached or options.signature) and options.issued is None:
        raise UsageError(
            "reference-issued-missing",
            "what is signed elsewhere holds the time of signing, which must be given",
            hint=f"--issued {instant.EXAMPLE}, the same both times",
        )
    if (options.expires is None) == (options.valid_days is None):
        raise UsageError(
            "reference-expiry",
            "exactly one of --expires and --valid-days is needed",
            hint="values without end must be asked for: --expires never",
        )


def _dated(options: Options, values: ReferenceValues) -> ReferenceValues:
    issued_s = reference_file.moment(options.issued, option="--issued")
    if options.valid_days is not None:
        if not 1 <= options.valid_days <= _MAX_DAYS:
            raise UsageError("reference-expiry", f"--valid-days is 1 to {_MAX_DAYS}")
        expires = instant.print_(issued_s + options.valid_days * _DAY_S)
    elif options.expires == NEVER:
        expires = NEVER
    else:
        expires_s = reference_file.moment(options.expires, option="--expires")
        if expires_s <= issued_s:
            raise UsageError("reference-expiry", "--expires is not after --issued")
        expires = instant.print_(expires_s)
    commit = (options.commit or "").lower()
    if options.commit is not None and not _COMMIT.fullmatch(commit):
        raise UsageError(
            "reference-commit",
            f"{options.commit[:100]!r} is no commit: 40 or 64 hex digits",
            hint="git rev-parse HEAD prints it",
        )
    for text in options.revoke:
        if len(text) != 2 * LAUNCH_DIGEST_BYTES or not set(text.lower()) <= set("0123456789abcdef"):
            raise UsageError("reference-revoke", f"{text[:100]!r} is no launch digest in hex")
    revoked = (*values.revoked, *(text.lower() for text in options.revoke))
    return replace(
        values,
        issued=instant.print_(issued_s),
        expires=expires,
        commit=commit or values.commit,
        revoked=tuple(dict.fromkeys(revoked)),
    )


def _envelope(options: Options, values: ReferenceValues) -> Envelope:
    if not options.signature:
        loaded = [keys.load_private(keys.read_file(name), where=name) for name in options.key]
        return reference.sign(values, loaded)
    signatures = []
    for key, name in zip(reference_file.public_keys(options.key), options.signature, strict=True):
        signatures.append((key, keys.read_file(name)))
    return reference.assemble(values, signatures)


def _say(text: str) -> None:
    print(f"troth: {text}", file=sys.stderr)

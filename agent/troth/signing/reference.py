# SPDX-License-Identifier: Apache-2.0
"""Reference values signed, and signed values judged: by whom, when, how old.

Serves ``troth reference`` and every verifier that takes a signed file. The
time is a parameter. Must never look into a payload whose signature it was
asked to verify and could not; must never let a keyid decide anything.
Sources: DSSE protocol 1.0.0; SECURITY S21.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents import dsse, finding, instant, reference_document, reference_values_json
from troth.documents.dsse import Envelope, Signature
from troth.documents.reference_values import NEVER
from troth.documents.verdict import FAIL
from troth.errors import UsageError
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from troth.documents.finding import Finding
    from troth.documents.reference_document import Document
    from troth.documents.reference_values import ReferenceValues
    from troth.signing.keys import PrivateKey, PublicKey


@record
class Judgement:
    """``values`` are None where the signature was asked for and not found good.

    ``signers``: those of the given keys whose signatures are good.
    """

    values: ReferenceValues | None
    signers: tuple[PublicKey, ...]
    findings: tuple[Finding, ...]


def to_sign(values: ReferenceValues) -> bytes:
    """The bytes that a key signs for ``values``."""
    return dsse.pae(dsse.IN_TOTO, reference_values_json.to_statement(values))


def sign(values: ReferenceValues, keys: Sequence[PrivateKey]) -> Envelope:
    """``values`` in an envelope with a signature of each key, in their order.

    The same values and keys give the same bytes. Raises ``UsageError``
    ``reference-key-twice``.
    """
    data = to_sign(values)
    return assemble(values, [(key.public, key.sign(data)) for key in keys])


def assemble(values: ReferenceValues, signatures: Sequence[tuple[PublicKey, bytes]]) -> Envelope:
    """``values`` in an envelope with signatures made elsewhere over ``to_sign``.

    Raises ``UsageError`` ``reference-key-twice``, ``reference-signature-foreign``
    for a signature that is not its key's over these values.
    """
    data = to_sign(values)
    ids = [key.key_id for key, _value in signatures]
    if len(set(ids)) != len(ids):
        raise UsageError("reference-key-twice", "one key is given twice")
    for key, value in signatures:
        if not key.verify(value, data):
            raise UsageError(
                "reference-signature-foreign",
                f"a signature is not that of the key {key.key_id} over these values",
                hint="sign what --detached wrote, with the same dates and options",
            )
    return Envelope(
        payload_type=dsse.IN_TOTO,
        payload=reference_values_json.to_statement(values),
        signatures=tuple(Signature(key.key_id, value) for key, value in signatures),
    )


def signers(envelope: Envelope, keys: Sequence[PublicKey]) -> tuple[PublicKey, ...]:
    """Those of ``keys`` that have signed ``envelope``; what keyids say is not asked."""
    data = dsse.pae(envelope.payload_type, envelope.payload)
    return tuple(
        key for key in keys if any(key.verify(item.value, data) for item in envelope.signatures)
    )


def judge(
    document: Document,
    *,
    keys: Sequence[PublicKey],
    at_s: int,
    min_svn: int | None = None,
    allow_unsigned: bool = False,
) -> Judgement:
    """Whether ``document`` is signed by one of ``keys`` and in force at ``at_s``.

    ``at_s``: seconds since 1970; ``allow_unsigned``: values that nobody signed,
    or nobody was asked to have signed, are looked at all the same, and the
    finding ``signature`` says so. Raises ``FormatError`` where the values, once
    their signature is good, are no values.
    """
    found, signature = _signature(document, keys, allow_unsigned=allow_unsigned)
    if signature.verdict == FAIL:
        rest = ("issued", "expires", "svn", "revoked")
        why = "what no given key has signed is not looked at"
        return Judgement(None, (), (signature, *(finding.not_checked(name, why) for name in rest)))
    values = reference_document.values(document)
    return Judgement(
        values,
        found,
        (signature, *_dates(values, at_s), _svn(values, min_svn), _revoked(values)),
    )


def _signature(
    document: Document, keys: Sequence[PublicKey], *, allow_unsigned: bool
) -> tuple[tuple[PublicKey, ...], Finding]:
    name = "signature"
    envelope = document.envelope
    if envelope is None:
        if allow_unsigned:
            return (), finding.not_checked(name, "nobody has signed this, which was allowed")
        return (), finding.failed(name, "reference-unsigned", "nobody has signed this")
    if not keys:
        if allow_unsigned:
            return (), finding.not_checked(name, "no key was given, which was allowed")
        return (), finding.failed(name, "reference-key", "no key was given to accept")
    found = signers(envelope, keys)
    if found:
        return found, finding.passed(name, f"by {', '.join(key.key_id for key in found)}")
    named = {item.key_id for item in envelope.signatures} & {key.key_id for key in keys}
    if named:
        return (), finding.failed(
            name,
            "reference-signature",
            f"the signature that names {min(named)} is not of these bytes: they were altered",
        )
    return (), finding.failed(name, "reference-key", "none of the given keys has signed this")


def _dates(values: ReferenceValues, at_s: int) -> tuple[Finding, Finding]:
    if not values.issued:
        why = "values without signature have no dates"
        return finding.not_checked("issued", why), finding.not_checked("expires", why)
    now = instant.print_(at_s)
    issued = finding.passed("issued", values.issued)
    if at_s < instant.parse(values.issued):
        issued = finding.failed(
            "issued", "reference-issued", f"{values.issued} is later than {now}"
        )
    if values.expires == NEVER:
        return issued, finding.passed("expires", "never, as the signer said")
    if at_s >= instant.parse(values.expires):
        return issued, finding.failed(
            "expires", "reference-expired", f"{values.expires} is not later than {now}"
        )
    return issued, finding.passed("expires", values.expires)


def _svn(values: ReferenceValues, min_svn: int | None) -> Finding:
    if min_svn is None:
        return finding.not_checked("svn", f"{values.svn}; no minimum was given")
    if values.svn < min_svn:
        return finding.failed("svn", "reference-svn", f"{values.svn} is below {min_svn}")
    return finding.passed("svn", f"{values.svn}, at least {min_svn}")


def _revoked(values: ReferenceValues) -> Finding:
    """Revoked launches are never accepted; the document fails when none is left."""
    total, left = len(values.launch), len(values.in_force)
    if total and not left:
        return finding.failed(
            "revoked", "reference-revoked", f"every launch digest of the image ({total})"
        )
    return finding.passed("revoked", f"{left} of {total} launch digests are in force")

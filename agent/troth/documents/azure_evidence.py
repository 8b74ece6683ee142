# SPDX-License-Identifier: Apache-2.0
"""Evidence of an Azure confidential VM as confidential-containers sends it, ``az-snp-vtpm``.

Serves ``troth verify evidence --format az-snp-vtpm``. Three versions: the first
has no number and writes bytes as arrays; 1 and 2 write hex and base64url, and
differ in what the sender binds, not in form. Must never take a field of a
version for one of another.

Source: confidential-containers/trustee, deps/verifier, "az_snp_vtpm"; fields
that are not known are refused.
"""

from __future__ import annotations

from troth.abi import hcl
from troth.documents import foreign, strict
from troth.documents.foreign import ForeignEvidence, RawQuote

_PCRS = 24
_PCR_BYTES = 32
_MESSAGE_BYTES = (16, 1024)
_SIGNATURE_BYTES = (256, 512)
_HCL_BYTES = (1236, hcl.MAX_BYTES)
_VERSIONS = (1, 2)


def parse(data: bytes, *, where: str = "") -> ForeignEvidence:
    """The evidence in ``data``, compared with nothing.

    Raises ``FormatError``: those of ``documents.strict``; ``foreign-evidence``
    where a value has another form; ``hcl-*`` where the paravisor's report does not
    read, or is of another platform than SEV-SNP.
    """
    tree = strict.parse(data, where=where, limit_bytes=foreign.MAX_DOCUMENT_BYTES)
    top = strict.Reader(tree, where=where)
    if top.has("version"):
        version = top.integer("version", maximum=max(_VERSIONS))
        if version not in _VERSIONS:
            raise foreign.wrong(f"version {version} is not known", where)
        found = _numbered(top, where)
    else:
        found = _first(top, where)
    top.close()
    return found


def _numbered(top: strict.Reader, where: str) -> ForeignEvidence:
    report = foreign.base64url(
        top.raw("hcl_report"), "hcl_report", least=_HCL_BYTES[0], most=_HCL_BYTES[1], where=where
    )
    vcek = foreign.base64url(
        top.raw("vcek"), "vcek", least=1, most=foreign.MAX_CERTIFICATE_BYTES, where=where
    )
    own = top.reader("tpm_quote")
    quote = _quote(own, foreign.hex_octets, where)
    own.close()
    return _evidence(report, vcek, quote, where)


def _first(top: strict.Reader, where: str) -> ForeignEvidence:
    report = foreign.octets(
        top.raw("report"), "report", least=_HCL_BYTES[0], most=_HCL_BYTES[1], where=where
    )
    text = top.text("vcek")
    if not text.isascii() or len(text) > foreign.MAX_CERTIFICATE_BYTES:
        raise foreign.wrong("vcek is no certificate in PEM", where)
    own = top.reader("quote")
    quote = _quote(own, foreign.octets, where)
    own.close()
    return _evidence(report, text.encode(), quote, where)


def _quote(own: strict.Reader, read: foreign.Octets, where: str) -> RawQuote:
    listed = own.raw("pcrs")
    if not isinstance(listed, list) or len(listed) != _PCRS:
        raise foreign.wrong(f"pcrs is no array of {_PCRS} values", where)
    low, high = _MESSAGE_BYTES
    least, most = _SIGNATURE_BYTES
    return RawQuote(
        message=read(own.raw("message"), "message", least=low, most=high, where=where),
        signature=read(own.raw("signature"), "signature", least=least, most=most, where=where),
        pcrs=tuple(
            read(item, "pcrs[]", least=_PCR_BYTES, most=_PCR_BYTES, where=where) for item in listed
        ),
    )


def of_hcl(data: bytes, *, where: str = "") -> ForeignEvidence:
    """The paravisor's whole report as evidence. Raises ``FormatError`` as ``parse`` does."""
    found = hcl.parse(data, where=where)
    if found.report_type != hcl.SNP:
        raise foreign.wrong(
            f"the paravisor's report is of type {found.report_type}, not of SEV-SNP", where
        )
    return ForeignEvidence(foreign.HCL, found.hardware_report, (), data)


def _evidence(service: bytes, vcek: bytes, quote: RawQuote, where: str) -> ForeignEvidence:
    return ForeignEvidence(
        format=foreign.AZURE,
        report=of_hcl(service, where=where).report,
        certificates=(("vcek", vcek),),
        service=service,
        quote=quote,
    )

# SPDX-License-Identifier: Apache-2.0
"""One candidate chain under a report, judged step by step.

Serves ``verify.endorsing.chain``, which finds the candidates and takes the best. Each step
is judged by itself and says "not checked" where what it needs is missing; the
chain holds only where all of them do. Must never judge by what a certificate is
called where a signature can be checked: names only say which certificate to try.

Source: AMD 57230 (names, extensions, forms of the chip's id); AMD 56860,
"ATTESTATION_REPORT" (KEY_INFO, CHIP_ID, REPORTED_TCB); sheet snp 4 and 4.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import snp_report, snp_tcb, vek_extensions
from troth.errors import FormatError
from troth.record import record
from troth.signing import certificates, keys
from troth.verify.endorsing import crl
from troth.verify.endorsing.steps import FETCH, failed, open_, passed

if TYPE_CHECKING:
    from datetime import datetime

    from troth.abi.snp_report import SnpReport
    from troth.abi.vek_extensions import VekExtensions
    from troth.signing.certificates import Certificate
    from troth.signing.revocation_lists import RevocationList
    from troth.verify.endorsing.steps import Step

NO_LINE = "no line of a policy accepts this"
PREFIX = {snp_report.VCEK: "SEV-", snp_report.VLEK: "SEV-VLEK-"}
SUBJECT = {snp_report.VCEK: "SEV-VCEK", snp_report.VLEK: "SEV-VLEK"}


@record
class Path:
    """A candidate: ``key`` (VCEK or VLEK), its ``intermediate`` and ``root``; None: not there."""

    key: Certificate | None
    intermediate: Certificate | None
    root: Certificate | None

    @property
    def present(self) -> tuple[Certificate, ...]:
        """Those that are there, the report's key first."""
        return tuple(item for item in (self.key, self.intermediate, self.root) if item is not None)


@record
class Question:
    """What is asked of every candidate.

    ``roots``: SHA-256 of the trusted ones; ``at``: aware time; ``simulated``:
    whether the policy is for simulated platforms.
    """

    report: SnpReport
    lists: tuple[RevocationList, ...]
    roots: frozenset[str]
    at: datetime
    simulated: bool


class Links:
    """Answers about links, each worked out once."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], str] = {}

    def problem(self, child: Certificate, parent: Certificate) -> str:
        """As ``certificates.issue_problem``."""
        pair = (child.der, parent.der)
        if pair not in self._known:
            self._known[pair] = certificates.issue_problem(child, parent)
        return self._known[pair]

    def signature_problem(self, report: SnpReport, key: Certificate) -> str:
        """Why ``report`` is not signed by ``key``, as a sentence; empty where it is."""
        pair = (report.raw, key.der)
        if pair not in self._known:
            self._known[pair] = _signature_problem(report, key)
        return self._known[pair]


def line_of(issuer_cn: str) -> str | None:
    """The product line in the name of an ASK or ASVK, or None."""
    for prefix in (PREFIX[snp_report.VLEK], PREFIX[snp_report.VCEK]):
        if issuer_cn.startswith(prefix) and issuer_cn[len(prefix) :] in snp_tcb.PRODUCTS:
            return issuer_cn[len(prefix) :]
    return None


def product(report: SnpReport, key: Certificate | None) -> str | None:
    """The product line: the report's own word from version 3 on, else that of its key's issuer."""
    if report.has_cpuid:
        return snp_tcb.product_of(report.cpuid_family, report.cpuid_model)
    return line_of(key.issuer_cn) if key is not None else None


def extensions(key: Certificate | None) -> VekExtensions | None:
    """What the extensions of ``key`` say, None where they do not read."""
    if key is None:
        return None
    try:
        return vek_extensions.parse(key.extensions)
    except FormatError:
        return None


def has_tcb(report: SnpReport, said: VekExtensions, line: str) -> bool:
    """Whether ``said`` names the levels of the reported TCB, read as ``line`` lays them out."""
    return said.tcb == snp_tcb.decode(report.reported_tcb, line)


def judge(question: Question, path: Path, links: Links) -> tuple[Step, ...]:
    """All steps for ``path``, in the order of ``verify.endorsing.chain.CODES``."""
    report, key = question.report, path.key
    line = product(report, key)
    said = extensions(key)
    return (
        _line(report, path),
        _root(question, path.root, links),
        _intermediate(path, links),
        _key(report, path, links),
        _validity(question, path),
        crl.revocation(
            question.lists, root=path.root, intermediate=path.intermediate, at=question.at
        ),
        _platform(question, path),
        _extensions(report, key, line),
        _tcb(report, said, line),
        _chip(report, said, line),
        _signature(report, key, links),
    )


def _line(report: SnpReport, path: Path) -> Step:
    check, expected = "certificate-line", "report and chain are of one known product line"
    own = product(report, path.key)
    if report.has_cpuid and own is None:
        return failed(
            check,
            expected,
            f"family {report.cpuid_family:#x} model {report.cpuid_model:#x} is not known",
            NO_LINE,
        )
    if path.key is None:
        return open_(check, expected, f"{own or 'an unknown line'}, and no certificate for its key")
    of_chain = line_of(path.key.issuer_cn)
    if own is None or own != of_chain:
        observed = f"{own or 'unknown'} and a key issued by {path.key.issuer_cn!r}"
        return failed(check, expected, observed, NO_LINE)
    if path.root is not None and path.root.subject_cn != f"ARK-{own}":
        return failed(check, expected, f"{own} and the root {path.root.subject_cn!r}", NO_LINE)
    return passed(check, expected, own if report.has_cpuid else f"{own}, by its certificates")


def _root(question: Question, root: Certificate | None, links: Links) -> Step:
    check, expected = "certificate-root", "the SHA-256 of the root is a pinned one"
    if root is None:
        return open_(check, expected, "no root certificate (ARK) was given", FETCH)
    problem = links.problem(root, root)
    if root.sha256 not in question.roots:
        hint = NO_LINE if problem else f'accepted by `trusted_roots = ["{root.sha256}"]`'
        return failed(check, expected, f"{root.subject_cn!r} with {root.sha256}", hint)
    if problem:
        return failed(check, "the root signed itself", problem, NO_LINE)
    return passed(check, expected, f"{root.subject_cn}, {root.sha256}")


def _intermediate(path: Path, links: Links) -> Step:
    check, expected = "certificate-intermediate", "ASK or ASVK is issued by the root"
    if path.intermediate is None:
        return open_(check, expected, "no ASK or ASVK was given that fits", FETCH)
    if path.root is None:
        return open_(check, expected, "there is no root to check it with", FETCH)
    problem = links.problem(path.intermediate, path.root)
    if problem:
        return failed(check, expected, problem, FETCH)
    return passed(check, expected, f"{path.intermediate.subject_cn} by {path.root.subject_cn}")


def _key(report: SnpReport, path: Path, links: Links) -> Step:
    check, expected = "certificate-key", "the report's key is issued by ASK or ASVK"
    if path.key is None:
        return open_(check, expected, f"no {report.signing_key.upper()} was given", FETCH)
    if path.intermediate is None:
        return open_(check, expected, "there is no ASK or ASVK to check it with", FETCH)
    wanted = SUBJECT.get(report.signing_key)
    if path.key.subject_cn != wanted:
        return failed(check, expected, f"a certificate of {path.key.subject_cn!r}", NO_LINE)
    if path.key.is_ca or path.key.key != certificates.P384:
        return failed(check, expected, f"a key {path.key.key} in an odd certificate", NO_LINE)
    problem = links.problem(path.key, path.intermediate)
    if problem:
        return failed(check, expected, problem, FETCH)
    return passed(check, expected, f"{wanted} by {path.intermediate.subject_cn}")


def _validity(question: Question, path: Path) -> Step:
    check, expected = "certificate-validity", f"all valid at {question.at.isoformat()}"
    for item in path.present:
        if not item.valid_at(question.at):
            return failed(
                check,
                expected,
                f"{item.subject_cn} is valid from {item.not_before.isoformat()}"
                f" to {item.not_after.isoformat()}",
                "a fresh certificate from the service, or from the host for a VLEK",
            )
    if len(path.present) < 3:
        return open_(check, expected, "the chain is not complete", FETCH)
    return passed(check, expected, f"until {min(i.not_after for i in path.present).isoformat()}")


def _platform(question: Question, path: Path) -> Step:
    check = "certificate-platform"
    marked = any(item.simulated for item in path.present)
    expected = "a simulated platform" if question.simulated else "no mark SIMULATED"
    if not path.present:
        return open_(check, expected, "no certificate")
    observed = "marked SIMULATED" if marked else "no mark SIMULATED"
    if marked == question.simulated:
        return passed(check, expected, observed)
    kind = "simulated" if marked else "real"
    return failed(check, expected, observed, f'accepted by `platform = "{kind}"`')


def _extensions(report: SnpReport, key: Certificate | None, line: str | None) -> Step:
    check, expected = "certificate-extensions", "what AMD writes into such a certificate"
    if key is None:
        return open_(check, expected, "no certificate for the report's key")
    try:
        said = vek_extensions.parse(key.extensions)
    except FormatError as error:
        return failed(check, expected, error.message, NO_LINE)
    if (report.signing_key == snp_report.VCEK) != (said.hwid is not None) or (
        report.signing_key == snp_report.VLEK
    ) != (said.csp_id is not None):
        return failed(check, expected, "chip id or provider id where the other belongs", NO_LINE)
    if line is None:
        return open_(check, expected, "the product line is not known")
    if said.struct_version != int(snp_tcb.has_fmc(line)):
        return failed(check, expected, f"version {said.struct_version} under {line}", NO_LINE)
    named = f"{said.product_name}, {said.csp_id}" if said.csp_id else said.product_name
    return passed(check, expected, named)


def _tcb(report: SnpReport, said: VekExtensions | None, line: str | None) -> Step:
    check, expected = "certificate-tcb", "the certificate is for the reported TCB"
    if said is None or line is None:
        return open_(check, expected, "no levels to compare")
    reported = snp_tcb.decode(report.reported_tcb, line)
    observed = f"certificate {said.tcb}, report {reported}"
    if not has_tcb(report, said, line):
        return failed(check, expected, observed, FETCH)
    if any(said.reserved) or not snp_tcb.reserved_zero(report.reported_tcb, line):
        return failed(check, expected, "levels where none are defined", NO_LINE)
    return passed(check, expected, str(reported))


def _chip(report: SnpReport, said: VekExtensions | None, line: str | None) -> Step:
    check, expected = "certificate-chip", "the certificate is for the report's chip"
    if said is None or line is None:
        return open_(check, expected, "no chip id to compare")
    if said.hwid is None:
        return open_(check, expected, "a VLEK belongs to a provider, not to one chip")
    if not any(report.chip_id):
        return open_(check, expected, "the host masks the chip id")
    wanted = 8 if snp_tcb.has_fmc(line) else 64
    if len(said.hwid) != wanted:
        return failed(check, expected, f"a chip id of {len(said.hwid)} bytes on {line}", NO_LINE)
    if report.chip_id != said.hwid.ljust(64, b"\0"):
        observed = f"certificate {said.hwid.hex()}, report {report.chip_id.hex()}"
        return failed(check, expected, observed, FETCH)
    return passed(check, expected, said.hwid.hex())


def _signature(report: SnpReport, key: Certificate | None, links: Links) -> Step:
    check, expected = "report-signature", "the report's bytes are signed by the certificate's key"
    problem = unsigned_problem(report)
    if problem:
        return failed(check, expected, problem, NO_LINE)
    if key is None:
        return open_(check, expected, f"no {report.signing_key.upper()} was given", FETCH)
    problem = links.signature_problem(report, key)
    if problem:
        return failed(check, expected, problem, NO_LINE)
    return passed(check, expected, f"signed by {key.sha256}")


def unsigned_problem(report: SnpReport) -> str:
    """Why ``report`` carries no signature that could be checked, as a sentence; else empty."""
    if report.signature_algo != snp_report.ECDSA_P384_SHA384:
        return f"signature algorithm {report.signature_algo} is not known"
    if report.chip_key_masked or report.signing_key == snp_report.UNSIGNED:
        return "the host had this report made without a signature"
    if report.signing_key == snp_report.RESERVED_KEY:
        return f"key_info {report.key_info:#x} names no signing key"
    if not (0 < report.signature_r < keys.P384_ORDER and 0 < report.signature_s < keys.P384_ORDER):
        return "R or S is no number of a P-384 signature"
    if any(report.raw[snp_report.SIGNATURE_END :]):
        return "bytes behind the signature are not zero"
    return ""


def _signature_problem(report: SnpReport, key: Certificate) -> str:
    if key.key != certificates.P384:
        return f"the certificate has a key {key.key}, not {certificates.P384}"
    signature = keys.signature_der(report.signature_r, report.signature_s)
    if keys.load_public(key.spki).verify(signature, report.signed):
        return ""
    return "the signature is not by this key over these bytes"

# SPDX-License-Identifier: Apache-2.0
"""Evidence of a guest gives its class, or a reason to refuse it.

Serves ``keybroker.routes``. The report's launch digest leads to the class whose
signed values name it; with those values, the class's own keys and the operator's
policy ``troth.verify`` then judges everything, as ``troth verify evidence`` does.
Must never accept what roots no boot chain, a policy that looks away, or a guest
of the other kind of platform (SECURITY S2, S15, S21, S23, S35).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import threading
import time
import tomllib
from typing import TYPE_CHECKING

from troth.abi import snp_report
from troth.documents import appraisal_policy_toml, kbs, kbs_evidence
from troth.documents.result import REAL, SIMULATED
from troth.documents.verdict import FAIL, PASS, PASS_SIMULATED
from troth.errors import FormatError, UsageError
from troth.keybroker import classes, store
from troth.record import record, replace
from troth.verify.endorsing import endorsements
from troth.verify.endorsing.endorsements import Endorsements
from troth.verify.endorsing.roots import AMD_ROOTS
from troth.verify.kinds import foreign

if TYPE_CHECKING:
    from pathlib import Path

    from troth.documents.appraisal_policy import AppraisalPolicy
    from troth.documents.kbs import AttestRequest
    from troth.documents.result import Result
    from troth.keybroker.classes import ImageClass
    from troth.keybroker.store import Store

ACCEPTED = "accepted"
EVIDENCE = "evidence-format"
UNKNOWN = "class-unknown"
NOT_ACTIVE = "class-not-active"
CHECKS = "checks-failed"
INIT_DATA = "init-data"
TEE = "tee-not-taken"

ROOTED = "boot-chain-rooted"
SIGNED = ("certificate-root", "certificate-intermediate", "certificate-key", "report-signature")
MAX_INIT_DATA_BYTES = 4096
MAX_INIT_DATA_LINE_BYTES = 512
"""A name of many parts costs the reader of TOML their square."""
CERTIFICATES_S = 60
"""How long certificates are used before the directory is read again."""
_TOLD_CHECKS = 8


@record
class Verdict:
    """``code``: ``ACCEPTED`` or why not; ``detail``: for the operator, never for the guest;
    ``image``, ``svn``: of the class, "" and 0 where there is none; ``signed``: whether a processor
    that the policy trusts has signed the report; the rest as the report says.
    """  # noqa: D205 - the fields are the summary

    code: str
    detail: str = ""
    image: str = ""
    svn: int = 0
    report_id: bytes = b""
    measurement: bytes = b""
    signed: bool = False

    @property
    def good(self) -> bool:
        """Whether the guest may have keys."""
        return self.code == ACCEPTED


@record
class StrictPolicy:
    """A policy that a broker may use: ``text`` as it was read, and what it says."""

    text: bytes
    policy: AppraisalPolicy

    @property
    def sha256(self) -> str:
        """Of the text, in hex."""
        return hashlib.sha256(self.text).hexdigest()


def strict_policy(text: bytes, *, where: str) -> StrictPolicy:
    """The policy in ``text``.

    Raises ``UsageError`` ``broker-policy`` where it is not strict; ``FormatError`` as
    ``appraisal_policy_toml.parse``.
    """
    policy = appraisal_policy_toml.parse(text, where=where)
    amd = {bytes.fromhex(value) for value in AMD_ROOTS.values()}
    wrong = hint = ""
    if policy.permissive:
        wrong, hint = "is permissive", "troth verify init-policy writes a strict one"
    elif policy.reference.allow_unsigned:
        wrong, hint = "takes values that nobody has signed", "allow_unsigned = false"
    elif policy.required.get("report-data") is False:
        wrong, hint = "does not ask for fresh evidence", "remove report-data from [required]"
    elif policy.platform != REAL and amd & set(policy.trusted_roots):
        wrong, hint = "trusts AMD's root for simulated guests", "name the simulated root only"
    if wrong:
        raise UsageError(
            "broker-policy",
            f"the policy {wrong}: no key goes out by it",
            where=where,
            hint=hint,
        )
    return StrictPolicy(text, policy)


def certificates(folder: Path, kind: str) -> Endorsements:
    """Certificates and lists in ``folder``.

    Raises ``UsageError``: ``certs-directory``, and ``broker-kind`` where one is of the
    other kind of platform.
    """
    found = endorsements.read_directory(folder)
    for item in found.certificates:
        if item.simulated is (kind == REAL):
            other = SIMULATED if item.simulated else REAL
            raise UsageError(
                "broker-kind",
                f"the certificate of {item.subject_cn} is {other}, this database {kind} for life",
                where=str(folder),
                hint="keep the certificates of simulated platforms in a directory of their own",
            )
    return found


class Appraiser:
    """Judges by ``policy``; ``folder``: where certificates are, None for those sent along only."""

    def __init__(self, kept: Store, policy: StrictPolicy, folder: Path | None) -> None:
        store.check_kind(kept, policy.policy.platform, "the policy")
        self._store = kept
        self._policy = policy
        self._folder = folder
        self._lock = threading.Lock()
        self._read_s = time.monotonic()
        self._endorsed = Endorsements(()) if folder is None else certificates(folder, kept.kind)

    def appraise(self, tee: str, request: AttestRequest, *, at: int) -> Verdict:
        """The verdict about evidence of a ``tee`` at ``at`` (seconds since 1970)."""
        if tee != kbs.SNP:
            return Verdict(TEE, f"{tee}: only {kbs.SNP} evidence is judged here")
        try:
            found = kbs_evidence.parse(request.evidence, where="evidence")
            report = snp_report.parse(found.report, where="evidence")
        except FormatError as error:
            return Verdict(EVIDENCE, f"[{error.code}] {error.message}")
        known = Verdict("", report_id=report.report_id, measurement=report.measurement)
        owner = classes.of_launch(self._store, report.measurement.hex())
        if owner is None:
            return replace(
                known, code=UNKNOWN, detail="no class has this launch digest: troth keybroker add"
            )
        known = replace(known, image=owner.image, svn=owner.svn)
        if owner.state != classes.ACTIVE:
            hint = " (troth keybroker add --activate)" if owner.state == classes.PENDING else ""
            return replace(known, code=NOT_ACTIVE, detail=f"the class is {owner.state}{hint}")
        given = self._given(owner)
        try:
            result = foreign.appraise(
                found,
                nonce=kbs.report_data(request)[: kbs.DIGEST_BYTES],
                given=given,
                subject=request.evidence,
                at=at,
            )
        except FormatError as error:
            return replace(known, code=EVIDENCE, detail=f"[{error.code}] {error.message}")
        verdict = _concluded(known, result)
        # Read last: it is the host's text until a signed HOST_DATA says otherwise.
        if verdict.good and request.init_data is not None:
            return _with_init_data(verdict, request.init_data, report.host_data)
        return verdict

    def _given(self, owner: ImageClass) -> foreign.Given:
        """What guests of the class ``owner`` are judged by: its keys, and no others, count."""
        keys = owner.public_keys()
        policy = self._policy.policy
        reference = replace(
            policy.reference,
            keys=tuple(bytes.fromhex(key.key_id) for key in keys),
            public_keys=(),
            allow_unsigned=False,
        )
        return foreign.Given(
            classes.read(owner),
            keys,
            self._endorsements(),
            replace(policy, reference=reference),
            self._policy.sha256,
        )

    def _endorsements(self) -> Endorsements:
        """Read again now and then: revocation lists end, and processors are added."""
        with self._lock:
            now = time.monotonic()
            if self._folder is not None and now - self._read_s >= CERTIFICATES_S:
                self._read_s = now
                # What is there was good; a directory that is being changed is looked at later.
                with contextlib.suppress(UsageError):
                    self._endorsed = certificates(self._folder, self._store.kind)
            return self._endorsed


def _concluded(known: Verdict, result: Result) -> Verdict:
    signed = all(result.check(name).verdict == PASS for name in SIGNED)
    known = replace(known, signed=signed)
    wanted = PASS if result.platform == REAL else PASS_SIMULATED
    if result.overall == wanted and result.check(ROOTED).verdict == PASS:
        return replace(known, code=ACCEPTED)
    bad = [
        item
        for item in result.checks
        if item.verdict == FAIL or (item.required and item.verdict != PASS)
    ]
    said = "; ".join(f"{item.code} {item.verdict}: {item.hint}" for item in bad[:_TOLD_CHECKS])
    more = f"; and {len(bad) - _TOLD_CHECKS} more" if len(bad) > _TOLD_CHECKS else ""
    return replace(known, code=CHECKS, detail=said + more)


def _with_init_data(verdict: Verdict, init_data: str, host_data: bytes) -> Verdict:
    """``verdict``, unless HOST_DATA is not the digest of ``init_data``."""
    data = init_data.encode()
    longest = max(len(line) for line in data.split(b"\n"))
    if len(data) > MAX_INIT_DATA_BYTES or longest > MAX_INIT_DATA_LINE_BYTES:
        most = f"{MAX_INIT_DATA_BYTES} bytes, {MAX_INIT_DATA_LINE_BYTES} a line"
        return replace(verdict, code=INIT_DATA, detail=f"it has more than {most}")
    if not _bound(data, host_data):
        return replace(verdict, code=INIT_DATA, detail="HOST_DATA is not its digest")
    return verdict


def _bound(data: bytes, host_data: bytes) -> bool:
    """Whether HOST_DATA is the digest of init-data, by the algorithm named inside it."""
    fitting = [
        name
        for name in kbs.HASH_ALGORITHMS
        if hmac.compare_digest(hashlib.new(name, data).digest()[: len(host_data)], host_data)
    ]
    if not fitting:
        return False
    try:
        return tomllib.loads(data.decode()).get("algorithm") in fitting
    except (tomllib.TOMLDecodeError, RecursionError):
        return False

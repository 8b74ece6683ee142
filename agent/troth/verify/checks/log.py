# SPDX-License-Identifier: Apache-2.0
"""Checks of what was measured after the launch: log, boot, registers.

Serves ``verify.evidence``. On platforms without a register of their own the log
is what the guest's root says, for its whole life; so what roots a verdict is
always the launch digest, and the log is held against what it vouches for. Must
never take a root hash or a policy for good because the log has it (source:
SECURITY S5, S26, S29, V-g, V-i, V-l, V-p).
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from troth.abi.hashes import zero
from troth.documents import event_log, policy_json
from troth.documents.event_log import CMDLINE, INSTANCE, POLICY, VERITY
from troth.documents.evidence import SOFTWARE, pcr_name, pcr_of
from troth.errors import FormatError
from troth.record import record
from troth.verify import replay
from troth.verify.checks.reference import UNKNOWN
from troth.verify.findings import NOTHING, words
from troth.verify.quote import STRONG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from troth.documents.evidence import Evidence
    from troth.documents.policy import Policy
    from troth.documents.reference_values import Case, ReferenceValues
    from troth.verify.checks.reference import Matched
    from troth.verify.findings import Findings
    from troth.verify.replay import Boot, Replay
    from troth.verify.seen import Seen

_UNREAD = "an event log that can be read"


@record
class Judged:
    """``replayed``: None where the log cannot be read; ``boot``: None where nothing predicts one;
    ``policy``: the guest's, where reference values vouch for its bytes, else None;
    ``instances``: contents of the events about the instance configuration.
    """  # noqa: D205 - the fields are the summary

    replayed: Replay | None
    boot: Boot | None
    policy: Policy | None
    instances: tuple[bytes, ...] = ()


def read(evidence: Evidence, matched: Matched) -> tuple[Judged, str]:
    """The log replayed and compared, and why it cannot be, "" where it can."""
    try:
        replayed = replay.replay(evidence.event_log)
    except FormatError as error:
        return Judged(None, None, None), f"[{error.code}] {error}"
    values, instances = matched.values, tuple(_verified(replayed, INSTANCE))
    if values is None:
        return Judged(replayed, None, None, instances), ""
    boot = replay.compare(replayed, values, cases(values, matched))
    return Judged(replayed, boot, _policy(replayed, values), instances), ""


def cases(values: ReferenceValues, matched: Matched) -> tuple[Case, ...]:
    """The boots that the matched launches lead to; all, where their digest covers no words."""
    lines = {
        (launch.form, launch.cmdline) for launch in matched.launches if "cmdline" in launch.covers
    }
    return tuple(case for case in values.cases if not lines or (case.form, case.cmdline) in lines)


def _verified(replayed: Replay, kind: str) -> Iterator[bytes]:
    """Contents of the records of ``kind`` that say something."""
    for item in replayed.records:
        if item.event.kind == kind and not item.unverified:
            yield item.event.content


def _policy(replayed: Replay, values: ReferenceValues) -> Policy | None:
    """policy.json as the guest measured it: its own bytes, once their digest is the expected."""
    for content in _verified(replayed, POLICY):
        if sha256(content).hexdigest() == values.policy_sha256:
            try:
                return policy_json.parse(content)
            except FormatError:
                return None
    return None


def log_checks(
    findings: Findings, evidence: Evidence, matched: Matched, judged: Judged, *,
    problem: str, seen: Seen | None, remembers: bool,
) -> None:  # fmt: skip
    """Checks from ``event-log`` to ``registers``.

    ``problem``: why the log cannot be read; ``seen``: what is remembered of the
    guest, where the verifier ``remembers`` anything at all.
    """
    replayed = judged.replayed
    if replayed is None:
        findings.judge("event-log", good=False, expected=_UNREAD, observed=problem)
        for name in ("log-rollback", "boot-events", "command-line", "root-hash", "registers"):
            findings.skip(name, expected=_UNREAD)
        return
    count, weak = len(replayed.records), _weak(replayed)
    findings.judge(
        "event-log",
        good=count == evidence.log_records and weak is None,
        expected=f"{evidence.log_records} records, each with a digest of SHA-256 or better",
        observed=f"{count} records{_also(judged.boot)}"
        + ("" if weak is None else f"; record {weak} has no such digest"),
    )
    _rollback(findings, replayed, seen, remembers=remembers)
    if matched.values is None or judged.boot is None:
        for name in ("boot-events", "command-line", "root-hash"):
            findings.skip(name, expected=UNKNOWN)
    else:
        _boot(findings, judged.boot)
        _command_line(findings, replayed, cases(matched.values, matched))
        _root_hash(findings, replayed, matched.values)
    _registers(findings, evidence, replayed, judged.boot)


def _weak(replayed: Replay) -> int | None:
    """The first record that no strong bank speaks of: nothing was measured by it (V-p)."""
    for place, item in enumerate(replayed.records):
        if not any(bank in STRONG for bank, _value in item.event.digests):
            return place
    return None


def _also(boot: Boot | None) -> str:
    parts = []
    if boot is not None and boot.runtime:
        parts.append(f"{boot.runtime} after the boot")
    if boot is not None and boot.unverified:
        parts.append(f"{boot.unverified} unverified")
    return f" ({', '.join(parts)})" if parts else ""


def _rollback(findings: Findings, replayed: Replay, seen: Seen | None, *, remembers: bool) -> None:
    name, count = "log-rollback", len(replayed.records)
    if not remembers:
        findings.skip(
            name, expected="nothing is remembered of guests", hint="--state DIR remembers them"
        )
        return
    if seen is None:
        findings.judge(
            name, good=True, expected="a log that grew", observed="the guest is seen the first time"
        )
        return
    shorter = count < seen.records
    same = not shorter and replay.software_at(replayed, seen.records) == seen.software
    observed = f"{count} records"
    if shorter:
        observed += ", fewer than before"
    elif not same:
        observed += f", and the first {seen.records} are not those seen before"
    findings.judge(
        name,
        good=same,
        expected=f"the {seen.records} records seen before, and more",
        observed=observed,
        hint=NOTHING + ": the guest's log went back",
    )


def _boot(findings: Findings, boot: Boot) -> None:
    difference = boot.difference
    if difference is None:
        case = boot.case
        findings.judge(
            "boot-events",
            good=True,
            expected="a boot that the reference values predict",
            observed=f"{case.form}, TPM {case.tpm}" if case is not None else "",
        )
        return
    findings.judge(
        "boot-events",
        good=False,
        expected=f"{difference.place}: {difference.expected}",
        observed=f"first difference: {difference.observed}",
        hint="the guest booted something else than the reference values are of",
    )


def _command_line(findings: Findings, replayed: Replay, allowed: tuple[Case, ...]) -> None:
    found = tuple(_verified(replayed, CMDLINE))
    texts = tuple(dict.fromkeys(case.cmdline for case in allowed))
    findings.judge(
        "command-line",
        good=len(found) == 1 and found[0] in {text.encode() for text in texts},
        expected=" | ".join(texts[:4]) or "none: no launch digest leads to one",
        observed=" | ".join(_text(content) for content in found[:4]) or "none",
        hint="values of variable keys are allowed by the manifest, at build",
    )


def _text(content: bytes) -> str:
    return content.decode("ascii") if event_log.is_text(content) else content.hex()


def _root_hash(findings: Findings, replayed: Replay, values: ReferenceValues) -> None:
    """Whether log and launch digest speak of one image; and whether the digest speaks at all."""
    rooted = findings.passed("boot-chain-rooted")
    wanted = [event_log.verity_content(name, value) for name, value in values.root_hashes]
    same_roots = list(_verified(replayed, VERITY)) == wanted
    policies = [sha256(content).hexdigest() for content in _verified(replayed, POLICY)]
    same_policy = policies == [values.policy_sha256]
    problems = []
    if not rooted:
        problems.append("no launch digest vouches for them")
    if not same_roots:
        problems.append("the log has other root hashes")
    if not same_policy:
        problems.append("the log has another policy")
    listed = [f"{name} {value}" for name, value in values.root_hashes]
    findings.judge(
        "root-hash",
        good=not problems,
        expected=f"{words(listed)}; policy {values.policy_sha256}",
        observed="; ".join(problems) or "those",
    )


def _registers(findings: Findings, evidence: Evidence, replayed: Replay, boot: Boot | None) -> None:
    problems = list(_unlike_log(evidence, replayed))
    expected = "what the log comes to"
    if boot is not None and boot.case is not None:
        expected += ", and what is predicted"
        problems += _unlike_prediction(evidence, replayed, boot, boot.case)
    names = [name for name, _value in evidence.registers]
    if boot is None and not problems:
        agree = f"the log comes to {words(names)}"
        findings.skip("registers", expected=UNKNOWN, observed=agree)
        return
    findings.judge(
        "registers",
        good=not problems,
        expected=expected,
        observed="; ".join(problems[:4]) or f"{words(names)} agree",
        hint="the log is not all that was measured, or is of another machine",
    )


def _unlike_log(evidence: Evidence, replayed: Replay) -> Iterator[str]:
    """Registers that the log does not explain; SHA-1 says nothing, and is not asked."""
    found = dict(evidence.registers)
    if SOFTWARE not in found:
        yield "the software register is missing"
    for name, value in evidence.registers:
        if name == SOFTWARE:
            if value != replayed.software:
                yield f"software: {value.hex()}, the log comes to {replayed.software.hex()}"
            continue
        key = pcr_of(name)
        if key is None:
            yield f"nobody knows a register {name}"
        elif key[0] in STRONG and (key in replayed.pcrs or key[1] in _OURS):
            wanted = replayed.pcrs.get(key, zero(key[0]))
            if value != wanted:
                yield f"{name}: {value.hex()}, the log comes to {wanted.hex()}"


_OURS = (*replay.BOOT_PCRS, event_log.RUNTIME_PCR)


def _unlike_prediction(
    evidence: Evidence, replayed: Replay, boot: Boot, case: Case
) -> Iterator[str]:
    """What of the image's own boot has other values than the reference values hold."""
    own = replay.boot_pcrs(replayed, boot)
    predicted = replay.predicted_pcrs(case)
    for bank, index in sorted(set(own) & set(predicted)):
        if own[bank, index] != predicted[bank, index]:
            yield f"{pcr_name(bank, index)}: predicted is {predicted[bank, index].hex()}"
    for name, value in evidence.registers:
        key = pcr_of(name)
        # What firmware and loader measured is in no log of ours.
        if key is None or key in own or key[0] not in STRONG:
            continue
        if value != predicted.get(key, value):
            yield f"{name}: predicted is {predicted[key].hex()}"
    if replay.boot_software(replayed, boot) != bytes.fromhex(case.handover.software):
        yield f"software: predicted is {case.handover.software} at the handover"
    if case.tpm != "present":
        return
    read = {pcr_of(name) for name, _value in evidence.registers}
    if evidence.tpm is not None:
        read |= {(value.bank, value.index) for value in evidence.tpm.pcrs}
    strong = {key[1] for key in read if key is not None and key[0] in STRONG}
    missing = sorted({index for _bank, index in predicted} - strong)
    if missing:
        yield f"PCR {words(missing)} in no bank of SHA-256 or better"

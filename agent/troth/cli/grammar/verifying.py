# SPDX-License-Identifier: Apache-2.0
"""Verbs of the relying party: verify, certs, explain."""

from __future__ import annotations

from troth.cli.grammar.shape import JSON, STATUS, Option, Positional, Verb

#: Of evidence; ``cli.verify_evidence`` has what judges each.
FORMATS = ("troth", "kbs-snp", "az-snp-vtpm")

VERIFY_INIT_POLICY = Verb(
    words=("verify", "init-policy"),
    function="troth.cli.verify_policy:init_policy",
    summary="write a commented verification policy",
    description="Writes a strict policy with dated TCB floors. Whatever it refuses, the hint of "
    "the failed check names the one line that would accept it.",
    options=(
        Option(
            ("--permissive",),
            "check signature, chain and certificates only; the verdict is never more than partial",
        ),
        Option(("--simulated",), "for guests of the simulated platform"),
        Option(
            ("--accept-unprotected-acpi",),
            "accept images whose kernel runs the host's ACPI code",
        ),
        Option(("--output", "-o"), "the file to write", metavar="FILE", kind="file", required=True),
    ),
)

VERIFY_REPORT = Verb(
    words=("verify", "report"),
    function="troth.cli.verify_report:report",
    summary="judge an SNP attestation report",
    description="Judges the report's bytes by the policy, offline. Every check is named with its "
    "verdict: pass, fail or not-checked.",
    positionals=(
        Positional("file", "the report, or the agent's answer that holds it", "FILE", kind="file"),
    ),
    options=(
        Option(("--certs",), "the certificates", metavar="DIR", kind="directory", required=True),
        Option(("--policy",), "the policy", metavar="FILE", kind="file", required=True),
        Option(("--nonce",), "the nonce the report was asked with", metavar="HEX"),
        Option(("--user-data",), "the user data the report was asked with", metavar="HEX"),
        Option(("--report-data",), "the 64 bytes REPORT_DATA must hold", metavar="HEX"),
        Option(("--at",), "the time to judge at; now where not given", metavar="RFC3339"),
        Option(("--accept-simulated",), "succeed with the verdict pass-simulated"),
        JSON,
    ),
    status=(
        (0, "no check failed and every required check passed"),
        (1, "a check failed, a required one was not made, or the platform is simulated"),
        *STATUS[2:],
    ),
)

VERIFY_EVIDENCE = Verb(
    words=("verify", "evidence"),
    function="troth.cli.verify_evidence:verify",
    summary="judge the evidence of a guest: report, event log, registers, quote, channel",
    description="Judges by reference values and policy, offline. Every check is named with its "
    "verdict: pass, fail or not-checked; a guest that booted something else is told with the "
    "first event that differs.",
    positionals=(Positional("file", "the evidence", "FILE", kind="file"),),
    options=(
        Option(
            ("--reference",),
            "reference values, signed, or a bundle directory; other projects' forms go without",
            metavar="FILE",
            kind="file",
        ),
        Option(
            ("--key",),
            "public key of a signer that the policy names by its id",
            metavar="FILE",
            kind="file",
            repeat=True,
        ),
        Option(("--policy",), "the policy", metavar="FILE", kind="file", required=True),
        Option(("--nonce",), "the nonce the evidence was asked with", metavar="HEX", required=True),
        Option(("--user-data",), "the user data it must bind", metavar="HEX"),
        Option(
            ("--channel-key",),
            "the key of the channel to the guest: certificate, public key, or SHA-256 in hex",
            metavar="FILE",
            kind="file",
        ),
        Option(
            ("--instance",),
            "the instance configuration that it was launched with",
            metavar="FILE",
            kind="file",
        ),
        Option(
            ("--certs",),
            "certificates beside those in the evidence",
            metavar="DIR",
            kind="directory",
        ),
        Option(
            ("--state",),
            "remember guests here, so that a log that went back is noticed",
            metavar="DIR",
            kind="directory",
        ),
        Option(
            ("--format",), "who made the evidence", metavar="FORM", choices=FORMATS, default="troth"
        ),
        Option(("--at",), "the time to judge at; now where not given", metavar="RFC3339"),
        Option(("--accept-simulated",), "succeed with the verdict pass-simulated"),
        JSON,
    ),
    status=VERIFY_REPORT.status,
)

EXPLAIN = Verb(
    words=("explain",),
    function="troth.cli.explain:explain",
    summary="say what a result means and what to do",
    description="Reads a result that 'verify --json' printed and says in sentences what each "
    "check means, why it failed, and which line of a policy would accept it.",
    positionals=(Positional("result", "the result", "RESULT", kind="file"),),
)

CERTS_FETCH = Verb(
    words=("certs", "fetch"),
    function="troth.cli.certs:fetch",
    summary="fetch the certificates of a report from AMD's key distribution service",
    description="Fills DIR with the chain, the chip's certificate and the revocation list. What "
    "is in the cache is not asked for again; the service's rate limit is kept.",
    positionals=(Positional("directory", "where they go", "DIR", kind="directory"),),
    options=(
        Option(("--report",), "the report to fetch for", metavar="FILE", kind="file"),
        Option(("--service",), "another service that speaks the same", metavar="URL"),
        Option(("--cache",), "the cache directory", metavar="DIR", kind="directory"),
    ),
)

VERBS = (VERIFY_INIT_POLICY, VERIFY_REPORT, VERIFY_EVIDENCE, CERTS_FETCH, EXPLAIN)

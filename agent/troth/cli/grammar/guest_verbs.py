# SPDX-License-Identifier: Apache-2.0
"""Verbs that speak to a guest's own secure processor or agent."""

from __future__ import annotations

from troth.cli.grammar.shape import JSON, STATUS, Option, Verb

REPORT = Verb(
    words=("report",),
    function="troth.cli.report:report",
    summary="ask the secure processor for an attestation report",
    description="Runs inside a guest. The report's REPORT_DATA binds the nonce and the user data "
    "by the rule troth-report-v1; 'troth verify report' recomputes it. The guest's agent is asked "
    "where one answers; with --provider or --vmpl, or without an agent, the kernel, which only "
    "root may, at most once in two seconds.",
    options=(
        Option(
            ("--nonce",),
            "16 to 64 bytes from whoever will verify the report",
            metavar="HEX",
            required=True,
        ),
        Option(("--user-data",), "bytes to bind besides the nonce", metavar="HEX"),
        Option(
            ("--format",),
            "bin: the 1184 bytes (default); hex; json: with certificates and binding",
            metavar="FORMAT",
            choices=("bin", "hex", "json"),
        ),
        Option(("--output", "-o"), "write to FILE", metavar="FILE", kind="file"),
        Option(("--socket",), "ask the agent behind this socket", metavar="PATH", kind="file"),
        Option(
            ("--provider",),
            "ask this one; else configfs-tsm, or sev-guest where that is missing",
            metavar="NAME",
            choices=("configfs-tsm", "sev-guest"),
        ),
        Option(
            ("--vmpl",),
            "ask for this level, 0 to 3; the guest's own where not given",
            metavar="N",
            choices=("0", "1", "2", "3"),
        ),
    ),
    status=STATUS,
)

EVIDENCE = Verb(
    words=("evidence",),
    function="troth.cli.evidence:evidence",
    summary="ask the guest's agent for evidence: log, registers, quote, and the report over them",
    description="Runs inside a guest, and asks its agent. The report's REPORT_DATA binds all that "
    "is in the document, the nonce and the caller as the agent saw it, by the rule "
    "troth-evidence-v1; 'troth verify evidence' judges it.",
    options=(
        Option(
            ("--nonce",),
            "16 to 64 bytes from whoever will verify the evidence",
            metavar="HEX",
            required=True,
        ),
        Option(("--user-data",), "bytes to bind besides the nonce", metavar="HEX"),
        Option(
            ("--channel-key-sha256",),
            "SHA-256 of the SPKI (DER) of the key that a channel to this guest proves",
            metavar="HEX",
        ),
        Option(("--output", "-o"), "write to FILE", metavar="FILE", kind="file"),
        Option(("--socket",), "socket of the agent", metavar="PATH", kind="file"),
    ),
    status=STATUS,
)

EXTEND = Verb(
    words=("extend",),
    function="troth.cli.guest_agent:extend",
    summary="add an event of an application to the guest's log",
    description="Runs inside a guest, and asks its agent: only whom [attest] extend of the image's "
    "manifest names may. The event begins with the caller's user, group and unit, as the agent saw "
    "them.",
    options=(
        Option(
            ("--event",),
            "type of the event: 1 to 64 of a-z 0-9 . -",
            metavar="TYPE",
            required=True,
        ),
        Option(
            ("--data",),
            "file of at most 1024 bytes that are the event; - for standard input",
            metavar="F",
            kind="file",
            required=True,
        ),
        Option(("--socket",), "socket of the agent", metavar="PATH", kind="file"),
        JSON,
    ),
    status=STATUS,
)

MEASUREMENTS = Verb(
    words=("measurements",),
    function="troth.cli.guest_state:measurements",
    summary="replay the guest's event log, and hold it against the TPM",
    description="Runs inside a guest. The agent is asked where one answers; else the log is "
    "replayed here and the TPM is read, which only root may. Status 1 where a register differs.",
    options=(JSON,),
    status=STATUS,
)

STATE = Verb(
    words=("status",),
    function="troth.cli.guest_state:status",
    summary="say how this guest was booted, and whether its agent runs",
    description="Runs inside a guest: image, policy, volumes, stages of the boot, agent.",
    options=(JSON,),
    status=STATUS,
)

VERBS = (REPORT, EVIDENCE, EXTEND, MEASUREMENTS, STATE)

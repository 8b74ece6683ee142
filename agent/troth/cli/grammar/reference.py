# SPDX-License-Identifier: Apache-2.0
"""Verbs around reference values: show, sign, check, export."""

from __future__ import annotations

from troth.cli.grammar.shape import JSON, STATUS, Option, Positional, Verb

_FILE = Positional(
    "file", "reference values, signed or not, or the bundle directory", "FILE", kind="file"
)
_KEY = Option(
    ("--key",),
    "accept signatures of this public key (P-384 or Ed25519, PEM)",
    metavar="PEM",
    kind="file",
    repeat=True,
)
_UNSIGNED = Option(("--allow-unsigned",), "accept values that nobody has signed")
_AT = Option(("--at",), "the time to judge at; now where not given", metavar="RFC3339")

REFERENCE_SHOW = Verb(
    words=("reference", "show"),
    function="troth.cli.reference_show:show",
    summary="print what a guest of an image must show",
    description="Prints reference values for people. Nothing is verified; 'reference check' does.",
    positionals=(_FILE,),
    options=(JSON,),
)

REFERENCE_SIGN = Verb(
    words=("reference", "sign"),
    function="troth.cli.reference_sign:sign",
    summary="sign reference values",
    description="Wraps the values, with the time of signing, expiry and origin, in an in-toto "
    "statement and a DSSE envelope. Signatures are deterministic. --expires or --valid-days is "
    "needed.",
    positionals=(_FILE,),
    options=(
        Option(
            ("--key",),
            "private key to sign with (P-384 or Ed25519, PEM); public with --signature",
            metavar="PEM",
            kind="file",
            repeat=True,
        ),
        Option(("--issued",), "time of signing; now where not given", metavar="RFC3339"),
        Option(
            ("--expires",),
            "when the values lose their force; 'never' must be said",
            metavar="RFC3339",
        ),
        Option(
            ("--valid-days",), "expire so many days after --issued", metavar="N", kind="integer"
        ),
        Option(("--commit",), "the source's commit, to be stated", metavar="HEX"),
        Option(
            ("--revoke",),
            "a launch digest of this image that must not be accepted any more",
            metavar="HEX",
            repeat=True,
        ),
        Option(
            ("--detached",),
            "write the bytes that a key must sign, for keys that live elsewhere",
        ),
        Option(
            ("--signature",),
            "a signature made elsewhere over what --detached wrote, one for each --key",
            metavar="FILE",
            kind="file",
            repeat=True,
        ),
        Option(
            ("--output", "-o"), "the envelope to write", metavar="FILE", kind="file", required=True
        ),
    ),
)

REFERENCE_CHECK = Verb(
    words=("reference", "check"),
    function="troth.cli.reference:check",
    summary="verify signature, dates and contents of reference values",
    description="Succeeds where a given key has signed the values, they are in force, and, with "
    "--bundle, equal what is computed from the bundle anew. Prints one line for each check; what "
    "was not checked is said, and makes the verdict partial.",
    positionals=(_FILE,),
    options=(
        _KEY,
        _UNSIGNED,
        _AT,
        Option(
            ("--bundle",),
            "compute everything from this bundle and compare",
            metavar="DIR",
            kind="directory",
        ),
        Option(("--min-svn",), "refuse an older image", metavar="N", kind="integer"),
        JSON,
    ),
    status=((0, "no check failed: the verdict is pass or partial"), *STATUS[1:]),
)

REFERENCE_EXPORT = Verb(
    words=("reference", "export"),
    function="troth.cli.reference:export",
    summary="print reference values in another verifier's form",
    description="Writes the values in the form that Trustee's Reference Value Provider Service "
    "takes. What that form cannot hold is named on standard error.",
    positionals=(_FILE,),
    options=(
        Option(
            ("--form",),
            "the form",
            metavar="FORM",
            choices=("rvps",),
            default="rvps",
        ),
        _KEY,
        _UNSIGNED,
        _AT,
        Option(
            ("--output", "-o"), "the file to write; standard output where not given",
            metavar="FILE", kind="file",
        ),
    ),
)  # fmt: skip

VERBS = (REFERENCE_SHOW, REFERENCE_SIGN, REFERENCE_CHECK, REFERENCE_EXPORT)

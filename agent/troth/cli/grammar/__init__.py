# SPDX-License-Identifier: Apache-2.0
"""Every verb, option and argument of ``troth``: data, said once.

Serves ``cli.main`` (parser and dispatch), ``cli.man`` and ``cli.completion``,
which therefore cannot disagree. Names are fixed by DESIGN section 8. One module
a theme, each with its ``VERBS``. Must hold no logic and import no verb.
"""

from __future__ import annotations

from troth.cli.grammar import (
    brokers,
    guest_verbs,
    images,
    measuring,
    reference,
    verifying,
    volumes,
)
from troth.cli.grammar.shape import DEBUG, JSON, STATUS, Option, Positional, Verb

__all__ = ["DEBUG", "GLOBAL", "GROUPS", "JSON", "STATUS", "VERBS", "Option", "Positional", "Verb"]

#: Understood without a verb.
GLOBAL = (
    Option(("--version",), "print the version"),
    Option(("--help", "-h"), "print help, of a verb where one is given"),
    Option(("--man",), "print the manual page, of a verb where one is given (roff)"),
    Option(
        ("--completion",),
        "print the completion script of a shell",
        metavar="SHELL",
        choices=("bash", "zsh"),
    ),
    DEBUG,
)

#: What the first word of a two-word verb stands for.
GROUPS = {
    "verity": "make and check dm-verity trees",
    "pcr": "predict and replay PCR values",
    "measure": "compute what the hardware will measure",
    "igvm": "make and sign IGVM files",
    "reference": "show, sign, check and export reference values",
    "verify": "judge what a guest says of itself",
    "volume": "check and make encrypted volumes",
    "certs": "get the certificates a verifier needs",
    "keybroker": "give keys to guests whose evidence is good",
}

VERBS = (
    *images.VERBS,
    *measuring.VERBS,
    *reference.VERBS,
    *verifying.VERBS,
    *brokers.VERBS,
    *volumes.VERBS,
    *guest_verbs.VERBS,
)

# SPDX-License-Identifier: Apache-2.0
"""Reference values in the form of Trustee's Reference Value Provider Service.

Serves ``troth reference export``. The form is a message around the base64 of
one JSON object, name -> list of values ("sample" extractor). It holds nothing
but values: conditions, dates and choices are lost, and ``losses`` names them.
Must never export a revoked digest.

Source: confidential-containers/trustee, ``rvps/README.md`` (message version
0.1.0) and ``rvps/src/extractors/sample``; the name ``snp_launch_measurement``
is that of its default policy, ``ear_default_policy_cpu.rego``.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from troth.documents import strict
from troth.documents.reference_values import NEVER
from troth.errors import UsageError

if TYPE_CHECKING:
    from troth.documents.reference_values import ReferenceValues

MESSAGE_VERSION = "0.1.0"
EXTRACTOR = "sample"
MEASUREMENT = "snp_launch_measurement"


def message(values: ReferenceValues) -> bytes:
    """The message to register; ``UsageError`` ``reference-empty`` without a launch in force.

    Each digest stands in hex and in base64: releases of Trustee differ in how
    they spell the claim that the policy compares, and both mean the same bytes.
    """
    digests = [value.digest for value in values.in_force]
    if not digests:
        raise UsageError(
            "reference-empty",
            "no launch digest is in force, and this form holds nothing else",
            hint="build with [image] igvm = true or [launch] ovmf",
        )
    spelled = [*digests, *(base64.b64encode(bytes.fromhex(text)).decode() for text in digests)]
    payload = base64.b64encode(strict.canonical({MEASUREMENT: spelled})).decode()
    return strict.pretty({"version": MESSAGE_VERSION, "type": EXTRACTOR, "payload": payload})


def losses(values: ReferenceValues) -> tuple[str, ...]:
    """What ``values`` say and the message does not, one sentence each."""
    policies = sorted({f"{value.policy:#x}" for value in values.in_force})
    found = [
        "conditions of each digest (processors, memory, firmware, command line)",
        f"the guest policy ({', '.join(policies)}): demand debug and migration off elsewhere",
        f"svn {values.svn}: an older image is refused only where its digests are deleted",
        "root hashes, policy digest, PCRs and the software register",
        "flags (ACPI, lockdown, self-tests, overlay, simulation)",
    ]
    if values.expires and values.expires != NEVER:
        found.append(f"the expiry {values.expires}: delete the values at that time")
    if values.revoked:
        found.append(f"{len(values.revoked)} revoked digests: delete them where they stand")
    if values.products:
        found.append(f"products ({', '.join(values.products)})")
    experimental = sorted({item.experimental for item in values.in_force if item.experimental})
    found += [f"the warning {text!r}" for text in experimental]
    if any(not item.roots_boot_chain for item in values.in_force):
        found.append("that some digests do not cover kernel, initramfs and command line")
    return tuple(found)

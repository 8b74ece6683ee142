# SPDX-License-Identifier: Apache-2.0
"""``troth verify init-policy``: write a verification policy to start from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from troth.errors import UsageError
from troth.verify.policy_text import policy_text

if TYPE_CHECKING:
    from typing import Protocol

    class InitPolicyOptions(Protocol):
        """What the grammar gives to ``init_policy``."""

        permissive: bool
        simulated: bool
        accept_unprotected_acpi: bool
        output: str


def init_policy(options: InitPolicyOptions) -> int:
    """Write the file; one that is there already is somebody's policy and stays.

    Raises ``UsageError`` ``verify-policy-exists``, ``verify-policy-file``.
    """
    path = Path(options.output)
    text = policy_text(
        permissive=options.permissive,
        simulated=options.simulated,
        unprotected_acpi=options.accept_unprotected_acpi,
    )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(
            "verify-policy-exists",
            "the file is there already and was left alone",
            where=str(path),
            hint="name another file, or remove this one first",
        ) from None
    except OSError as error:
        raise UsageError(
            "verify-policy-file", f"cannot be written: {error.strerror}", where=str(path)
        ) from None
    sys.stdout.write(f"{path}: {_next_step(options)}\n")
    return 0


def _next_step(options: InitPolicyOptions) -> str:
    if options.simulated:
        return (
            "put the simulated platform's root into trusted_roots, and for evidence the builder's "
            "key into [reference] public_keys"
        )
    if options.permissive:
        return "its verdict is never more than partial"
    return (
        "put your launch digests into [launch] measurements, or for evidence the builder's key "
        "into [reference] public_keys"
    )

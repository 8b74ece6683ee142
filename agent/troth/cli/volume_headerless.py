# SPDX-License-Identifier: Apache-2.0
"""``troth volume format --format headerless``: the place where it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from troth.errors import UsageError

if TYPE_CHECKING:
    from troth.cli.volume_format import Options


def format_(options: Options) -> NoReturn:
    """Refuse: ``UsageError`` ``not-in-this-version``."""
    raise UsageError(
        "not-in-this-version",
        f"--format {options.format} is not built yet",
        hint="--format luks2",
    )

# SPDX-License-Identifier: Apache-2.0
"""The file that ``--instance`` names, judged as the guest will judge it.

Serves ``troth run`` and ``troth pcr``: a file that no guest of the image would
take is refused before anything is started or computed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from troth.documents import instance
from troth.documents.instance_disk import MAX_BYTES
from troth.errors import FormatError, UsageError

if TYPE_CHECKING:
    from troth.documents.policy import InstanceRules


def read(name: str, rules: InstanceRules | None) -> bytes:
    """The bytes of the file ``name``, which ``rules`` of the image's policy allow.

    Raises ``UsageError`` ``instance-file``, ``instance-refused``; ``FormatError``
    ``json-*``, ``instance-form``, ``instance-policy``.
    """
    try:
        with Path(name).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError("instance-file", error.strerror or str(error), where=name) from None
    if not 0 < len(data) <= MAX_BYTES:
        raise UsageError("instance-file", f"empty, or over {MAX_BYTES} bytes", where=name)
    if rules is None:
        raise UsageError(
            "instance-refused",
            "the image takes no instance configuration",
            where=name,
            hint="its manifest would say so in [instance]",
        )
    try:
        instance.judge(instance.parse(data, where=name), rules, where=name)
    except FormatError as error:
        hint = error.hint or "docs/instance.md shows such a file; [instance] says what it may hold"
        raise FormatError(error.code, error.message, where=error.where, hint=hint) from None
    return data

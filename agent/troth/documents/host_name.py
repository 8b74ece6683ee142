# SPDX-License-Identifier: Apache-2.0
"""Names of hosts, in the one spelling that troth takes: lower case, no final dot.

Serves the instance configuration. Must never resolve a name. Source: RFC 1123,
section 2.1 (labels), RFC 1035, section 2.3.4 (lengths).
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 253
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def is_host_name(text: str, *, max_characters: int = MAX_CHARACTERS) -> bool:
    """Whether ``text`` is one."""
    return len(text) <= max_characters and _NAME.fullmatch(text) is not None

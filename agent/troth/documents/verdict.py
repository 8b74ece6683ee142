# SPDX-License-Identifier: Apache-2.0
"""The words in which something is judged, one check or the whole.

Serves every document and verb that judges, so that one word means one thing in
all of them. "Not checked" is a word of its own: what was left out must never look like
what passed. Pure.
"""

from __future__ import annotations

PASS = "pass"  # noqa: S105 - a verdict, no secret
FAIL = "fail"
NOT_CHECKED = "not-checked"

PARTIAL = "partial"
"""Of the whole: nothing failed, and not everything that matters was looked at."""

PASS_SIMULATED = "pass-simulated"  # noqa: S105 - likewise
"""Of the whole: all passed, on a platform that protects nothing from its host."""

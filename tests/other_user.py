# SPDX-License-Identifier: Apache-2.0
"""Becoming somebody else in a test, where that can work."""

import os
import sys
from pathlib import Path

import pytest


def need_another_user() -> None:
    """Skip unless this is root and anybody may read the checkout and its interpreter."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    for start in (Path(__file__), Path(sys.executable).absolute()):
        for folder in start.parents:
            if not folder.stat().st_mode & 0o001:
                pytest.skip(f"needs a checkout that others may read: {folder} is closed to them")

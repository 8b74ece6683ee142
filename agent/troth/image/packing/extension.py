# SPDX-License-Identifier: Apache-2.0
"""Compiled parts of Python packages that the builder's own environment has.

Serves ``initramfs``, for the ``extensions`` of a profile. Packed alone, without the
package's Python: inside an image the package is then a namespace with one module
in it, and the import statement in our code is the same everywhere. Must never
pack what was compiled for another interpreter than the image's.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from troth.errors import BuildError
from troth.image.packing.python_closure import PythonModule, check_compiled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from troth.image.inputs.interpreter import Interpreter
    from troth.image.packing.profile import Profile

_HINT = "scripts/setup installs it; by hand: pip install 'troth[tpm]'"


def of_profiles(profiles: Sequence[Profile], interpreter: Interpreter) -> tuple[PythonModule, ...]:
    """The ``extensions`` of all ``profiles``. Raises as ``find`` does."""
    return tuple(
        find(name, interpreter, why=f"profile {profile.name}")
        for profile in profiles
        for name in profile.extensions
    )


def find(name: str, interpreter: Interpreter, *, why: str) -> PythonModule:
    """The extension module ``name``, with its place below the library directory.

    Raises ``BuildError``: ``extension-missing``, ``extension-version``.
    """
    place: Sequence[str] | None = None
    spec = None
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        # Without running any of it: a package's own imports are not wanted here.
        spec = PathFinder.find_spec(".".join(parts[:end]), place)
        if spec is None:
            raise BuildError(
                "extension-missing", f"{name} is not installed beside troth", hint=_HINT
            )
        place = spec.submodule_search_locations or ()
    origin = Path((spec and spec.origin) or "")
    check_compiled(name, origin, interpreter)
    return PythonModule(
        name, "extension", origin, "/".join((*parts[:-1], origin.name)), f"python: {why}"
    )

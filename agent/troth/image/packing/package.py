# SPDX-License-Identifier: Apache-2.0
"""Python packages of others, of which an image takes the modules that are imported.

Serves ``initramfs``, for the ``packages`` of a profile. The package's own
``__init__``, which imports all of it, is neither run nor packed: inside an image the
package is a namespace with the wanted modules in it, and the import statement in our
code is the same everywhere. Must never run any of it in the builder.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from troth.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from troth.image.packing.profile import Profile


def of_profiles(profiles: Sequence[Profile]) -> dict[str, Path]:
    """The places of the ``packages`` of all ``profiles``, by name. Raises as ``find``."""
    return {name: find(name) for profile in profiles for name in profile.packages}


def find(name: str) -> Path:
    """The directory of the package ``name``, or the file of that compiled module.

    Raises ``BuildError`` ``package-missing``.
    """
    spec = PathFinder.find_spec(name)
    if spec is not None and (spec.origin or "").endswith(".so"):
        return Path(spec.origin or "").resolve()
    if spec is None or not spec.submodule_search_locations:
        raise BuildError(
            "package-missing",
            f"the package {name} is not installed beside troth",
            hint=f"scripts/setup installs it; by hand: pip install {name}",
        )
    return Path(next(iter(spec.submodule_search_locations))).resolve()

# SPDX-License-Identifier: Apache-2.0
"""Makes ``cryptography`` do signatures where only its compiled half was packed.

Serves the modules here that handle certificates in a guest. The library imports
its old backend, and with it all of its own package, whenever an ECDSA signature
is made or checked, to ask a question that only deterministic signatures need.
Images carry the compiled half and the few modules that our code imports, so a
name without anything in it stands there. Must never take the place of the
backend where there is one.

Source: cryptography 50, hazmat/primitives/asymmetric/ec.py, ``ECDSA.__init__``.
"""

from __future__ import annotations

import sys

_BACKEND = "cryptography.hazmat.backends.openssl.backend"


class _Nothing:
    """What the library imports and then does not use."""

    backend = None


def complete() -> None:
    """Call before anything that signs with, or checks, an ECDSA signature."""
    if _BACKEND in sys.modules:
        return
    try:
        # By name: an import statement would have it packed.
        __import__(_BACKEND)
    except ModuleNotFoundError:
        # The table takes any object; typeshed says modules only.
        sys.modules[_BACKEND] = _Nothing  # type: ignore[assignment]

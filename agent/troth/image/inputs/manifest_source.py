# SPDX-License-Identifier: Apache-2.0
"""troth.toml as text: the errors of a manifest, with the code of each.

Serves ``image.inputs.manifest``. Must give no key a meaning: that is the manifest's.
"""

from __future__ import annotations

from troth.documents import toml_source
from troth.errors import ManifestError


def read_source(data: bytes, name: str) -> toml_source.Source:
    """The manifest in ``data``; ``ManifestError`` ``manifest-syntax`` where it is not TOML."""
    return toml_source.read_source(data, name, refuse=refuse)


def refuse(kind: str, message: str, where: str, hint: str) -> ManifestError:
    """The error of a ``kind`` that ``toml_source`` met."""
    code = "manifest-value"
    if kind == "syntax":
        code = "manifest-syntax"
    elif kind == "unknown-key":
        code = "manifest-unknown-key"
    elif kind == "missing-key":
        code = "manifest-missing-key"
    elif kind == "type":
        code = "manifest-type"
    return ManifestError(code, message, where=where, hint=hint)

# SPDX-License-Identifier: Apache-2.0
"""policy.json as bytes: canonical printing, and reading on machines that do not trust it."""

from __future__ import annotations

from troth.documents import strict
from troth.documents.policy import SCHEMA, Policy, from_tree, to_tree
from troth.errors import FormatError


def print_(policy: Policy) -> bytes:
    """Canonical JSON (RFC 8785), the bytes that the ``policy`` event measures."""
    return strict.canonical(to_tree(policy))


def parse(data: bytes, *, where: str = "policy.json") -> Policy:
    """The policy in ``data``.

    Strict by construction: the tree must have every field with its type, and
    printing the result must give ``data`` back, so nothing unknown, repeated
    or oddly spelled passes. ``FormatError`` ``json-*`` or ``policy-form``.
    """
    tree = strict.parse(data, where=where)
    reader = strict.Reader(tree, where=where)
    reader.text("schema", allowed=(SCHEMA,))
    try:
        policy = from_tree(tree)  # type: ignore[arg-type]
        again = print_(policy)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(
            "policy-form", f"a field is missing or odd: {error}", where=where
        ) from None
    if again != data:
        raise FormatError("policy-form", "not the canonical form of a policy", where=where)
    return policy

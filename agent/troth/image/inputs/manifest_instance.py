# SPDX-License-Identifier: Apache-2.0
"""``[instance]``: what a launch may choose for one guest, by a file outside the image.

Serves ``image.inputs.manifest`` only. What stands here is measured, what it
allows is not: so it bounds names, places and words, and there is no key for
an identity, a root of trust or a command. Every refusal names the key and its
line; none looks at the file system.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from troth.documents.instance_network import METHODS
from troth.documents.policy import OPTIONAL, REQUIRED, InstanceRules
from troth.documents.toml_source import nearest
from troth.image.inputs import manifest_rules as rules

if TYPE_CHECKING:
    from troth.documents.toml_source import Table

KEYS = ("need", "hostname", "network", "brokers", "values")
#: Stands in the place of a list of words.
ANY = "any"

MAX_BROKERS = 8
MAX_VALUES = 64
MAX_WORDS = 64
_VALUE_NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}", re.ASCII)
_WORD = re.compile(r"[!-~]{1,256}")


def instance(table: Table, *, snp: str) -> InstanceRules:
    """The table, which is there; it must allow something."""
    if snp == "none":
        raise table.fail(
            "need",
            "has no meaning with snp = none: only a report's HOST_DATA says which"
            " configuration the launch names",
            code="manifest-conflict",
        )
    found = InstanceRules(
        need=table.text("need", REQUIRED, allowed=(REQUIRED, OPTIONAL)),
        hostname=table.boolean("hostname", default=False),
        network=_network(table),
        brokers=_brokers(table),
        values=_values(table),
    )
    if not (found.hostname or found.network or found.brokers or found.values):
        raise table.fail(
            "need",
            "stands there, but nothing may be configured",
            code="manifest-missing-key",
            hint="allow something: hostname = true, network, brokers or values",
        )
    return found


def _network(table: Table) -> tuple[str, ...]:
    found = table.texts("network")
    for method in found:
        if method not in METHODS:
            raise table.fail(
                "network", f"holds {method!r}, which is no method", hint=nearest(method, METHODS)
            )
    return found


def _brokers(table: Table) -> tuple[str, ...]:
    found = rules.words(table, "brokers", rules.NAME, "names of 1 to 20 of a-z 0-9 -")
    if len(found) > MAX_BROKERS:
        raise table.fail("brokers", f"holds more than {MAX_BROKERS}")
    return found


def _values(table: Table) -> dict[str, tuple[str, ...]]:
    tree = table.tree.get("values", {})
    if not isinstance(tree, dict):
        raise table.fail("values", 'must be a table like { region = ["eu", "us"], owner = "any" }')
    if len(tree) > MAX_VALUES:
        raise table.fail("values", f"holds more than {MAX_VALUES}")
    values = table.table("values", tuple(tree))
    found = {}
    for name in tree:
        if not _VALUE_NAME.fullmatch(name):
            raise values.fail(name, "is no name: 1 to 64 of a-z 0-9 . _ -, a letter first")
        found[name] = _words(values, name)
    return found


def _words(values: Table, name: str) -> tuple[str, ...]:
    if values.tree[name] == ANY:
        return ()
    words = values.texts(name)
    if not 0 < len(words) <= MAX_WORDS or not all(_WORD.fullmatch(word) for word in words):
        raise values.fail(
            name,
            f'must be a list of 1 to {MAX_WORDS} words of plain ASCII, or "{ANY}"',
        )
    return words

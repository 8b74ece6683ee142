# SPDX-License-Identifier: Apache-2.0
"""What is in a broker's database, as one JSON tree without any key.

Serves ``troth keybroker list``. Must never open a secret to describe it.

Format: docs/formats.md, "troth keybroker list --json".
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from troth.documents import instant
from troth.keybroker import classes, resources, volume_state

if TYPE_CHECKING:
    from troth.keybroker.classes import ImageClass
    from troth.keybroker.resources import Resource
    from troth.keybroker.store import Store

SCHEMA = "troth-keybroker-list-v1"


def tree(store: Store, *, at: int) -> dict[str, object]:
    """The whole list; leases are looked at as of ``at`` (seconds since 1970)."""
    with store.reading() as rows:
        released = rows.execute("SELECT count(*) FROM releases").fetchone()[0]
        finished = rows.execute("SELECT count(*) FROM finished").fetchone()[0]
    return {
        "schema": SCHEMA,
        "platform": store.kind,
        "sealed": store.sealed,
        "releases": released,
        "boots_finished": finished,
        "classes": [_class(item) for item in classes.every(store)],
        "resources": [_resource(item, at) for item in resources.every(store)],
    }


def _class(found: ImageClass) -> dict[str, object]:
    return {
        "image": found.image,
        "svn": found.svn,
        "state": found.state,
        "reference_sha256": hashlib.sha256(found.document).hexdigest(),
        "keys": [key.key_id for key in found.public_keys()],
        "added": instant.print_(found.added),
    }


def _resource(found: Resource, at: int) -> dict[str, object]:
    listed: dict[str, object] = {
        "path": found.path,
        "images": list(found.images),
        "added": instant.print_(found.added),
        "volume": None,
    }
    volume = found.volume
    if volume is not None:
        held_s = volume_state.held_s(volume, at)
        listed["volume"] = {
            "uuid": found.uuid,
            "profile": found.profile,
            "state": volume.state,
            "generation": volume.generation,
            "record": volume.record,
            "holder": volume.holder.hex(),
            "held_until": instant.print_(at + held_s) if held_s else "",
            "taken_over": volume.taken_over,
            "lease_s": volume.lease_s,
            "format_s": volume.format_s,
            "overdue": volume.state == volume_state.FORMATTING and not held_s,
        }
    return listed

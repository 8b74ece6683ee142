# SPDX-License-Identifier: Apache-2.0
"""``troth keybroker list`` and ``retire``: what a broker has, and what it is to have no more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from troth.cli import broker_database
from troth.documents import strict
from troth.keybroker import classes, listing, resources, volume_state

if TYPE_CHECKING:
    from typing import Protocol

    from troth.keybroker.resources import Resource
    from troth.keybroker.store import Store

    class ListOptions(Protocol):
        """What the grammar gives to ``list_``."""

        db: str
        json: bool

    class RetireOptions(Protocol):
        """What the grammar gives to ``retire``."""

        db: str
        image: str
        svn: int | None


def list_(options: ListOptions) -> int:
    """Print the database. Raises as ``keybroker.store.open_``."""
    at = broker_database.now()
    with broker_database.opened(options.db, needs_keys=False) as store:
        if options.json:
            sys.stdout.write(strict.pretty(listing.tree(store, at=at)).decode())
            return 0
        sys.stdout.write("".join(f"{line}\n" for line in _lines(store, at)))
    return 0


def retire(options: RetireOptions) -> int:
    """Retire an image. Raises as ``keybroker.store.open_``; ``UsageError`` ``broker-image``."""
    with broker_database.opened(options.db, needs_keys=False) as store:
        found = classes.retire(store, options.image, options.svn)
    versions = ", ".join(str(number) for number in found) or "none was left"
    sys.stdout.write(f"{options.image}: retired svn {versions}\n")
    return 0


def _lines(store: Store, at: int) -> list[str]:
    lines = [f"{store.kind} guests{', keys sealed by a passphrase' if store.sealed else ''}"]
    lines += [f"class {item.image} svn {item.svn}: {item.state}" for item in classes.every(store)]
    lines += [_line(item, at) for item in resources.every(store)]
    return lines


def _line(item: Resource, at: int) -> str:
    images = ", ".join(item.images)
    volume = item.volume
    if volume is None:
        return f"resource {item.path}: for {images}"
    said = f"volume {item.path}: {volume.state}, generation {volume.generation}, for {images}"
    said += f", {item.uuid} {item.profile}"
    if volume.holder:
        left_s = volume_state.held_s(volume, at)
        held = f"for {left_s} s more" if left_s else "no longer"
        said += f"; held {held} by {volume.holder.hex()[:16]}"
    if volume.taken_over:
        said += f"; taken over {volume.taken_over} times: boots anew, or clones"
    return said

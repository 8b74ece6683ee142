# SPDX-License-Identifier: Apache-2.0
"""Stage 11: measure what is about to run, from the verified layer, and pin it read-only.

Hashing the merged view would measure a moment; the lower layer cannot change.
The paths are then bound from it over the merged view, so that what was
measured is what runs (SECURITY S8).
"""

from __future__ import annotations

import os

from troth.boot.root import IN_MEMORY, NO_OVERLAY, upper_of
from troth.boot.state import LOWER, SYSROOT
from troth.documents import event_log
from troth.errors import Refusal
from troth.linux import tree
from troth.linux.mount import MS_NODEV, MS_RDONLY, bind
from troth.measure.workload import tree_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from troth.boot.state import State
    from troth.documents.policy import Policy
    from troth.measure.workload import Entry


def run(state: State) -> None:
    """Extend the ``workload`` event; raise ``Refusal`` ``workload-missing``, ``workload-shadowed``.

    A writable layer that lasts may hold what somebody put below these paths in an earlier
    boot. The bind would hide it, but whoever did that is to be heard of (SECURITY S8).
    """
    if state.policy.overlay not in (NO_OVERLAY, IN_MEMORY):
        _check_layer(state.policy)
    # Without a root the workload lies in the measured initramfs itself.
    base = LOWER if state.policy.volumes else ""
    try:
        digest = tree_digest(_entries(base, state.policy.workload))
    except FileNotFoundError as error:
        name = os.fsdecode(error.filename).removeprefix(base)
        raise Refusal("workload-missing", f"{name} is not in the root") from None
    state.events.measure(event_log.WORKLOAD, digest)
    # Without a root the workload is pinned where it is.
    target = SYSROOT if base else ""
    for path in state.policy.workload:
        bind(base + path, target + path, flags=MS_RDONLY | MS_NODEV)


def _check_layer(policy: Policy) -> None:
    for path in policy.workload:
        for above in policy.overlay_paths:
            prefix = above.rstrip("/")
            if path != above and not path.startswith(f"{prefix}/"):
                continue
            held = f"{upper_of(above)}/upper{path[len(prefix) :]}"
            if path != above and os.path.lexists(held):
                raise Refusal("workload-shadowed", f"the writable layer holds {path}")
            if path == above and os.listdir(held):
                raise Refusal("workload-shadowed", f"the writable layer holds files in {path}")


def _entries(base: str, paths: tuple[str, ...]) -> Iterator[Entry]:
    for path in paths:
        yield from tree.entries(base, path)

# SPDX-License-Identifier: Apache-2.0
"""Why each check of a volume without a header is made: the attack that it ends.

Serves ``troth volume check`` and docs/volumes.md. Never imported in a guest, which only
needs the code.
"""

from __future__ import annotations

WHY = {
    "record-size": "a disk that was cut off has lost data that a guest believed were written",
    "record-blank": "a blank disk that is taken for a new one loses the data silently, and what"
    " is written next goes to a volume that the host has prepared",
    "record-volume": "the key is for one volume; another one put in its place must not be opened",
    "record-mac": "without the key nobody makes a record, so neither size nor generation can be"
    " the host's choice",
    "record-form": "a record of another version may mean something else by the same bytes",
    "record-profile": "the host would choose how data are encrypted, or hide the end of them"
    " behind a smaller disk",
    "record-rolled-back": "an old copy of the disk is as well authenticated as the newest one",
    "integrity-superblock": "it says how large tags are and where they lie: other values show"
    " data under the tags of other places",
}

# SPDX-License-Identifier: Apache-2.0
"""Why each check of a LUKS2 header is made: the attack that it ends.

Serves ``troth volume check`` and docs/volumes.md. Never imported in a guest, which only
needs the code.
"""

from __future__ import annotations

WHY = {
    "luks2-primary": "a damaged copy makes other tools take the other one and rewrite this one,"
    " so whoever damages one chooses which header is used",
    "luks2-secondary": "a damaged copy makes other tools take the other one and rewrite this one,"
    " so whoever damages one chooses which header is used",
    "luks2-copies": "two headers that differ are two volumes: which one is opened would depend"
    " on a sequence number that the host writes",
    "luks2-header-size": "a larger header only gives the host room, for metadata without end and"
    " for a second copy somewhere else",
    "luks2-uuid": "the key is for one volume; another one put in its place must not be opened",
    "luks2-json": "two readers that take broken metadata differently open different volumes",
    "luks2-json-duplicate": "with a key twice, one reader judges the first value and another"
    " uses the second",
    "luks2-json-unknown": "a key that is not known may change the meaning of those that are",
    "luks2-config": "sizes that do not fit let areas overlap",
    "luks2-flags": "flags change how the map behaves: allow-discards shows the host which blocks"
    " are in use",
    "luks2-requirements": "a half-done reencryption makes tools decrypt parts of the disk"
    " (CVE-2021-4122)",
    "luks2-tokens": "a token says where the key comes from; one on the disk lets the host choose"
    " the passphrase, or where it is asked for",
    "luks2-cipher-null": "a null cipher of the segment lets the host read everything written,"
    " one of the key-slot opens with any key to a volume key that the host knows"
    " (CVE-2025-59054, CVE-2025-58356)",
    "luks2-cipher-weak": "ECB shows equal blocks; a capi: name picks one of the kernel's"
    " implementations, also one that leaks through its timing",
    "luks2-segments": "a second segment puts an area of the host's choice into the volume",
    "luks2-segment-kind": "a linear segment is not encrypted at all; an OPAL one leaves"
    " encryption to the host's drive",
    "luks2-segment-cipher": "the host would choose how data are encrypted, and so whether",
    "luks2-segment-integrity": "without tags the host changes data unseen; the metadata alone"
    " would decide whether there are any",
    "luks2-segment-sector": "other sectors decrypt the same data to something else",
    "luks2-segment-offset": "a moved offset shows data under the IVs of other places",
    "luks2-segment-size": "a shorter volume hides data that were written",
    "luks2-segment-tweak": "a moved IV decrypts the same data to something else",
    "luks2-segment-flags": "segments of a reencryption and their backups are not data",
    "luks2-keyslots": "a second key-slot is a second passphrase, perhaps the host's",
    "luks2-keyslot-kind": "a reencryption slot makes tools rewrite the disk after a journal"
    " that the host wrote",
    "luks2-keyslot-priority": "only one slot is here: whatever is said about order is not ours",
    "luks2-keyslot-key": "a key of another size can have the same digest, because HMAC fills"
    " short keys with zeros",
    "luks2-keyslot-area": "the key material would be read from a place that was not judged",
    "luks2-keyslot-cipher": "with a weak cipher the key-slot gives the volume key to whoever"
    " has the disk",
    "luks2-keyslot-af": "other stripes only cost time and memory, or merge to another key",
    "luks2-kdf": "a derivation that nobody expected is one that nobody looked at",
    "luks2-kdf-cost": "costs are numbers in the header: 4 GiB or hours would stop the boot;"
    " too few iterations give the passphrase away",
    "luks2-kdf-salt": "a short salt lets work for one volume serve for another",
    "luks2-digests": "the digest decides which key is right; a second one is a second answer",
    "luks2-digest-kind": "a short digest accepts keys that were not the volume's",
    "luks2-digest-cost": "2^32 iterations keep a processor busy for ten minutes, before anything"
    " is known to be right",
    "luks2-digest-links": "a digest for another slot or segment does not vouch for this one",
}
"""Code of a check -> why it is made."""

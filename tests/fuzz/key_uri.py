# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: where a key comes from, as a manifest says it."""

from troth.documents import key_uri
from troth.errors import FormatError

SEEDS = [
    b"kbs:///default/disk-key/data", b"kbs://main/a/b/c", b"spiffe://example.org/vm/demo",
    b"spiffe://example.org", b"snp:", b"snp:tcb,measurement", b"random:", b"file:data", b"tpm2:",
]  # fmt: skip


def fuzz(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = key_uri.parse(text)
    except FormatError:
        return
    if found.scheme not in key_uri.MODULES or key_uri.parse(str(found)) != found:
        raise AssertionError("a URI does not survive printing")
    if set(text) - set(map(chr, range(0x21, 0x7F))):
        raise AssertionError("letters that need escapes")

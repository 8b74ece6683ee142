# SPDX-License-Identifier: Apache-2.0
"""HMAC as RFC 4231 and RFC 2202 have it, and as the standard library computes it."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.abi import keyed_digest
from troth.abi.hashes import BANKS

#: Key, data, HMAC-SHA-256: RFC 4231, cases 1, 2 and 6.
_RFC_4231 = (
    (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
)


@pytest.mark.parametrize(("key", "data", "wanted"), _RFC_4231)
def test_the_rfc(key, data, wanted):
    assert keyed_digest.digest(key, data).hex() == wanted


@given(st.sampled_from(sorted(BANKS)), st.binary(max_size=300), st.binary(max_size=300))
def test_as_the_standard_library(bank, key, data):
    assert keyed_digest.digest(key, data, bank) == hmac.digest(key, data, bank)


def test_equal():
    assert keyed_digest.equal(b"same", b"same")
    assert not keyed_digest.equal(b"same", b"sama")
    assert not keyed_digest.equal("0" * 64, "0" * 63)

# SPDX-License-Identifier: Apache-2.0
"""The kernel's AES-256-GCM against that of ``cryptography``, where this kernel has it.

Few builders' kernels do: that it is right is then shown by the guests of
tests/boot/test_simulated.py, whose every report passes through it.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_aead import AesGcm
from troth.errors import FormatError
from troth.simulated.front.aead import KernelAead

KEY, IV, AAD = bytes(range(32)), bytes(12), bytes(48)


@pytest.fixture(scope="module", autouse=True)
def available():
    try:
        KernelAead(KEY)
    except OSError as error:
        pytest.skip(f"AF_ALG gcm(aes): {error}")


@given(payload=st.binary(min_size=1, max_size=4000))
@settings(max_examples=50)
def test_both_ways(payload):
    mine, theirs = KernelAead(KEY), AesGcm(KEY)
    sealed = mine.encrypt(IV, AAD, payload)
    assert sealed == theirs.encrypt(IV, AAD, payload)
    assert mine.decrypt(IV, AAD, *sealed) == payload


def test_a_wrong_tag_and_then_a_right_one():
    mine = KernelAead(KEY)
    ciphertext, tag = mine.encrypt(IV, AAD, b"payload")
    for changed in (b"\0" * 16, tag[:-1] + bytes([tag[-1] ^ 1])):
        with pytest.raises(FormatError) as caught:
            mine.decrypt(IV, AAD, ciphertext, changed)
        assert caught.value.code == "guest-message-tag"
    assert mine.decrypt(IV, AAD, ciphertext, tag) == b"payload"

# SPDX-License-Identifier: Apache-2.0
"""The keys of one volume: known answers from another implementation, sizes, separation."""

import itertools

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from made_volumes import OTHER_UUID, SECRET, UUID
from troth.errors import FormatError
from troth.volumes import keys

PROFILE = "headerless/hmac/4096"
SIZES = {"xts": 64, "hmac": 32, "gcm": 32, "record": 32, "luks": 32}


@pytest.mark.parametrize("size", [32, 48, 64])
@pytest.mark.parametrize("role", SIZES)
def test_known_answers(role, size):
    secret = bytes(range(size))
    info = b"troth-volume-v1\0" + f"{UUID}\0{PROFILE}\0{role}".encode()
    wanted = HKDF(SHA256(), SIZES[role], salt=None, info=info).derive(secret)
    assert keys.derive(secret, uuid=UUID, profile=PROFILE, role=role) == wanted


def test_no_two_uses_share_a_key():
    """Volume, profile, role and secret each lead elsewhere: 32 bytes never meet twice."""
    seen = {}
    uses = itertools.product(
        (SECRET, SECRET + b"\0", SECRET[::-1]),
        (UUID, OTHER_UUID),
        (PROFILE, "headerless/none/4096", "luks2/hmac/4096"),
        SIZES,
    )
    for use in uses:
        secret, uuid, profile, role = use
        found = keys.derive(secret, uuid=uuid, profile=profile, role=role)
        for part in (found[:32], found[32:]):
            if part:
                assert part not in seen, (use, seen.get(part))
                seen[part] = use
    assert len(seen) == 3 * 2 * 3 * 6


def test_the_borders_of_words_count():
    """The same bytes cut at another place are another volume."""
    one = keys.derive(SECRET, uuid="a", profile="b", role="record")
    other = keys.derive(SECRET, uuid="ab", profile="", role="record")
    assert one != other


@pytest.mark.parametrize("size", [0, 1, 31, 65, 1024])
def test_a_secret_that_is_no_key(size):
    with pytest.raises(FormatError) as caught:
        keys.derive(bytes(size), uuid=UUID, profile=PROFILE, role="record")
    assert caught.value.code == "volume-secret"
    assert "00" not in str(caught.value)


def test_equal_halves_are_refused(monkeypatch):
    monkeypatch.setattr(keys, "hkdf_sha256", lambda *_args, size_bytes: b"\7" * size_bytes)
    with pytest.raises(FormatError) as caught:
        keys.derive(SECRET, uuid=UUID, profile=PROFILE, role="xts")
    assert caught.value.code == "volume-weak-key"
    assert keys.derive(SECRET, uuid=UUID, profile=PROFILE, role="hmac") == b"\7" * 32


def test_a_passphrase_is_the_luks_key_as_text():
    found = keys.passphrase(SECRET, uuid=UUID, profile="luks2/none/4096")
    key = keys.derive(SECRET, uuid=UUID, profile="luks2/none/4096", role="luks")
    assert found == key.hex().encode()
    assert len(found) == 64

# SPDX-License-Identifier: Apache-2.0
"""Sessions, their bounds, and the tokens of attested guests."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from troth.documents import base64_text
from troth.documents.jwk import EcPublicKey
from troth.errors import FormatError
from troth.keybroker import sessions, tokens
from troth.keybroker.release import Attested
from troth.keybroker.sessions import Sessions
from troth.keybroker.tokens import Claims
from troth.signing.es256 import TokenKey

GUEST = Attested("demo", 3, b"\x08" * 32, b"k" * 32)
POINT = EcPublicKey("P-256", bytes(32), b"\x01" * 32)
CLAIMS = Claims("demo", 3, b"\x08" * 32, b"\x04" * 48, "nonce", POINT)
KEY = TokenKey()
AT = 1_780_000_000


def attested(found, session, now=0.0):
    found.attested(session, GUEST, POINT, "token", now=now)


def test_names_and_nonces_are_never_the_same():
    found = Sessions()
    made = [found.begin("a", "snp", now=0) for _ in range(50)]
    assert len({item.name for item in made}) == len({item.nonce for item in made}) == 50
    assert all(len(base64_text.from_standard(item.nonce)) == 32 for item in made)
    assert made[0].name not in repr(made[0])


def test_a_nonce_dies_and_so_does_the_session():
    found = Sessions()
    one = found.begin("a", "snp", now=0)
    assert found.find(one.name, now=sessions.NONCE_S - 1).nonce == one.nonce
    assert found.find(one.name, now=sessions.NONCE_S) is None
    two = found.begin("a", "snp", now=200)
    assert found.use_nonce(two)
    assert not found.use_nonce(two)
    attested(found, two, now=210)
    assert found.find(two.name, now=209 + sessions.LIFE_S).guest == GUEST
    assert found.find(two.name, now=210 + sessions.LIFE_S) is None
    found.end(two)
    attested(found, two)
    assert found.find(two.name, now=0) is None


def test_one_address_cannot_have_them_all(monkeypatch):
    monkeypatch.setattr(sessions, "MAX_OF_PEER", 3)
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 5)
    found = Sessions()
    first = [found.begin("a", "snp", now=0) for _ in range(3)]
    assert found.begin("a", "snp", now=0) is None
    # One whose evidence was good makes room, and is still one of all.
    attested(found, first[0])
    assert found.begin("a", "snp", now=0) is not None
    assert found.begin("b", "snp", now=0) is not None
    assert found.begin("c", "snp", now=0) is None
    # What has ended makes room too.
    assert found.begin("a", "snp", now=sessions.NONCE_S) is not None
    assert len(found._sessions) == 2
    for session in (*first, *found._sessions.copy().values()):
        found.end(session)
    assert (found._sessions, found._of_peer, found._requests) == ({}, {}, {})


def test_requests_of_a_session_end():
    found = Sessions()
    one = found.begin("a", "snp", now=0)
    known = [found.is_known(one.name, now=0) for _ in range(sessions.MAX_UNPROVEN + 1)]
    assert known == [True, True, True, True, False]
    attested(found, one)
    left = sessions.MAX_REQUESTS - len(known)
    known = [found.is_known(one.name, now=0) for _ in range(left + 1)]
    assert known == [*[True] * left, False]
    assert not found.is_known("", now=0)
    two = found.begin("a", "snp", now=0)
    assert not found.is_known(two.name, now=sessions.NONCE_S)


def test_token():
    token = tokens.print_(CLAIMS, KEY, at=AT)
    assert tokens.parse(token, KEY, at=AT) == CLAIMS
    assert tokens.parse(token, KEY, at=AT + tokens.LIFE_S - 1) == CLAIMS
    for at in (AT - 1, AT + tokens.LIFE_S):
        with pytest.raises(FormatError, match="not valid now"):
            tokens.parse(token, KEY, at=at)
    # Another process's, though its header names a key that fits.
    with pytest.raises(FormatError, match="was not signed"):
        tokens.parse(tokens.print_(CLAIMS, TokenKey(), at=AT), KEY, at=AT)
    _head, body, _signature = token.split(".")
    none = base64_text.url(b'{"alg":"none"}')
    for odd in (f"{none}.{body}.", "", "a.b", "a.b.c", token + ".x", token * 20):
        with pytest.raises(FormatError) as caught:
            tokens.parse(odd, KEY, at=AT)
        assert caught.value.code == "broker-token"


@settings(max_examples=60)
@given(st.data())
def test_tokens_with_a_changed_letter(data):
    token = tokens.print_(CLAIMS, KEY, at=AT)
    at = data.draw(st.integers(0, len(token) - 1))
    other = token[:at] + data.draw(st.characters(codec="ascii")) + token[at + 1 :]
    if other != token:
        with pytest.raises(FormatError):
            tokens.parse(other, KEY, at=AT)

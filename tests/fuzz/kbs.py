# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: all messages of the key broker protocol and of troth's own calls."""

import contextlib

from troth.documents import broker_calls, jwk, kbs, kbs_error, kbs_evidence
from troth.errors import FormatError

KEY = jwk.EcPublicKey(jwk.P256, b"\1" * 32, b"\2" * 32)
REQUEST = kbs.AttestRequest("nonce=", KEY, b'{"svn":"1"}', "", "version = 1")
UUID = "6f1c0d1e-9f3a-4a39-8d3e-0242ac120002"

SEEDS = [
    kbs.print_auth(kbs.AuthRequest("snp")),
    kbs.print_challenge(kbs.Challenge("nonce=", "sha384")),
    kbs.print_attest(REQUEST),
    kbs.print_token("a.b.c"),
    kbs_error.print_(kbs_error.BrokerError("PolicyDeny", "no")),
    broker_calls.print_commit(broker_calls.Commit(1, "ab" * 32)),
    broker_calls.print_commit(broker_calls.Commit(1, "ab" * 32, UUID)),
    broker_calls.print_issue(b"0\1"),
    broker_calls.print_svid((b"0\1", b"0\2")),
    broker_calls.print_key_request(UUID),
]


def fuzz(data: bytes) -> None:
    for parse, print_ in (
        (kbs.parse_auth, kbs.print_auth),
        (kbs.parse_challenge, kbs.print_challenge),
        (kbs.parse_token, kbs.print_token),
        (lambda d: broker_calls.parse_commit(d, named=False), broker_calls.print_commit),
        (lambda d: broker_calls.parse_commit(d, named=True), broker_calls.print_commit),
        (broker_calls.parse_issue, broker_calls.print_issue),
        (broker_calls.parse_svid, broker_calls.print_svid),
        (broker_calls.parse_key_request, broker_calls.print_key_request),
        (kbs.parse_attest, attest),
    ):
        try:
            found = parse(data)
        except FormatError:
            continue
        if parse(print_(found)) != found:
            raise AssertionError("a message does not survive printing")
    said = kbs_error.said(data)
    if not said.isprintable() or not said.isascii() or len(said) > 400:
        raise AssertionError("not for a console")


def attest(request: kbs.AttestRequest) -> bytes:
    if len(kbs.report_data(request)) != 64:
        raise AssertionError("REPORT_DATA of another size")
    with contextlib.suppress(FormatError):
        kbs_evidence.parse(request.evidence)
    return kbs.print_attest(request)

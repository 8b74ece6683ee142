# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: evidence, and the log and report inside it."""

from troth.documents import evidence
from troth.documents.evidence import Counters, Evidence, PcrValue, ServicePart, TpmPart
from troth.errors import FormatError


def fuzz(data: bytes) -> None:
    try:
        found = evidence.parse(data)
    except FormatError:
        return
    if evidence.parse(evidence.print_(found)) != found:
        raise AssertionError("a document is not what was read")
    if len(evidence.binding_of(found, ak_name=b"")) != 64:
        raise AssertionError("a binding of another size")
    for name, _value in found.registers:
        pcr = evidence.pcr_of(name)
        if pcr is not None and evidence.pcr_name(*pcr) != name:
            raise AssertionError("a register with two names")


_PLAIN = Evidence(
    platform_kind="direct",
    nonce=bytes(range(32)),
    user_data=b"hello",
    channel_sha256=bytes(32),
    caller="uid=0 gid=0 unit=-",
    report=bytes(1184),
    certificates=b"table",
    event_log=b"{}\n",
    log_records=1,
    registers=(("sha256:14", bytes(32)), ("software", bytes(48))),
)
_WHOLE = Evidence(
    "svsm", bytes(16), b"", b"", "", bytes(1184), b"", b"", 0, (),
    TpmPart(b"ak", b"attest", b"sig", (PcrValue("sha256", 11, bytes(32)),), Counters(1, 2, 3)),
    ServicePart(b"manifest", bytes(1184)),
)  # fmt: skip

SEEDS = [evidence.print_(_PLAIN), evidence.print_(_WHOLE)]

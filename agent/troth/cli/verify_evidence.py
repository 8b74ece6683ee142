# SPDX-License-Identifier: Apache-2.0
"""``troth verify evidence``: judge all that a guest shows of itself, and say every check."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from troth.abi import snp_report
from troth.cli import reference_file, seen_guests, verify_inputs
from troth.cli.results import exit_status, show
from troth.documents import (
    appraisal_policy_toml,
    azure_evidence,
    binding,
    evidence,
    instance_disk,
    kbs_evidence,
)
from troth.documents.verdict import PASS, PASS_SIMULATED
from troth.errors import FormatError
from troth.record import replace
from troth.signing import channel_keys
from troth.verify import replay
from troth.verify.endorsing.endorsements import Endorsements
from troth.verify.evidence import Asked, Given, appraise
from troth.verify.kinds import foreign
from troth.verify.seen import Seen

if TYPE_CHECKING:
    from typing import Protocol

    from troth.documents.foreign import ForeignEvidence
    from troth.documents.result import Result

    class EvidenceOptions(Protocol):
        """What the grammar gives to ``evidence``."""

        file: str
        reference: str | None
        key: list[str]
        policy: str
        nonce: str
        user_data: str | None
        channel_key: str | None
        instance: str | None
        certs: str | None
        state: str | None
        format: str
        at: str | None
        accept_simulated: bool
        json: bool

    class Reader(Protocol):
        """Reads one form."""

        def __call__(self, data: bytes, *, where: str) -> ForeignEvidence: ...


_DIGEST_CHARS = 64


def verify(options: EvidenceOptions) -> int:
    """Print the result and return 0 where it is one to rely on.

    Raises ``UsageError``: ``evidence-file``, ``reference-file``, ``verify-policy-*``,
    ``certs-directory``, ``nonce-length``, ``verify-option``, ``state-directory``;
    ``FormatError`` for files that are not what they should be.
    """
    asked = Asked(
        nonce=verify_inputs.hex_of("--nonce", options.nonce),
        user_data=None if options.user_data is None else verify_inputs.user_data(options.user_data),
        channel_sha256=_channel(options.channel_key),
        instance_sha256=_instance(options.instance),
        remembers=options.state is not None,
    )
    binding.check_nonce(asked.nonce)
    at = verify_inputs.moment(options.at)
    data = verify_inputs.read(options.file, evidence.LIMIT_BYTES + 1, code="evidence-file")
    policy_bytes = verify_inputs.read(options.policy, 1 << 20, code="verify-policy-file")
    policy = appraisal_policy_toml.parse(policy_bytes, where=options.policy)
    policy_sha256 = sha256(policy_bytes).hexdigest()
    keys = reference_file.public_keys(options.key)
    endorsed = Endorsements(())
    if options.certs is not None:
        endorsed = verify_inputs.certificates(options.certs)
    document = None if options.reference is None else reference_file.read(options.reference)
    reader = READERS.get(options.format)
    if reader is not None:
        _only_for_troth(options)
        result = foreign.appraise(
            reader(data, where=options.file),
            nonce=asked.nonce,
            given=foreign.Given(document, keys, endorsed, policy, policy_sha256),
            subject=data,
            at=at,
        )
    elif document is None:
        raise verify_inputs.wrong("--reference is needed: it says what a good guest is")
    else:
        given = Given(document, keys, endorsed, policy, policy_sha256)
        result = _troth(data, options, asked, given, at)
    show(result, as_json=options.json)
    return exit_status(result, accept_simulated=options.accept_simulated)


def _troth(data: bytes, options: EvidenceOptions, asked: Asked, given: Given, at: int) -> Result:
    """Evidence of troth's own agent."""
    try:
        found = evidence.parse(data, where=options.file)
    except FormatError as error:
        if error.code != "json-syntax":
            raise
        raise FormatError(
            error.code,
            error.message,
            where=error.where,
            hint="evidence is JSON, as troth evidence writes it; a report alone is for: "
            "troth verify report",
        ) from None
    guest = snp_report.parse(found.report, where=options.file).report_id
    if options.state is not None:
        asked = replace(asked, seen=seen_guests.find(options.state, guest))
    result = appraise(found, asked, given, subject=data, at=at)
    if options.state is not None and result.overall in (PASS, PASS_SIMULATED):
        replayed = replay.replay(found.event_log)
        seen_guests.put(options.state, Seen(guest, len(replayed.records), replayed.software))
    return result


#: Form of another project -> what reads it.
READERS: dict[str, Reader] = {
    "kbs-snp": kbs_evidence.parse,
    "az-snp-vtpm": azure_evidence.parse,
}


def _only_for_troth(options: EvidenceOptions) -> None:
    """What other projects' forms do not carry cannot be asked of them."""
    for name, value in (
        ("--user-data", options.user_data),
        ("--channel-key", options.channel_key),
        ("--instance", options.instance),
        ("--state", options.state),
    ):
        if value is not None:
            raise verify_inputs.wrong(f"{name} is for troth's own evidence")


def _channel(text: str | None) -> bytes | None:
    """``--channel-key``: a file, or the digest itself."""
    if text is None:
        return None
    if len(text) == _DIGEST_CHARS and set(text) <= set("0123456789abcdefABCDEF"):
        return bytes.fromhex(text)
    data = verify_inputs.read(text, channel_keys.MAX_BYTES + 1, code="channel-key-file")
    return channel_keys.spki_sha256(data, where=text)


def _instance(name: str | None) -> bytes | None:
    """``--instance``: the configuration that was given at launch, whose digest is HOST_DATA."""
    if name is None:
        return None
    data = verify_inputs.read(name, instance_disk.READ_BYTES, code="instance-file")
    try:
        return sha256(instance_disk.content(data)).digest()
    except FormatError as error:
        raise FormatError(error.code, error.message, where=name, hint=error.hint) from None

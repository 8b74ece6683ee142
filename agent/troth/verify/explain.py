# SPDX-License-Identifier: Apache-2.0
"""What each check means, why it matters, and what to do where it did not pass.

Serves ``troth explain``; docs/checks.md is the same table, which a test
compares. Must say what to mend before what to accept.
"""

from __future__ import annotations

from troth.record import record
from troth.verify.explain_evidence import EVIDENCE


@record
class Explanation:
    """Three texts of whole sentences: what is compared, why, and what to do."""

    meaning: str
    why: str
    what_to_do: str


_ACCEPT_OR_ASK = "Ask the host for other settings, or accept it by the line of the hint."
_FETCH = "Run `troth certs fetch DIR --report FILE`, or ask the host for its certificates."
_NOTHING = "Nothing accepts this. Take the report for forged or broken until you know why."
_UPDATE = (
    "Ask the host to update its firmware and commit it. Lower the floor only after reading what "
    "the bulletins between the two numbers repair."
)


def _of(meaning: str, why: str, what_to_do: str) -> Explanation:
    return Explanation(meaning, why, what_to_do)


EXPLANATIONS = {
    "report-version": _of(
        "The version of the report's format is one that the policy lists.",
        "Each version adds fields. One that is not known is never read by guess.",
        "Add the version if you know what it lacks: version 2 does not name the processor.",
    ),
    "report-reserved": _of(
        "All bytes and bits without a meaning in this version are zero.",
        "Set bits may mean something that this version of troth does not look at.",
        "Look for a newer troth. Accept it only if you know what the bits say.",
    ),
    "signature-algorithm": _of(
        "The report says that ECDSA with P-384 and SHA-384 signed it.",
        "No other algorithm exists for these reports.",
        _NOTHING,
    ),
    "signing-key": _of(
        "The report says that a VCEK (of one chip) or a VLEK (of a cloud) signed it.",
        "A host may ask for reports without a signature; they prove nothing.",
        "Ask the host to end MASK_CHIP_KEY. Nothing accepts an unsigned report.",
    ),
    "certificate-line": _of(
        "The processor in the report and the certificates are of one product line.",
        "The layout of the TCB and the root that counts follow from the line.",
        _FETCH,
    ),
    "certificate-root": _of(
        "The chain ends in a root whose SHA-256 is AMD's, or one of trusted_roots.",
        "A root among the certificates is only a copy: anyone can make one.",
        "Use AMD's certificates. Add a root of your own for simulated platforms and tests only.",
    ),
    "certificate-intermediate": _of(
        "The root signed the certificate of the ASK or ASVK, which may issue others.",
        "Without it nothing connects the signing key with AMD.",
        _FETCH,
    ),
    "certificate-key": _of(
        "The ASK or ASVK signed the certificate of the key that signed the report.",
        "Without it the signing key may be anybody's.",
        _FETCH,
    ),
    "certificate-validity": _of(
        "Every certificate of the chain is valid at the time that is judged at.",
        "A VLEK lives for one year; after that AMD vouches for it no longer.",
        "Get a fresh certificate. For a report of the past, give its time with --at.",
    ),
    "certificate-revocation": _of(
        "A revocation list that AMD's root signed, and that is current, names none of the chain.",
        "A revoked ASK or ASVK may issue keys for anybody.",
        "Run `troth certs fetch`, which gets the list too, and do so every few weeks. Offline you "
        "may accept not knowing.",
    ),
    "certificate-platform": _of(
        "The mark SIMULATED is in the certificates if and only if the policy is for simulation.",
        "A simulated platform keeps no secret from its host.",
        "Use a policy of its own for simulated guests, and no broker for both.",
    ),
    "certificate-extensions": _of(
        "The certificate of the signing key holds what AMD writes into it, in AMD's form.",
        "What is compared with the report stands there.",
        _NOTHING,
    ),
    "certificate-tcb": _of(
        "The levels in the certificate are those of the reported TCB, each of them.",
        "The signing key belongs to one chip at one TCB; another certificate is of another key.",
        _FETCH,
    ),
    "certificate-chip": _of(
        "The chip's id in the certificate is that of the report.",
        "It ties the report to one machine. A VLEK does not, nor does a masked id.",
        "For clouds that use VLEKs or mask the id, accept it by the line of the hint.",
    ),
    "report-signature": _of(
        "The key of the certificate signed the report's bytes, as they came.",
        "Everything else in the report is true only if this is.",
        _NOTHING,
    ),
    "report-data": _of(
        "REPORT_DATA, all 64 bytes, is what follows from the nonce, or what was given.",
        "Without it the report may be an old one, or the answer to somebody else.",
        "Send a nonce of your own, 32 random bytes, and give it with --nonce. If it does not "
        "match, ask again: the answer belongs to another request.",
    ),
    "guest-debug": _of(
        "The guest's policy has DEBUG off.",
        "With DEBUG the host reads and writes all of the guest's memory. The launch digest is the "
        "same with and without it.",
        "Launch the guest again without DEBUG. No policy that can pass accepts it.",
    ),
    "guest-migration": _of(
        "The guest's policy does not let a migration agent be bound to it.",
        "An agent can take the guest's memory to another machine.",
        "Launch without MIGRATE_MA; or permit it and name the agent in report_id_ma.",
    ),
    "guest-smt": _of(
        "The guest's policy does not permit SMT, or the verification policy does.",
        "A sibling thread shares caches and more with the guest. Most clouds run with SMT.",
        "Launch the guest with SMT forbidden, where the host can do so; else accept it.",
    ),
    "guest-cxl": _of(
        "The guest's policy does not permit CXL memory, or the verification policy does.",
        "Such memory is outside the processor's package and controllers.",
        _ACCEPT_OR_ASK,
    ),
    "guest-single-socket": _of(
        "The guest's policy demands that the guest stays on one socket.",
        "Memory traffic between sockets can be watched.",
        "Launch the guest with the demand in its policy.",
    ),
    "guest-aes-256-xts": _of(
        "The guest's policy demands AES-256-XTS for its memory.",
        "Otherwise the host may choose AES-128.",
        "Launch the guest with the demand in its policy.",
    ),
    "guest-rapl": _of(
        "The guest's policy demands that power readings (RAPL) are off.",
        "Power readings tell something about the data that is worked on.",
        "Launch the guest with the demand in its policy.",
    ),
    "guest-ciphertext-hiding": _of(
        "The guest's policy demands that the host cannot read its encrypted memory.",
        "Equal blocks at one address have equal ciphertext, which tells when values repeat.",
        "Launch the guest with the demand in its policy. It needs Turin or later.",
    ),
    "guest-page-swap": _of(
        "The guest's policy forbids the host to move its pages out and in again.",
        "It takes one more power over the guest's memory from the host.",
        "Launch the guest with the demand in its policy.",
    ),
    "guest-abi": _of(
        "The guest's policy demands at least this version of the firmware's interface.",
        "With the demand the guest does not start on older firmware.",
        "Launch the guest with the version in its policy.",
    ),
    "vmpl": _of(
        "The privilege level that asked for the report is an expected one.",
        "Under an SVSM the guest's kernel has a lower level; a report of level 0 is the SVSM's.",
        "Expect 0 without an SVSM, and what the guest runs at with one. Some clouds ask at 1.",
    ),
    "product-allowed": _of(
        "The product line is known and not in deny_products.",
        "Of Milan, a published attack takes out the secret that its signing keys come from.",
        "Move the guest to another processor. Accepting the line means trusting who has access.",
    ),
    "provider-allowed": _of(
        "The cloud in the certificate of a VLEK is one of the policy's.",
        "One key signs for a whole cloud; whoever has it answers for all of its machines.",
        "Name the clouds you use. A report that a VCEK signed has no provider.",
    ),
    "chip-allowed": _of(
        "The chip's id is one of the policy's.",
        "It pins the guest to machines you know, against those who hold others in their hands.",
        "List the machine's CHIP_ID, after making sure that it is yours.",
    ),
    "platform-alias-check": _of(
        "The firmware looked for aliases in memory since the last reset and found none.",
        "A changed memory module can make two addresses meet the same cell (BadRAM).",
        "Ask the host for firmware with the check.",
    ),
    "platform-smt": _of(
        "SMT of the machine is on or off as the policy says.",
        "A sibling thread of the host can disturb and watch the guest (StackWarp).",
        _ACCEPT_OR_ASK,
    ),
    "platform-tsme": _of(
        "TSME of the machine is on or off as the policy says.",
        "It encrypts the memory of the host and everything else.",
        _ACCEPT_OR_ASK,
    ),
    "platform-ecc": _of(
        "ECC of the machine's memory is on or off as the policy says.",
        "It makes flipped bits less likely.",
        _ACCEPT_OR_ASK,
    ),
    "platform-rapl": _of(
        "Power readings of the machine are off or on as the policy says.",
        "Power readings tell something about the data that is worked on.",
        _ACCEPT_OR_ASK,
    ),
    "platform-ciphertext-hiding": _of(
        "Ciphertext hiding of the machine is on or off as the policy says.",
        "Without it the host reads the guest's encrypted memory and sees repetitions.",
        _ACCEPT_OR_ASK,
    ),
    "platform-tio": _of(
        "SEV-TIO of the machine is on or off as the policy says.",
        "With it devices can be let into the guest's trust.",
        _ACCEPT_OR_ASK,
    ),
    "platform-unknown": _of(
        "PLATFORM_INFO has no bit that troth does not know.",
        "A new bit may say something that you would refuse.",
        "Look for a newer troth; or accept unknown bits.",
    ),
    "tcb-reported": _of(
        "Each part of the reported TCB is at least the floor for this silicon.",
        "Older firmware and microcode have published holes; the signing key follows this TCB.",
        _UPDATE,
    ),
    "tcb-committed": _of(
        "Each part of the committed TCB is at least the floor for this silicon.",
        "The host can go back to any firmware down to the committed one.",
        _UPDATE,
    ),
    "tcb-launch": _of(
        "Each part of the TCB that the guest was launched under is at least the floor.",
        "What ran at launch made the guest; a later update does not undo it.",
        "Launch the guest again on the updated host.",
    ),
    "tcb-order": _of(
        "Reported is at most committed, which is at most current; launch is at most current.",
        "Another order means firmware that went back, or a report of something else.",
        "Ask the host what it did; accept any order only if you know.",
    ),
    "firmware-current": _of(
        "The version of the firmware that runs is at least the floor's.",
        "Some repairs raise the version and not the TCB.",
        _UPDATE,
    ),
    "firmware-committed": _of(
        "The version of the committed firmware is at least the floor's.",
        "The host can go back to it without a trace in the next report's TCB.",
        _UPDATE,
    ),
    "mitigations-launch": _of(
        "All mitigation bits that the policy names were in force at launch.",
        "Some repairs need more than new firmware; a bit says that they were applied.",
        "Ask the host to apply them, and launch again. Reports before version 5 have no bits.",
    ),
    "mitigations-current": _of(
        "All mitigation bits that the policy names are in force.",
        "Some repairs need more than new firmware; a bit says that they were applied.",
        "Ask the host to apply them. Reports before version 5 have no bits.",
    ),
    "measurement": _of(
        "The launch digest is one of those in the policy.",
        "It is what was launched. Without an expected value, any image passes.",
        "Compute the digest of your image: `troth measure`. Never copy it from a report you were "
        "sent by the host.",
    ),
    "host-data": _of(
        "HOST_DATA is one of the expected values, or all zero where it is unused.",
        "The host chooses it at launch: it says only what the host said.",
        "Put the digest of your instance configuration there, or `unused`.",
    ),
    "id-block": _of(
        "Digests of ID key and author key, and the values of the ID block, belong together.",
        "The firmware fills all of them or none.",
        _NOTHING,
    ),
    "id-key": _of(
        "The key that signed the ID block is one of the policy's, or there is no ID block.",
        "Who holds the key decides what may be launched under this policy.",
        "Add the key's digest, with the lowest guest SVN you accept.",
    ),
    "author-key": _of(
        "The key that certified the ID key is one of the policy's, or there is none.",
        "Who holds it decides which ID keys exist.",
        "Add the key's digest, with the lowest guest SVN you accept.",
    ),
    "family-id": _of(
        "The family ID of the ID block is expected, or all zero where it is unused.",
        "The signer of the ID block names the kind of image with it.",
        "Add the value, or `unused`.",
    ),
    "image-id": _of(
        "The image ID of the ID block is expected, or all zero where it is unused.",
        "The signer of the ID block names the image with it.",
        "Add the value, or `unused`.",
    ),
    "guest-svn": _of(
        "The guest's security version is at least the policy's, and at least its key's.",
        "An old image keeps its signature; only the version tells it from the repaired one.",
        "Launch the newer image. Lower the number only for images you still trust.",
    ),
    "report-id": _of(
        "The report's ID is one that the policy lists.",
        "It stays with one running guest for its whole life, and ties several reports to it.",
        "List it after a first report, where you want that one guest and no other.",
    ),
    "migration-agent": _of(
        "No migration agent is bound to the guest, or it is one of the policy's.",
        "An agent can take the guest's memory to another machine.",
        "Launch without one; or name the agent after looking at its own report.",
    ),
    **{name: _of(*texts) for name, texts in EVIDENCE.items()},
}

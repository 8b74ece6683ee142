# SPDX-License-Identifier: Apache-2.0
"""The names of all checks of a verifier: stable codes, in the order they are made.

Serves the verification policy, which may say what is required; the verifier,
which makes the checks; ``troth explain`` and docs/checks.md, which describe
them. Must hold no verdict and no rule. A name never changes its meaning.
"""

from __future__ import annotations

from troth.record import record

# Groups: what a check looks at.
REPORT = "report"
CERTIFICATES = "certificates"
FRESHNESS = "freshness"
GUEST = "guest"
PLATFORM = "platform"
IMAGE = "image"
EVIDENCE = "evidence"

#: What a permissive policy looks at; everything else is then not checked.
PERMISSIVE_GROUPS = (REPORT, CERTIFICATES)


@record
class CheckName:
    """One check.

    ``title``: what holds where it passed, as one clause; ``needed``: "always",
    "strict" (unless the policy's [required] says otherwise) or "wanted" (only
    where [required] says so, or the policy has a demand it compares with).
    """

    name: str
    group: str
    needed: str
    title: str


ALWAYS, STRICT, WANTED = "always", "strict", "wanted"
_A, _S, _W = ALWAYS, STRICT, WANTED

CHECKS = (
    CheckName("report-version", REPORT, _A, "the version of the report is accepted"),
    CheckName("report-reserved", REPORT, _A, "reserved bytes and bits are zero"),
    CheckName("signature-algorithm", REPORT, _A, "the signature is ECDSA P-384 with SHA-384"),
    CheckName("signing-key", REPORT, _A, "an endorsed key signed, VCEK or VLEK"),
    CheckName("certificate-line", CERTIFICATES, _A, "report and chain are of one product line"),
    CheckName("certificate-root", CERTIFICATES, _A, "the chain ends in a pinned root"),
    CheckName("certificate-intermediate", CERTIFICATES, _A, "the root issued the ASK or ASVK"),
    CheckName("certificate-key", CERTIFICATES, _A, "the ASK or ASVK issued the signing key"),
    CheckName("certificate-validity", CERTIFICATES, _A, "all certificates are valid at the time"),
    CheckName("certificate-revocation", CERTIFICATES, _S, "a current list revokes none of them"),
    CheckName("certificate-platform", CERTIFICATES, _A, "real or simulated, as the policy says"),
    CheckName("certificate-extensions", CERTIFICATES, _A, "the key's certificate is in AMD's form"),
    CheckName("certificate-tcb", CERTIFICATES, _A, "the signing key is for the reported TCB"),
    CheckName("certificate-chip", CERTIFICATES, _A, "the signing key is for the report's chip"),
    CheckName("report-signature", CERTIFICATES, _A, "the signing key signed these bytes"),
    CheckName("report-data", FRESHNESS, _S, "REPORT_DATA holds what the verifier asked for"),
    CheckName("guest-debug", GUEST, _A, "the host may not read the guest's memory"),
    CheckName("guest-migration", GUEST, _A, "no migration agent may take the guest elsewhere"),
    CheckName("guest-smt", GUEST, _A, "SMT is allowed only where the policy allows it"),
    CheckName("guest-cxl", GUEST, _A, "CXL memory is allowed only where the policy allows it"),
    CheckName("guest-single-socket", GUEST, _W, "the guest demands to stay on one socket"),
    CheckName("guest-aes-256-xts", GUEST, _W, "the guest demands AES-256-XTS"),
    CheckName("guest-rapl", GUEST, _W, "the guest demands that power readings are off"),
    CheckName("guest-ciphertext-hiding", GUEST, _W, "the guest demands ciphertext hiding"),
    CheckName("guest-page-swap", GUEST, _W, "the guest forbids page swapping"),
    CheckName("guest-abi", GUEST, _W, "the guest demands a recent firmware interface"),
    CheckName("vmpl", GUEST, _S, "the report was asked for from the expected privilege level"),
    CheckName("product-allowed", PLATFORM, _A, "the processor is of a product line not denied"),
    CheckName("provider-allowed", PLATFORM, _W, "the cloud that has the key is expected"),
    CheckName("chip-allowed", PLATFORM, _W, "the chip is one of the policy's"),
    CheckName("platform-alias-check", PLATFORM, _W, "memory was checked for aliases (BadRAM)"),
    CheckName("platform-smt", PLATFORM, _W, "SMT of the platform is as the policy says"),
    CheckName("platform-tsme", PLATFORM, _W, "TSME of the platform is as the policy says"),
    CheckName("platform-ecc", PLATFORM, _W, "ECC of the platform is as the policy says"),
    CheckName("platform-rapl", PLATFORM, _W, "power readings are off as the policy says"),
    CheckName("platform-ciphertext-hiding", PLATFORM, _W, "ciphertext hiding is as demanded"),
    CheckName("platform-tio", PLATFORM, _W, "SEV-TIO of the platform is as the policy says"),
    CheckName("platform-unknown", PLATFORM, _A, "no unknown bit describes the platform"),
    CheckName("tcb-reported", PLATFORM, _S, "the reported TCB is at least the floor"),
    CheckName("tcb-committed", PLATFORM, _S, "the committed TCB is at least the floor"),
    CheckName("tcb-launch", PLATFORM, _S, "the TCB at launch was at least the floor"),
    CheckName("tcb-order", PLATFORM, _A, "reported, committed and current TCB are in order"),
    CheckName("firmware-current", PLATFORM, _W, "the firmware that runs is recent enough"),
    CheckName("firmware-committed", PLATFORM, _W, "no older firmware can be loaded again"),
    CheckName("mitigations-launch", PLATFORM, _W, "mitigations were in force at launch"),
    CheckName("mitigations-current", PLATFORM, _W, "mitigations are in force"),
    CheckName("measurement", IMAGE, _S, "the launch digest is one of the expected"),
    CheckName("host-data", IMAGE, _S, "HOST_DATA is what is expected"),
    CheckName("id-block", IMAGE, _A, "ID block and key digests belong together"),
    CheckName("id-key", IMAGE, _A, "an expected ID key signed the launch, or none did"),
    CheckName("author-key", IMAGE, _A, "an expected author key did, or none"),
    CheckName("family-id", IMAGE, _S, "the family ID is expected"),
    CheckName("image-id", IMAGE, _S, "the image ID is expected"),
    CheckName("guest-svn", IMAGE, _A, "the guest's security version is high enough"),
    CheckName("report-id", IMAGE, _W, "the report is of the expected guest instance"),
    CheckName("migration-agent", IMAGE, _A, "the guest has no migration agent, or the expected"),
    CheckName("reference-values", EVIDENCE, _W, "signed reference values match"),
    CheckName("boot-chain-rooted", EVIDENCE, _W, "the launch digest covers what booted"),
    CheckName("registers", EVIDENCE, _W, "the registers hold what is expected"),
    CheckName("event-log", EVIDENCE, _W, "the event log explains the registers"),
    CheckName("channel-binding", EVIDENCE, _W, "the channel's key is bound to the guest"),
)

BY_NAME = {check.name: check for check in CHECKS}

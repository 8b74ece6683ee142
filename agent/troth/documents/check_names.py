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
    where [required] says so, or the policy has a demand it compares with). Those of
    the group "evidence" are needed where evidence is judged; a report alone has
    them only where [required] says so.
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
    CheckName("reference-values", EVIDENCE, _A, "signed reference values are in force"),
    CheckName("reference-svn", EVIDENCE, _A, "their security version is high enough"),
    CheckName(
        "reference-launch", EVIDENCE, _A, "the launch digest is one of theirs, and not retired"
    ),
    CheckName("reference-product", EVIDENCE, _A, "the image is meant for this processor"),
    CheckName("launch-policy", EVIDENCE, _A, "the launch has the image's guest policy"),
    CheckName("platform-kind", EVIDENCE, _A, "the evidence is of the launch digest's kind"),
    CheckName("boot-chain-rooted", EVIDENCE, _A, "the launch digest covers what booted"),
    CheckName("evidence-nonce", EVIDENCE, _A, "the evidence was made for this nonce"),
    CheckName("user-data", EVIDENCE, _S, "the evidence binds the expected user data"),
    CheckName("channel-binding", EVIDENCE, _S, "the channel's key is bound to the guest"),
    CheckName("caller", EVIDENCE, _W, "who asked the guest is one of the expected"),
    CheckName("binding", EVIDENCE, _A, "the report binds everything in the evidence"),
    CheckName("reports-agree", EVIDENCE, _W, "the guest's own report is of the same guest"),
    CheckName("event-log", EVIDENCE, _A, "the log is whole, its digests are of its contents"),
    CheckName("log-rollback", EVIDENCE, _W, "the event log only grew since it was last seen"),
    CheckName("boot-events", EVIDENCE, _A, "the guest booted as the reference values predict"),
    CheckName("command-line", EVIDENCE, _A, "the kernel's command line is one of the allowed"),
    CheckName("root-hash", EVIDENCE, _A, "the launch digest vouches for root hashes and policy"),
    CheckName("registers", EVIDENCE, _A, "registers, log and reference values agree"),
    CheckName("quote-format", EVIDENCE, _W, "the TPM's quote can be read"),
    CheckName("ak-attributes", EVIDENCE, _W, "the attestation key's attributes bind it to a TPM"),
    CheckName("ak-key", EVIDENCE, _W, "the attestation key is strong enough"),
    CheckName("ak-in-tpm", EVIDENCE, _W, "the attestation key is in the platform's TPM"),
    CheckName("quote-signature", EVIDENCE, _W, "the attestation key signed the quote"),
    CheckName("quote-fresh", EVIDENCE, _W, "the quote was made for this nonce"),
    CheckName("quote-pcrs", EVIDENCE, _W, "the quote is over the PCR values sent"),
    CheckName("quote-banks", EVIDENCE, _W, "the quoted PCRs are in a bank of SHA-256 or better"),
    CheckName("quote-replay", EVIDENCE, _W, "the event log comes to the quoted PCRs"),
    CheckName("quote-counters", EVIDENCE, _W, "the TPM was not reset since the boot"),
    CheckName("instance", EVIDENCE, _S, "the instance configuration is the expected"),
    CheckName("image-simulated", EVIDENCE, _A, "the image is for platforms as the policy says"),
    CheckName("raw-report-data", EVIDENCE, _A, "nobody in the guest may choose REPORT_DATA"),
    CheckName("cipher-self-tests", EVIDENCE, _A, "the kernel tests its ciphers"),
    CheckName("kernel-lockdown", EVIDENCE, _A, "the kernel is locked down"),
    CheckName("module-signatures", EVIDENCE, _A, "packed kernel modules are signed"),
    CheckName("io-errors", EVIDENCE, _A, "unreadable verified data stops the guest"),
    CheckName("volume-integrity", EVIDENCE, _A, "the host can change no volume unnoticed"),
    CheckName("volume-freshness", EVIDENCE, _S, "a broker counts the boots of every volume"),
    CheckName("acpi-protection", EVIDENCE, _A, "the host's ACPI code cannot reach memory"),
)

BY_NAME = {check.name: check for check in CHECKS}

# SPDX-License-Identifier: Apache-2.0
"""What each check of evidence means, why it matters, and what to do where it did not pass.

Serves ``verify.explain``, which has the same of reports. Must say what to mend
before what to accept.
"""

from __future__ import annotations

_NOTHING = "Nothing accepts this. Take the evidence for forged or broken until you know why."
_ALTERED = "Ask the guest again, and fetch the evidence whole. Nothing accepts this."
_BUILD = "Build the image without it; or accept it by the line of the hint, and write down why."
_QUOTE = (
    "Where the platform has a TPM of its own, ask for evidence with a quote. A host's TPM is only "
    "compared."
)

#: Name of the check -> (what is compared, why, what to do).
EVIDENCE = {
    "reference-values": (
        "A key that the policy names has signed the reference values, and they are in force.",
        "They say what an image of yours looks like; whoever may write them decides what passes.",
        (
            "Put the builder's key into [reference] public_keys, and use current values. Unsigned "
            "values are for your own experiments."
        ),
    ),
    "reference-svn": (
        "The security version of the reference values is at least the policy's.",
        "The values of an old image stay signed; only the version tells them from the repaired.",
        "Use the newer image. Lower the number only for images you still trust.",
    ),
    "reference-launch": (
        "The launch digest is one that the reference values list, and none that they retire.",
        "It ties the report to the image: everything else that is predicted follows from it.",
        "Launch the image that the values are of. Never take a digest from a report you were sent.",
    ),
    "reference-product": (
        "The processor is of a product line that the image is meant for.",
        "Whoever built the image said where it may run.",
        "Build the image for this product line, if it may run there.",
    ),
    "launch-policy": (
        "The guest policy in the report is the one that the reference values give the launch.",
        "The host chooses it, and the launch digest does not cover it.",
        "Launch the guest with the policy of its image.",
    ),
    "platform-kind": (
        "The platform kind in the evidence is the one of the launch digest that matched.",
        "A guest may claim a service that it does not have and write its words itself.",
        _NOTHING,
    ),
    "boot-chain-rooted": (
        "The launch digest, or a TPM that it roots, covers kernel, initramfs and command line.",
        "Otherwise the host chooses what boots, whatever the registers say.",
        (
            "Launch from an IGVM file, or with firmware that checks kernel hashes. Firmware of a "
            "cloud that covers only itself roots nothing."
        ),
    ),
    "evidence-nonce": (
        "The nonce in the evidence is the one you sent.",
        "Old evidence of a guest that was good then proves nothing now.",
        "Ask again with a fresh nonce.",
    ),
    "user-data": (
        "The user data in the evidence is what you said, or there is none.",
        "It is what your protocol binds: what you do not compare, anybody may have chosen.",
        "Say what you expect with `--user-data`.",
    ),
    "channel-binding": (
        "The key of the channel to the guest is the one that the guest bound.",
        "Otherwise another machine may have passed the evidence of a genuine guest on.",
        (
            "Give the key or certificate of the channel you have with `--channel-key`. Waive it "
            "only where nothing is sent to the guest."
        ),
    ),
    "caller": (
        "Who asked the guest's agent, as the agent wrote it, is one of the policy's.",
        "Any member of the agent's group may bind a key of its own as that of the guest.",
        "List who may: user, group and unit, as they stand in the evidence.",
    ),
    "binding": (
        "The report binds every field of the evidence, where its platform kind has the binding.",
        "It is what makes one piece of log, registers, quote, key and report.",
        _ALTERED,
    ),
    "reports-agree": (
        "The guest's own report is of the same guest, launch, chip and TCB as the service's.",
        "Two reports of two guests would let one speak for the other.",
        _ALTERED,
    ),
    "event-log": (
        "The log has the records it claims, numbered from 0, and its digests are of its contents.",
        "Without it a register is a number that nobody understands.",
        _ALTERED,
    ),
    "log-rollback": (
        "The log begins with the records that were seen of this guest before.",
        "A log that lost records hides what was run.",
        "Keep what was seen with `--state DIR`. A log that went back: take the guest for lost.",
    ),
    "boot-events": (
        (
            "The guest measured what the reference values predict, once each, in order, and then "
            "closed its boot."
        ),
        "The first event that differs says what is different: a volume, the workload, a word.",
        "Boot the image that the values are of; or use the values of this image.",
    ),
    "command-line": (
        "The kernel's command line is one that the launch digest or the reference values allow.",
        "Words on it change what the kernel and the next init do.",
        "Boot with an allowed command line. What may vary is said in the manifest, at build.",
    ),
    "root-hash": (
        (
            "Root hashes and policy in the log are those of the reference values, and a launch "
            "digest vouches for them."
        ),
        "The log alone is the word of the guest's root, who could write any root hash into it.",
        "Make `boot-chain-rooted` and `boot-events` pass; this follows.",
    ),
    "registers": (
        "Each register holds what the log comes to, and after the boot what is predicted.",
        "A register that the log does not explain holds something that was not logged.",
        "Find out who else extends the register. Nothing accepts it.",
    ),
    "quote-format": (
        "The quote, its key and its signature can be read.",
        "A TPM that the launch digest roots says with it what was booted.",
        _QUOTE,
    ),
    "ak-attributes": (
        "The key is restricted, signs, decrypts nothing, and was made in a TPM it cannot leave.",
        "Any other key may have signed bytes that no TPM made.",
        _QUOTE,
    ),
    "ak-key": (
        "The key is RSA of 2048 bits or more, or ECC, with SHA-256 or better.",
        "Weaker ones can be forged.",
        _QUOTE,
    ),
    "ak-in-tpm": (
        "The platform vouches that the key is in its TPM.",
        "A hash of a key in data that the guest chose does not say where the key is.",
        "Under an SVSM this takes two rounds, with a secret that only its TPM opens.",
    ),
    "quote-signature": (
        "The attestation key signed the quote.",
        "An unsigned quote is anybody's.",
        _QUOTE,
    ),
    "quote-fresh": (
        "The quote signs your nonce along, and the name of its own key.",
        "An old quote, or one of another machine, says nothing of this one now.",
        "Ask again with a fresh nonce.",
    ),
    "quote-pcrs": (
        "The digest in the quote is over exactly the PCR values in the evidence.",
        "Values that the quote does not cover are anybody's.",
        _ALTERED,
    ),
    "quote-banks": (
        "Every PCR of the log is quoted in a bank of SHA-256 or better.",
        "In a bank of SHA-1 two different logs can come to one value.",
        "Switch the bank on in the TPM's firmware settings.",
    ),
    "quote-replay": (
        "The log comes to the quoted values.",
        "Otherwise something was measured that the log does not show.",
        "Find out who else extends the register. Nothing accepts it.",
    ),
    "quote-counters": (
        "Resets and restarts of the TPM are those it had at boot, and its clock went on.",
        "A TPM that was reset can be told the whole boot again, by somebody else.",
        "Boot the guest again.",
    ),
    "instance": (
        "The instance configuration that the guest took is the expected one, and is HOST_DATA.",
        "The host chooses among all configurations that the image allows.",
        "Name the file with `--instance`, or list its SHA-256 in `[launch] host_data`.",
    ),
    "image-simulated": (
        "The image is not made for the simulated platform, unless the policy is.",
        "Such an image has keys and protections that are for tests.",
        'Build the image with `snp = "required"`.',
    ),
    "raw-report-data": (
        "The image lets nobody in the guest choose REPORT_DATA itself.",
        "Whoever chooses it can write any binding: binding-forgeable-by-caller.",
        _BUILD,
    ),
    "cipher-self-tests": (
        "The kernel's command line does not switch the self-tests of its ciphers off.",
        "A broken cipher would go unnoticed.",
        _BUILD,
    ),
    "kernel-lockdown": (
        "The kernel is in lockdown, integrity or confidentiality.",
        "Without it root in the guest can change the running kernel.",
        _BUILD,
    ),
    "module-signatures": (
        "All packed kernel modules carry a signature.",
        "The kernel can then refuse others.",
        _BUILD,
    ),
    "io-errors": (
        "Verified data that cannot be read stops the guest.",
        "Elsewhere the host decides which files fail, one by one: kernels before 6.12 cannot stop.",
        "Use a newer kernel; or accept it by the line of the hint.",
    ),
    "volume-integrity": (
        "Every volume is authenticated.",
        "Of others the host can change blocks without being noticed.",
        _BUILD,
    ),
    "volume-freshness": (
        "A broker keeps the generation of every volume that lasts, and refuses older ones.",
        "Where nobody counts, the host attaches an old copy and undoes what was written since.",
        "Keep the volume headerless, its key with `troth keybroker`; or accept not knowing.",
    ),
    "acpi-protection": (
        "Something keeps the host's ACPI code from the guest's memory.",
        "It runs in the guest's kernel, after a perfect launch digest (BadAML).",
        (
            "Boot with `acpi=off` or tables that the launch digest covers. Accepting `unprotected` "
            "means trusting the host."
        ),
    ),
}

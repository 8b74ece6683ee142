# SPDX-License-Identifier: Apache-2.0
"""reference-values.json: what a guest of this image will show, if it is this image.

Flows from ``troth build`` to relying parties. Fields are described in
``docs/formats.md``; ``documents.reference_values_json`` reads and prints it.
Pure: it holds predictions and never computes one.
"""

from __future__ import annotations

from troth.record import record

SCHEMA = "troth-reference-values-v1"
FILE_NAME = "reference-values.json"

PLATFORMS = ("none", "direct", "svsm", "azure-paravisor", "simulated")
#: What can root the boot chain of a launch; "simulated" is no launch of hardware.
LAUNCH_PLATFORMS = ("direct", "svsm", "azure-paravisor", "simulated")
SIMULATED = "simulated"
LAUNCH_KINDS = ("igvm", "ovmf", "simulated")
VMMS = ("qemu", "ec2", "gce")
#: What a launch digest can cover, in this order. A boot chain is rooted with the first three.
COVERED = ("kernel", "initramfs", "cmdline", "acpi")
BOOT_CHAIN = COVERED[:3]

#: What the policy says of instance configurations.
REFUSED, REQUIRED = "refused", "required"
INSTANCE_STATES = (REFUSED, "optional", REQUIRED)
TPM_STATES = ("present", "absent", "unused")
#: Banks that predictions are made for, in the order they are listed.
BANKS = ("sha1", "sha256", "sha384", "sha512")
DIGEST_BYTES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
SOFTWARE_BYTES = 48
LAUNCH_DIGEST_BYTES = 48

#: ``expires`` of values whose signer said on purpose that they have no end.
NEVER = "never"
#: Words that OVMF appends to the command line it was given, before the kernel sees it.
OVMF_WORDS = " initrd=initrd"

MAX_LAUNCHES = 4096
MAX_REVOKED = 65536
MAX_VCPUS = 512


@record
class Registers:
    """What the registers hold at one moment.

    ``pcrs``: (bank, index, lower-case hex), empty where no TPM is used;
    ``software``: the SHA-384 chain over the event log, in hex.
    """

    pcrs: tuple[tuple[str, int, str], ...]
    software: str


@record
class Case:
    """One boot the policy allows: a command line with its platform ``form`` and a TPM state.

    ``cmdline``: as /proc/cmdline without the final newline; its SHA-256 stands
    beside it in the document. ``tpm``: "present", "absent" or "unused";
    ``workload``, ``handover``: the two moments of DESIGN section 8.
    """

    form: str
    cmdline: str
    tpm: str
    workload: Registers
    handover: Registers


@record
class LaunchValue:
    """One launch digest, and every condition under which a good launch has it.

    ``digest``: MEASUREMENT of the report, in hex. ``kind``: "igvm", "ovmf", or
    "simulated", which stands with the platform of that name and no other;
    ``platform``: what roots the boot chain of a guest with this digest, never
    taken from evidence (SECURITY V-a). ``file``: the IGVM file of the bundle, or
    the firmware's name; ``ovmf_hash``: digest over the firmware's own pages
    ("" for igvm). ``form``, ``cmdline``: of the cases that this launch leads to.

    ``vcpus``, 0 where the digest depends on no number; ``cpu_types``,
    ``vcpu_signature``: processor names that all have this CPUID signature, ()
    and 0 where the digest depends on none;
    ``memory_bytes``: of the machine, 0 where the digest does not depend on it;
    ``vmm``: whose reset state; ``guest_features``: SEV_FEATURES.

    ``policy``: the SNP guest policy that the launch must have; the digest does
    not cover it (S14). ``acpi_aml``: as ``Flags``, for this launch. ``covers``:
    words of ``COVERED``. ``experimental``: why nobody should rely on it yet, or "".
    """

    digest: str
    kind: str
    platform: str
    file: str
    ovmf_hash: str
    form: str
    cmdline: str
    vcpus: int
    cpu_types: tuple[str, ...]
    vcpu_signature: int
    memory_bytes: int
    vmm: str
    guest_features: int
    policy: int
    acpi_aml: str
    covers: tuple[str, ...]
    experimental: str

    @property
    def roots_boot_chain(self) -> bool:
        """Whether the digest covers all that decides which PID 1 runs (S2)."""
        rooted = self.platform in ("direct", "simulated")
        return rooted and set(BOOT_CHAIN) <= set(self.covers)


@record
class Flags:
    """Choices a relying party may want to refuse; none of them is a measurement.

    ``acpi_aml``: off, unprotected, ... (SECURITY S11); ``cryptomgr_notests``: the
    command line switches the kernel's cipher self-tests off, so that a broken AES
    would go unnoticed (S42); ``unsigned_modules``: packed modules carry no
    signature (S33); ``io_error``: "panic", or "survivable" on kernels that
    cannot panic on unreadable blocks (S34); ``simulated``: made for the simulated
    secure processor (S23); ``unauthenticated_volumes``: names of volumes whose
    host can change data unnoticed; ``untracked_volumes``: of those it can put back
    to an older state between boots, because nobody counts (S9).
    """

    acpi_aml: str
    cryptomgr_notests: bool
    modules_disabled: bool
    lockdown: str
    unsigned_modules: bool
    io_error: str
    overlay: str
    overlay_paths: tuple[str, ...]
    simulated: bool = False
    unauthenticated_volumes: tuple[str, ...] = ()
    untracked_volumes: tuple[str, ...] = ()


@record
class ReferenceValues:
    """The whole of reference-values.json.

    ``instance``: "refused", "optional" or "required": whether a boot takes an
    instance configuration. ``cases`` are of boots without one, whose digest nobody
    knows in advance: with one, ``measure.boot_registers`` says what registers hold.
    ``root_hashes``: (volume, hex), root first; ``workload``: the tree digest in
    hex, empty for images that measure none. ``products``: processors the image
    is meant for, () for any; ``revoked``: launch digests that must not be
    accepted, of this image or of older ones. ``artefacts``: (file of the bundle,
    SHA-256); ``inputs``: the same of what the build read and the bundle does not
    hold. ``issued``, ``expires``, ``commit``: empty until somebody signs;
    ``expires`` may then be ``NEVER``.
    """

    image_name: str
    svn: int
    troth_version: str
    platform: str
    snp: str
    vtpm: str
    vtpm_kind: str
    policy_sha256: str
    root_hashes: tuple[tuple[str, str], ...]
    workload: str
    cases: tuple[Case, ...]
    flags: Flags
    launch: tuple[LaunchValue, ...] = ()
    products: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    artefacts: tuple[tuple[str, str], ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    issued: str = ""
    expires: str = ""
    commit: str = ""
    instance: str = REFUSED

    @property
    def in_force(self) -> tuple[LaunchValue, ...]:
        """The launches that are not revoked; dates and signatures are judged elsewhere."""
        return tuple(value for value in self.launch if value.digest not in self.revoked)


def launch_cmdline(value: LaunchValue) -> str:
    """The command line that the host passes and the digest covers.

    OVMF appends words to it, which the kernel and the guest's measurements see.
    """
    return value.cmdline.removesuffix(OVMF_WORDS) if value.form == "ovmf-direct" else value.cmdline

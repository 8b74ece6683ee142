# SPDX-License-Identifier: Apache-2.0
"""Verbs that compute what the hardware will measure: launch, igvm, id-block."""

from __future__ import annotations

from troth.cli.grammar.shape import JSON, Option, Positional, Verb

VCPU_TYPE = Option(
    ("--vcpu-type",), "processor name as QEMU calls it, such as EPYC-v4", metavar="TYPE"
)
VCPU_SIG = Option(
    ("--vcpu-sig",),
    "processor signature (CPUID 1 EAX) instead of a name, as of the host for -cpu host",
    metavar="NUMBER",
)
IGVM_FILE = Positional("file", "the IGVM file", "FILE", kind="file")

MEASURE_LAUNCH = Verb(
    words=("measure", "launch"),
    function="troth.cli.measure_launch:launch",
    summary="compute the launch digest of a direct boot with OVMF",
    description="Computes what the secure processor measures when QEMU, or a cloud, starts this "
    "firmware, with the hashes of kernel, initrd and command line where a kernel is given. "
    "Nothing is booted and no hardware is needed.",
    options=(
        Option(("--ovmf",), "the firmware file", metavar="FILE", kind="file"),
        Option(
            ("--ovmf-hash",),
            "start from the digest of the firmware's pages; --ovmf then gives metadata only",
            metavar="HEX",
        ),
        Option(
            ("--parameters",),
            "take firmware digest and metadata from what --format json printed, instead of --ovmf",
            metavar="FILE",
            kind="file",
        ),
        Option(("--kernel",), "the kernel", metavar="FILE", kind="file"),
        Option(("--initrd",), "the initramfs", metavar="FILE", kind="file"),
        Option(("--append",), "the kernel command line", metavar="TEXT"),
        Option(("--vcpus",), "number of processors", metavar="N", kind="integer"),
        VCPU_TYPE,
        VCPU_SIG,
        Option(("--vcpu-family",), "processor family, with model and stepping", metavar="NUMBER"),
        Option(("--vcpu-model",), "processor model", metavar="NUMBER"),
        Option(("--vcpu-stepping",), "processor stepping", metavar="NUMBER"),
        Option(
            ("--vmm",),
            "who starts the processors, each in a state of its own",
            metavar="NAME",
            choices=("qemu", "ec2", "gce"),
            default="qemu",
        ),
        Option(("--guest-features",), "SEV_FEATURES of the guest", metavar="NUMBER", default="0x1"),
        Option(
            ("--mode",),
            "what is measured: an SNP launch, its firmware's pages alone, or older SEV",
            metavar="MODE",
            choices=("snp", "snp:ovmf-hash", "seves", "sev"),
            default="snp",
        ),
        Option(
            ("--compat",),
            "whose answer where peers disagree about EC2",
            metavar="PEER",
            choices=("sev-snp-measure", "virtee-sev"),
            default="sev-snp-measure",
        ),
        Option(
            ("--format",),
            "how to print the digest; json holds all that --parameters takes",
            metavar="FORM",
            choices=("hex", "base64", "json"),
            default="hex",
        ),
    ),
)

MEASURE_IGVM = Verb(
    words=("measure", "igvm"),
    function="troth.cli.measure_igvm:igvm",
    summary="compute the launch digest of an IGVM file",
    description="Walks the file's directives in their order and computes what the secure processor "
    "measures. Names every input that the digest does not cover.",
    positionals=(IGVM_FILE,),
    options=(
        Option(
            ("--platform", "-p"),
            "the platform to measure for",
            metavar="NAME",
            choices=("sev", "sev-es", "sev-snp"),
            default="sev-snp",
        ),
        Option(
            ("--check-kvm", "-c"), "refuse what QEMU and KVM would not launch as it is measured"
        ),
        Option(("--native-zero", "-n"), "measure pages without data as the hardware's zero pages"),
        Option(("--ignore-idblock", "-i"), "accept an ID block made for another digest"),
        Option(("--bare", "-b"), "print the digest only"),
        Option(("--verbose", "-v"), "print each run of pages"),
        Option(
            ("--compat",),
            "measure as this peer does where it differs from the specification and QEMU",
            metavar="PEER",
            choices=("igvmmeasure",),
        ),
        Option(
            ("--vcpus",),
            "processors of the machine: KVM measures the state of those the file does not describe",
            metavar="N",
            kind="integer",
            default="1",
        ),
        VCPU_TYPE,
        VCPU_SIG,
        JSON,
    ),
)

_ID_BLOCK_OPTIONS = (
    Option(
        ("--id-key",),
        "P-384 key of the image's owner: private, or public where its signature is made elsewhere",
        metavar="KEY",
        kind="file",
        required=True,
    ),
    Option(
        ("--author-key",),
        "P-384 key that vouches for the ID key, private or public likewise",
        metavar="KEY",
        kind="file",
    ),
    Option(("--svn",), "security version of the guest", metavar="N", kind="integer"),
    Option(("--family-id",), "16 bytes that name the family", metavar="HEX"),
    Option(("--image-id",), "16 bytes that name the image", metavar="HEX"),
    Option(
        ("--detached",),
        "write what the keys must sign instead: OUT.id-block, and OUT.id-key for the author key",
    ),
    Option(
        ("--id-signature",),
        "the ID key's signature made elsewhere (DER)",
        metavar="FILE",
        kind="file",
    ),
    Option(
        ("--author-signature",),
        "the author key's signature made elsewhere (DER)",
        metavar="FILE",
        kind="file",
    ),
    JSON,
)

MEASURE_ID_BLOCK = Verb(
    words=("measure", "id-block"),
    function="troth.cli.id_block:id_block",
    summary="make ID block and ID authentication for a launch digest",
    description="Prints the values of QEMU's id-block and id-auth options. The secure processor "
    "refuses a launch whose digest or policy differ from what the ID block says. Signatures made "
    "here are deterministic.",
    positionals=(Positional("digest", "the launch digest", "HEX"),),
    options=(
        *_ID_BLOCK_OPTIONS,
        Option(
            ("--policy",),
            "the guest policy the launch must have",
            metavar="HEX",
            default="0x30000",
        ),
        Option(
            ("--output", "-o"),
            "write OUT.id-block and OUT.id-auth too",
            metavar="OUT",
            kind="file",
        ),
    ),
)

IGVM_SIGN = Verb(
    words=("igvm", "sign"),
    function="troth.cli.id_block:sign",
    summary="put a signed ID block into an IGVM file",
    description="Measures FILE, puts an ID block behind its directives, and keeps everything else "
    "as it is. An ID block that FILE holds is replaced; its SVN and ids are taken over where they "
    "are not given. Signatures made here are deterministic: the same keys and file give the same "
    "bytes.",
    positionals=(IGVM_FILE,),
    options=(
        *_ID_BLOCK_OPTIONS,
        Option(
            ("--policy",),
            "the guest policy the launch must have; FILE's own where not given, and changed in it",
            metavar="HEX",
        ),
        Option(
            ("--vcpus",),
            "processors of the machine, which the digest covers",
            metavar="N",
            kind="integer",
            default="1",
        ),
        VCPU_TYPE,
        VCPU_SIG,
        Option(("--output", "-o"), "the file to write", metavar="FILE", kind="file", required=True),
    ),
)

IGVM_BUILD = Verb(
    words=("igvm", "build"),
    function="troth.cli.igvm_build:build",
    summary="make an IGVM file from a bundle",
    description="Makes a plain Linux IGVM file of the bundle's kernel, initramfs and command line. "
    "Memory size and number of processors are part of the file and of its digest.",
    positionals=(Positional("bundle", "the bundle directory", "DIR", kind="directory"),),
    options=(
        Option(("--output", "-o"), "the file to write", metavar="FILE", kind="file", required=True),
        Option(("--vcpus",), "processors of the machine", metavar="N", kind="integer", default="1"),
        Option(("--memory",), "memory of the machine", metavar="SIZE", default="1G"),
        Option(("--policy",), "the SNP guest policy", metavar="HEX", default="0x30000"),
    ),
)

VERBS = (MEASURE_LAUNCH, MEASURE_IGVM, MEASURE_ID_BLOCK, IGVM_BUILD, IGVM_SIGN)

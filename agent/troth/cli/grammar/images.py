# SPDX-License-Identifier: Apache-2.0
"""Verbs that make, boot and look at images: build, run, inspect, doctor, verity, pcr."""

from __future__ import annotations

from troth.cli.grammar.shape import JSON, STATUS, Option, Positional, Verb

BUILD = Verb(
    words=("build",),
    function="troth.cli.build:build",
    summary="make a bundle from a manifest",
    description="Reads the manifest and writes kernel, initramfs, verity images, policy and "
    "reference values to DIR. The same manifest, lock file and inputs give the same bytes.",
    positionals=(Positional("manifest", "the image's description", "MANIFEST", kind="file"),),
    options=(
        Option(
            ("--output", "-o"),
            "the bundle directory to write",
            metavar="DIR",
            kind="directory",
            required=True,
        ),
        Option(("--update",), "take current versions and write troth.lock anew"),
    ),
)

RUN = Verb(
    words=("run",),
    function="troth.cli.run:run",
    summary="boot a bundle in QEMU",
    description="Boots the bundle with its disks read-only and, unless the bundle wants none, a "
    "fresh software TPM. The console goes to standard output. Success means that PID 1 handed "
    "over and the guest powered itself off.",
    positionals=(Positional("bundle", "the bundle directory", "DIR", kind="directory"),),
    options=(
        Option(("--no-tpm",), "attach no TPM"),
        Option(
            ("--no-network",),
            "attach no network device of our own, though the bundle uses one before its handover",
        ),
        Option(("--sim-snp",), "start a simulated secure processor (bundles with snp = simulated)"),
        Option(
            ("--disk",),
            "attach a further raw image; ',ro' makes it read-only",
            metavar="SERIAL=FILE[,ro]",
            repeat=True,
        ),
        Option(
            ("--forward",),
            "let port HOST of 127.0.0.1 reach port GUEST of the guest",
            metavar="HOST:GUEST",
            repeat=True,
        ),
        Option(
            ("--port",),
            "add virtio-serial port NAME, as listening unix socket SOCKET",
            metavar="NAME=SOCKET",
            repeat=True,
        ),
        Option(("--timeout",), "end the guest after S seconds", metavar="S", kind="number"),
        Option(
            ("--console",),
            "write the console's raw bytes to FILE instead of showing it",
            metavar="FILE",
            kind="file",
        ),
        Option(("--chart",), "draw kernel and stages over time", metavar="F.svg", kind="file"),
        Option(("--json",), "print the outcome as JSON; the console goes to standard error"),
        Option(("--dry-run",), "print the commands that would run"),
        Option(("--memory",), "memory of the guest", metavar="SIZE", default="1G"),
        Option(("--cpus",), "processors of the guest", metavar="N", kind="integer", default="1"),
        Option(
            ("--cmdline",),
            "take the kernel command line from F instead of the bundle",
            metavar="F",
            kind="file",
        ),
        Option(
            ("--tpm-state",),
            "keep the TPM's state in DIR between runs",
            metavar="DIR",
            kind="directory",
        ),
        Option(
            ("--instance",),
            "attach an instance configuration; its digest is HOST_DATA of the launch",
            metavar="F",
            kind="file",
        ),
        Option(
            ("--sim-control",),
            "control socket of the simulated secure processor",
            metavar="SOCKET",
            kind="file",
        ),
        Option(
            ("--firmware",),
            "firmware of the guest",
            metavar="NAME",
            choices=("seabios", "ovmf"),
            default="seabios",
        ),
        Option(
            ("--accel",),
            "accelerator; auto takes KVM only where a timed trial shows it is real",
            metavar="NAME",
            choices=("auto", "tcg", "kvm"),
            default="auto",
        ),
        Option(("--qemu-arg",), "a further word for QEMU, as it is", metavar="ARG", repeat=True),
    ),
    status=(
        (0, "PID 1 handed over and the guest powered off in order"),
        (1, "refused, panic, reset, time-out, or the workload exited with another status than 0"),
        *STATUS[2:],
    ),
)

INSPECT = Verb(
    words=("inspect",),
    function="troth.cli.inspect:inspect",
    summary="list, print and compare what is in a bundle",
    description="TARGET is a bundle directory or a file of one. 'TARGET diff OTHER' names the "
    "first file that differs and why; 'TARGET cat PATH' prints a packed file.",
    positionals=(
        Positional("target", "a bundle or a file of one", "FILE|DIR", kind="file"),
        Positional(
            "action", "ls, cat, diff or firmware; without one a summary", "ACTION", count="optional"
        ),
        Positional("rest", "arguments of the action", "ARGUMENT", kind="file", count="many"),
    ),
    options=(JSON,),
)

DOCTOR = Verb(
    words=("doctor",),
    function="troth.cli.doctor:doctor",
    summary="say what this machine lacks for building and booting images",
    description="Names each program troth uses, what for and in which version, and ends with the "
    "one command that installs what is missing.",
    options=(JSON,),
    status=((0, "all that is required is there"), STATUS[2], (3, "something required is missing")),
)

_DATA = Positional("data", "the data image", "DATA", kind="file")
_HASH = Positional("hash", "the image of superblock and hash tree", "HASH", kind="file")

VERITY_FORMAT = Verb(
    words=("verity", "format"),
    function="troth.cli.verity:format_",
    summary="write superblock and hash tree of an image",
    description="Writes to HASH what 'veritysetup format' would for the same salt and UUID, on "
    "all cores, and prints the root hash.",
    positionals=(_DATA, _HASH),
    options=(
        Option(("--salt",), "the salt; random where not given", metavar="HEX"),
        Option(("--uuid",), "the superblock's UUID; random where not given", metavar="UUID"),
        JSON,
    ),
)

VERITY_VERIFY = Verb(
    words=("verity", "verify"),
    function="troth.cli.verity:verify",
    summary="check an image against its hash tree and a root hash",
    description="Reads all of DATA and HASH. Without --root-hash it can only say whether the "
    "two agree, which proves nothing about where they come from.",
    positionals=(_DATA, _HASH),
    options=(Option(("--root-hash",), "the root hash to demand", metavar="HEX"), JSON),
)

PCR_PREDICT = Verb(
    words=("pcr", "predict"),
    function="troth.cli.pcr:predict",
    summary="say what a bundle's guest will hold in its PCRs",
    description="Computes the PCRs troth owns from the bundle alone, or for a launch with an "
    "instance configuration, whose digest it prints as HOST_DATA of that launch.",
    positionals=(Positional("bundle", "the bundle directory", "DIR", kind="directory"),),
    options=(
        Option(
            ("--at",),
            "the point of the boot",
            metavar="POINT",
            choices=("workload", "handover"),
            default="handover",
        ),
        Option(
            ("--instance",), "of boots with this instance configuration", metavar="F", kind="file"
        ),
        JSON,
    ),
)

PCR_REPLAY = Verb(
    words=("pcr", "replay"),
    function="troth.cli.pcr:replay",
    summary="compute PCR values from an event log",
    description="Replays an event log of the guest (/run/troth/event-log.jsonl). With --against "
    "it also names the first event that no boot of the bundle would have there.",
    positionals=(Positional("log", "the event log", "LOG", kind="file"),),
    options=(
        Option(
            ("--against",),
            "compare with what the bundle in DIR predicts",
            metavar="DIR",
            kind="directory",
        ),
        Option(
            ("--instance",),
            "with --against: the instance configuration it must be, instead of any",
            metavar="F",
            kind="file",
        ),
        JSON,
    ),
)

VERBS = (
    BUILD,
    RUN,
    INSPECT,
    DOCTOR,
    VERITY_FORMAT,
    VERITY_VERIFY,
    PCR_PREDICT,
    PCR_REPLAY,
)

# SPDX-License-Identifier: Apache-2.0
"""Verbs about encrypted volumes: volume check, volume format."""

from __future__ import annotations

from troth.cli.grammar.shape import JSON, Option, Positional, Verb

_KEY = "the source key, 32 to 64 random bytes; the passphrase is derived from it"
_RAW = Option(("--raw-key",), "the bytes of the key file are the passphrase, as they are")

CHECK = Verb(
    words=("volume", "check"),
    function="troth.cli.volume_check:check",
    summary="judge a LUKS2 header, or the record of a volume without one, as a guest would",
    description="Reads once what a guest reads and makes every check: what was expected, what is "
    "there, and which attack the check ends. With a key, and for LUKS2 only where nothing was "
    "refused, it is tried whether it opens the volume; without one, nothing of a record is "
    "proved. Neither needs root, a device-mapper or cryptsetup.",
    positionals=(
        Positional(
            "header", "the volume; of LUKS2 a copy of its first MiB does", "HEADER", kind="file"
        ),
    ),
    options=(
        Option(("--key-file",), _KEY, metavar="K", kind="file"),
        _RAW,
        Option(
            ("--format",),
            "what the volume has to be (default: what the disk shows)",
            metavar="NAME",
            choices=("headerless", "luks2"),
        ),
        Option(
            ("--integrity",),
            "how changes by the host have to be found, whatever --profile says",
            metavar="NAME",
            choices=("hmac", "aes-gcm", "none"),
        ),
        Option(("--uuid",), "the UUID it has to have, whatever --profile says", metavar="UUID"),
        Option(
            ("--record",),
            "SHA-256 of the record that the broker committed, for a volume without a header",
            metavar="HEX",
        ),
        Option(
            ("--profile",),
            "what the volume has to be, in TOML or JSON (default: what its LUKS2 header shows)",
            metavar="F",
            kind="file",
        ),
        JSON,
    ),
    status=(
        (0, "accepted, and opened where a key was given"),
        (1, "refused, or the key does not open it"),
        (2, "the command line or the profile cannot be used"),
        (3, "this machine lacks something; the message says what"),
    ),
)

FORMAT = Verb(
    words=("volume", "format"),
    function="troth.cli.volume_format:format_",
    summary="make an encrypted volume",
    description="Writes a new volume onto a device or into a file, without root and without the "
    "device-mapper. Only with --integrity none is it complete: tags are the kernel's to write, so "
    "a guest makes a headerless volume that has them, on a blank disk, at its first boot. "
    "What is there and not blank is left alone.",
    positionals=(Positional("device", "the device or file", "DEV", kind="file"),),
    options=(
        Option(("--key-file",), _KEY, metavar="K", kind="file", required=True),
        _RAW,
        Option(
            ("--format",),
            "the volume's form on the disk",
            metavar="NAME",
            choices=("headerless", "luks2"),
            default="headerless",
        ),
        Option(
            ("--integrity",),
            "how changes by the host are found",
            metavar="NAME",
            choices=("hmac", "aes-gcm", "none"),
            default="hmac",
        ),
        Option(("--uuid",), "the volume's UUID (default: a random one)", metavar="UUID"),
        Option(("--size",), "make a new file of SIZE, such as 64M or 2G", metavar="SIZE"),
        Option(
            ("--content",),
            "encrypt the bytes of FILE into the volume, with --integrity none; a volume without a "
            "header gets an empty ext4 where nothing is given",
            metavar="FILE",
            kind="file",
        ),
        Option(
            ("--data-offset",),
            "where data begin with luks2 (16M where it is not said); 1M for small volumes",
            metavar="SIZE",
            choices=("1M", "16M"),
        ),
        Option(("--overwrite",), "write over a device or file that is not blank"),
        JSON,
    ),
)

VERBS = (CHECK, FORMAT)

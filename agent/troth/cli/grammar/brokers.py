# SPDX-License-Identifier: Apache-2.0
"""Verbs of the reference key broker."""

from __future__ import annotations

from troth.cli.grammar.shape import JSON, Option, Positional, Verb

_DB = Option(("--db",), "the broker's directory", metavar="DIR", kind="directory", required=True)
_PASSPHRASE = Option(
    ("--passphrase-file",),
    "the file whose content seals the keys; from the first command on, or never",
    metavar="FILE",
    kind="file",
)

KEYBROKER_SERVE = Verb(
    words=("keybroker", "serve"),
    function="troth.cli.keybroker_serve:serve",
    summary="serve keys to attested guests",
    description="Speaks the key broker protocol (KBS 0.4.0) and troth's own calls over TLS 1.3, "
    "until SIGTERM. On first use it makes its TLS key, and always prints the digest that guests "
    "pin. The policy is kept: later starts may leave it out.",
    options=(
        _DB,
        Option(
            ("--listen",),
            "address and port, IPv6 in brackets",
            metavar="HOST:PORT",
            default="127.0.0.1:8443",
        ),
        Option(("--policy",), "the verification policy, strict", metavar="FILE", kind="file"),
        Option(
            ("--certs",),
            "certificates and revocation lists, for evidence that brings none",
            metavar="DIR",
            kind="directory",
        ),
        Option(
            ("--trust-domain",), "also issue SPIFFE identities in this domain", metavar="DOMAIN"
        ),
        Option(
            ("--name",),
            "host name or address for the certificate made on first use",
            metavar="HOST",
            repeat=True,
        ),
        _PASSPHRASE,
    ),
)

KEYBROKER_ADD = Verb(
    words=("keybroker", "add"),
    function="troth.cli.keybroker_add:add",
    summary="add a class of guests, a volume, or another secret",
    description="--reference, --activate, --volume, --resource or --grant says what. Guests of a "
    "class are those whose launch digest its signed reference values name. A volume belongs to "
    "images by name, so newer versions of an image keep it.",
    options=(
        _DB,
        Option(("--reference",), "signed reference values of a class", metavar="FILE", kind="file"),
        Option(
            ("--key",),
            "public key whose signature on them counts",
            metavar="PEM",
            kind="file",
            repeat=True,
        ),
        Option(("--pending",), "the class gets no keys until it is activated"),
        Option(("--activate",), "let pending classes of an image have keys", metavar="IMAGE"),
        Option(("--svn",), "that version only", metavar="N", kind="integer"),
        Option(("--volume",), "path of a volume's key", metavar="REPO/TYPE/TAG"),
        Option(("--resource",), "path of another secret", metavar="REPO/TYPE/TAG"),
        Option(("--grant",), "path of what further images may have", metavar="REPO/TYPE/TAG"),
        Option(("--file",), "the secret, with --resource", metavar="FILE", kind="file"),
        Option(("--image",), "image whose guests may have it", metavar="IMAGE", repeat=True),
        Option(("--uuid",), "the volume's id, as its image's policy has it", metavar="UUID"),
        Option(
            ("--integrity",),
            "of the volume",
            metavar="KIND",
            choices=("hmac", "aes-gcm", "none"),
            default="hmac",
        ),
        Option(
            ("--format",),
            "of the volume",
            metavar="FORMAT",
            choices=("headerless", "luks2"),
            default="headerless",
        ),
        Option(
            ("--key-file",),
            "the volume's key, 32 to 64 bytes, or the word generated",
            metavar="FILE",
            kind="file",
            default="generated",
        ),
        Option(("--in-use",), "the volume was formatted elsewhere, with --key-file"),
        Option(("--generation",), "of its record, with --in-use", metavar="N", kind="integer"),
        Option(("--record",), "SHA-256 of its record, with --in-use", metavar="HEX"),
        Option(
            ("--lease",),
            "seconds in which no other guest gets the key (60)",
            metavar="S",
            kind="integer",
        ),
        Option(
            ("--format-time",),
            "seconds that a guest has to format (900)",
            metavar="S",
            kind="integer",
        ),
        _PASSPHRASE,
    ),
)

KEYBROKER_LIST = Verb(
    words=("keybroker", "list"),
    function="troth.cli.keybroker:list_",
    summary="show classes, volumes and who holds them",
    description="Prints what is in the database, and no key. A volume that was taken over went to "
    "another guest after a lease: a boot anew, or a clone.",
    options=(_DB, JSON),
)

KEYBROKER_RETIRE = Verb(
    words=("keybroker", "retire"),
    function="troth.cli.keybroker:retire",
    summary="give an image no keys any more",
    description="Retires every version of the image, or one and all below it. Retired versions "
    "cannot be added again; a higher one can, and finds the image's volumes.",
    positionals=(Positional("image", "the image", "IMAGE"),),
    options=(
        _DB,
        Option(("--svn",), "this version and all below", metavar="N", kind="integer"),
    ),
)

KEYBROKER_SET = Verb(
    words=("keybroker", "set"),
    function="troth.cli.keybroker_set:set_",
    summary="put right what a broker holds of a volume",
    description="For what no guest can mend: a restored backup, a wrong name. Each change gives "
    "something up, goes to the audit log with what was there before, and may be made beside "
    "serve. Which record a disk has: troth volume check --json.",
    options=(
        _DB,
        Option(("--volume",), "path of the volume's key", metavar="REPO/TYPE/TAG"),
        Option(("--resource",), "path of another secret", metavar="REPO/TYPE/TAG"),
        Option(
            ("--image",),
            "image whose guests may have it; all others lose it",
            metavar="IMAGE",
            repeat=True,
        ),
        Option(
            ("--generation",),
            "what counts as committed last, with --record; what was written after it is given "
            "up, and the guest that has the volume now loses it",
            metavar="N",
            kind="integer",
        ),
        Option(("--record",), "SHA-256 of that record", metavar="HEX"),
        Option(
            ("--forget-record",),
            "no record counts: the next guest opens whatever copy of the disk it is given, and "
            "counts on from there; the guest that has the volume now loses it",
        ),
        Option(
            ("--free",),
            "end the lease or the time to format: the next guest gets the key, and one that "
            "still runs with it may write to the same disk",
        ),
        Option(
            ("--remove",),
            "forget it and its key: without a copy of the key the volume's data are lost",
        ),
        Option(
            ("--uuid",),
            "the volume's id, which --remove asks for where a guest had the key",
            metavar="UUID",
        ),
    ),
)

VERBS = (KEYBROKER_SERVE, KEYBROKER_ADD, KEYBROKER_LIST, KEYBROKER_SET, KEYBROKER_RETIRE)

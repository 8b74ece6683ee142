# SPDX-License-Identifier: Apache-2.0
"""Encrypted ``[[volume]]`` tables and ``[[broker]]``: what may lie where, and who releases keys.

Serves ``image.inputs.manifest`` only. What stands here is measured: it names
identities, ciphers by one word each, and sources, and there is no key for a
weaker way. Every refusal names the key and its line. Must never read a key.
"""

from __future__ import annotations

import base64
import re
import uuid
from typing import TYPE_CHECKING

from troth.documents import key_uri
from troth.documents.instance_network import check_broker
from troth.documents.policy_keys import (
    FORMAT,
    FORMATS,
    HEADERLESS,
    HMAC,
    INTEGRITIES,
    REFUSE,
    TROTH,
    TRUSTEE,
    UNAUTHENTICATED,
    Broker,
    Encrypted,
)
from troth.errors import FormatError
from troth.image.inputs import manifest_rules as rules
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from troth.documents.key_uri import KeyUri
    from troth.documents.toml_source import Table

VOLUME_KEYS = ("key", "key_file", "integrity", "uuid", "blank", "executable")
BROKER_KEYS = (
    "name", "protocol", "addresses", "spki", "ca", "server_name", "spiffe_id", "not_before",
    "trust_domain",
)  # fmt: skip
FILE_SYSTEM = "ext4"
#: What names this project's volumes among all name-based UUIDs (RFC 9562, version 5).
_NAMESPACE = uuid.UUID("7b1c2c34-53c1-5d0e-9a58-6c3f0a5b7d11")
_UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
_SPKI = re.compile(r"[0-9a-f]{64}")
_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]{1,255}){0,16}")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_CERTIFICATE = re.compile(
    "-----BEGIN CERTIFICATE-----\\s([A-Za-z0-9+/=\\s]{1,32768})-----END CERTIFICATE-----"
)
_MAX_PINS = 8


@record
class Sealed:
    """An encrypted volume with the table it stands in.

    ``uri``: its key's source, understood; ``key_file``: of a ``file:`` key, else None.
    """

    table: Table
    volume: Encrypted
    uri: KeyUri
    key_file: Path | None


def volume(table: Table, base: Path, *, image: str, overlay: str) -> Sealed:
    """One ``[[volume]]`` of format headerless or luks2; ``overlay``: what ``[root]`` names."""
    name = table.text("name")
    is_upper = name == overlay
    if is_upper and table.has("mount"):
        raise table.fail(
            "mount",
            "has no meaning: the volume is the overlay's writable layer",
            code="manifest-conflict",
        )
    return _sealed(
        table,
        base,
        image=image,
        name=name,
        format_=table.text("format", allowed=FORMATS),
        mount="" if is_upper else rules.absolute(table, "mount"),
        file_system=FILE_SYSTEM,
        device=rules.device(table, "device", default=f"serial:{name}"),
        integrity=table.text("integrity", HMAC, allowed=INTEGRITIES),
        executable=table.boolean("executable", default=is_upper),
    )


def around_root(table: Table, base: Path, *, image: str) -> Sealed | None:
    """The encrypted disk that the verified root lies in, where ``[root] key`` says so."""
    if not table.has("key"):
        for key in ("encryption", "uuid", "key_file"):
            if table.has(key):
                raise table.fail(key, "has a meaning with key only", code="manifest-conflict")
        return None
    return _sealed(
        table,
        base,
        image=image,
        name="root",
        format_=table.text("encryption", HEADERLESS, allowed=FORMATS),
        mount="",
        file_system="",
        device="serial:root",
        # What is read from it is verified, block by block.
        integrity=UNAUTHENTICATED,
        executable=False,
    )


def _sealed(
    table: Table, base: Path, *, image: str, name: str, format_: str, mount: str, file_system: str,
    device: str, integrity: str, executable: bool,
) -> Sealed:  # fmt: skip
    text = table.text("key")
    try:
        uri = key_uri.parse(text)
    except FormatError as error:
        later = text.partition(":")[0] in key_uri.LATER
        code = "not-in-this-version" if later else "manifest-value"
        raise table.fail("key", error.message, code=code, hint=error.hint) from None
    # By name, so that the next version of an image knows its volumes again.
    named = str(uuid.uuid5(_NAMESPACE, f"{image}/{name}"))
    own = table.text("uuid", named)
    if not _UUID.fullmatch(own):
        raise table.fail("uuid", f"is no UUID in lower case: {own!r}")
    found = Encrypted(
        name=name,
        device=device,
        mount=mount,
        file_system=file_system,
        format=format_,
        integrity=integrity,
        key=text,
        uuid=own,
        blank=table.text("blank", REFUSE, allowed=(REFUSE, FORMAT)),
        executable=executable,
    )
    _check_source(table, found, uri)
    return Sealed(table, found, uri, _key_file(table, uri, base))


def _key_file(table: Table, uri: KeyUri, base: Path) -> Path | None:
    if uri.scheme != key_uri.FILE:
        if table.has("key_file"):
            raise table.fail("key_file", "has a meaning with file: only", code="manifest-conflict")
        return None
    table.need("key_file")
    return base / table.text("key_file")


def _check_source(table: Table, found: Encrypted, uri: KeyUri) -> None:
    """What a source of keys asks of the volume."""
    if uri.scheme == "random":
        if found.format != HEADERLESS or not found.file_system:
            raise table.fail(
                "key",
                "random: makes a new volume at each boot, without a header and without content",
                code="manifest-conflict",
            )
        if found.blank != REFUSE:
            raise table.fail("blank", "random: formats at each boot", code="manifest-conflict")
    if uri.scheme == "snp" and found.format != HEADERLESS:
        raise table.fail(
            "key",
            "snp: keys are known to no one who could make a LUKS2 volume for them",
            code="manifest-conflict",
            hint='format = "headerless", blank = "format"',
        )
    if found.blank == FORMAT:
        if uri.scheme not in ("snp", "file"):
            raise table.fail(
                "blank",
                f"{uri.scheme}: does not leave it to a disk whether it is new",
                code="manifest-conflict",
                hint="take it out: the broker says when a volume is to be formatted",
            )
        if found.format != HEADERLESS or not found.file_system:
            raise table.fail(
                "blank", "needs a headerless volume of its own", code="manifest-conflict"
            )


def broker(table: Table, base: Path) -> Broker:
    """One ``[[broker]]``."""
    table.need("name")
    name = rules.name(table, "name")
    addresses = table.texts("addresses")
    for address in addresses:
        try:
            check_broker(address)
        except FormatError as error:
            raise table.fail("addresses", error.message) from None
    spki = table.texts("spki")
    if any(not _SPKI.fullmatch(pin) for pin in spki) or len(spki) > _MAX_PINS:
        raise table.fail("spki", f"must be up to {_MAX_PINS} SHA-256 digests in lower-case hex")
    authorities = tuple(_authority(table, base / path) for path in table.texts("ca"))
    found = Broker(
        name=name,
        protocol=table.text("protocol", TROTH, allowed=(TROTH, TRUSTEE)),
        addresses=addresses,
        spki=spki,
        ca=authorities,
        server_name=table.text("server_name") if table.has("server_name") else "",
        spiffe_id=_matching(table, "spiffe_id", _SPIFFE_ID),
        not_before=_floor(table),
        trust_domain=_matching(table, "trust_domain", _TRUST_DOMAIN),
    )
    _check_identity(table, found)
    return found


def _matching(table: Table, key: str, pattern: re.Pattern[str]) -> str:
    text = table.text(key) if table.has(key) else ""
    if text and not pattern.fullmatch(text):
        raise table.fail(key, f"has the wrong form: {text!r}")
    return text


def _floor(table: Table) -> int:
    if not table.has("not_before"):
        return 0
    day = table.day("not_before")
    return (day.toordinal() - 719163) * 86400


def _authority(table: Table, path: Path) -> str:
    """Base64 DER of the one certificate in the PEM file ``path``."""
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise table.fail("ca", f"{path} cannot be read: {error}") from None
    found = _CERTIFICATE.findall(text)
    if len(found) != 1:
        raise table.fail("ca", f"{path} holds {len(found)} PEM certificates, not one")
    try:
        data = base64.b64decode("".join(found[0].split()), validate=True)
    except ValueError as error:
        raise table.fail("ca", f"{path} is no PEM: {error}") from None
    return base64.b64encode(data).decode()


def _check_identity(table: Table, found: Broker) -> None:
    """Who the broker is must be said once, and completely (SECURITY S22)."""
    if bool(found.spki) == bool(found.ca):
        raise table.fail(
            "spki",
            "or ca must say who the broker is, and only one of them",
            code="manifest-conflict",
            hint='spki = ["<64 hex>"], as troth keybroker serve prints it',
        )
    if found.ca and bool(found.server_name) == bool(found.spiffe_id):
        raise table.fail(
            "ca",
            "needs server_name or spiffe_id: an authority certifies others too",
            code="manifest-conflict",
        )
    if found.ca and not found.not_before:
        raise table.fail(
            "not_before",
            "is missing: the host sets the guest's clock, so certificates are judged no earlier"
            " than a day that is measured",
            code="manifest-missing-key",
        )
    if found.trust_domain and found.protocol == TRUSTEE:
        raise table.fail(
            "trust_domain",
            "has no meaning: a broker of protocol trustee issues no identities",
            code="manifest-conflict",
        )
    for key in ("server_name", "spiffe_id", "not_before"):
        if found.spki and table.has(key):
            raise table.fail(key, "has a meaning with ca only", code="manifest-conflict")


def check_together(
    sealed: Sequence[Sealed], brokers: Sequence[tuple[Table, Broker]], *,
    snp: str, has_network: bool, instance_brokers: Sequence[str],
) -> None:  # fmt: skip
    """Volumes, brokers, network and platform, together."""
    names = [one.name for _table, one in brokers]
    for number, (table, one) in enumerate(brokers):
        if one.name in names[:number]:
            raise table.fail("name", f"{one.name!r} is taken by another broker")
        if not one.addresses and one.name not in instance_brokers:
            raise table.fail(
                "addresses",
                "is missing, and no instance configuration may bring it",
                code="manifest-missing-key",
                hint=f'[instance] brokers = ["{one.name}"], or addresses = ["HOST:PORT"]',
            )
    ids: dict[str, str] = {}
    files: dict[str, Path | None] = {}
    for item in sealed:
        if files.setdefault(item.uri.name, item.key_file) != item.key_file:
            raise item.table.fail(
                "key_file",
                f"is another file than {item.volume.key} has elsewhere",
                code="manifest-conflict",
            )
        other = ids.setdefault(item.volume.uuid, item.volume.name)
        if other != item.volume.name:
            raise item.table.fail("uuid", f"is that of {other!r}", code="manifest-conflict")
        _check_platform(item, snp=snp)
        if item.uri.scheme in key_uri.WITH_BROKER:
            _check_broker(item, brokers)
            _check_made(item, brokers)
            if not has_network:
                raise item.table.fail(
                    "key",
                    "is released over the network, and there is no [network]",
                    code="manifest-conflict",
                    hint='[network] method = "dhcp"',
                )


def _check_platform(item: Sealed, *, snp: str) -> None:
    scheme = item.uri.scheme
    if scheme == "snp" and "measurement" not in item.uri.fields and snp != "simulated":
        # An ID block with these ids can be made by anybody, for any kernel.
        raise item.table.fail(
            "key",
            "without measurement any guest that the host starts on this chip derives the same key",
            code="manifest-conflict",
            hint=f'key = "snp:{",".join(("measurement", *item.uri.fields))}"',
        )
    if scheme == "file" and snp != "simulated":
        raise item.table.fail(
            "key",
            "file: puts the key into the image, which anybody can read",
            code="manifest-conflict",
            hint='it is for trying things out: [tee] snp = "simulated"',
        )
    if scheme != "random" and snp == "none":
        raise item.table.fail(
            "key",
            f"{scheme}: asks what the secure processor vouches for, and [tee] snp is none",
            code="manifest-conflict",
            hint='random: is the only source without one, or [tee] snp = "simulated"',
        )


def _check_made(item: Sealed, brokers: Sequence[tuple[Table, Broker]]) -> None:
    """A broker without states never lets a guest format, and tags are the kernel's to write."""
    volume = item.volume
    asked = [
        one
        for _table, one in brokers
        if item.uri.broker in ("", one.name) and item.uri.trust_domain in ("", one.trust_domain)
    ]
    tagged = volume.integrity != UNAUTHENTICATED and bool(volume.file_system)
    if not tagged or volume.format != HEADERLESS:
        return
    if any(one.protocol == TRUSTEE for one in asked):
        raise item.table.fail(
            "integrity",
            "no tool makes this volume: protocol trustee never says that one is new, and only a"
            " kernel writes tags",
            code="manifest-conflict",
            hint='format = "luks2", made by cryptsetup luksFormat --integrity hmac-sha256; or'
            ' protocol = "troth"',
        )


def _check_broker(item: Sealed, brokers: Sequence[tuple[Table, Broker]]) -> None:
    names = [one.name for _table, one in brokers]
    if item.uri.broker and item.uri.broker not in names:
        raise item.table.fail(
            "key",
            f"names the broker {item.uri.broker!r}, which no [[broker]] is",
            code="manifest-conflict",
        )
    if item.uri.scheme == key_uri.SPIFFE:
        domains = [one.trust_domain for _table, one in brokers]
        if domains.count(item.uri.trust_domain) != 1:
            raise item.table.fail(
                "key",
                f"names the trust domain {item.uri.trust_domain!r}, which is not that of one"
                " [[broker]]",
                code="manifest-conflict",
                hint=f'[[broker]] trust_domain = "{item.uri.trust_domain}"',
            )
    elif not item.uri.broker and len(names) != 1:
        raise item.table.fail(
            "key",
            f"names no broker, and there are {len(names)}",
            code="manifest-conflict",
            hint="kbs://NAME/... names one; add a [[broker]] for it",
        )

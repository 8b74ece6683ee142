# SPDX-License-Identifier: Apache-2.0
"""Where the key of an encrypted volume comes from, as the manifest says it.

Serves the manifest, PID 1's key worker and the packer: ``MODULES`` says which
module knows a scheme, so an image carries only those of its own volumes. Must
never hold an address: whom a guest asks and whom it trusts stand in the broker's
record. Must never import ``re``: guests import it.

Format: docs/formats.md, "Key URIs".
"""

from __future__ import annotations

from troth.documents import resource_path
from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.policy_keys import Broker
    from troth.documents.resource_path import ResourcePath

KBS, SPIFFE, SNP, RANDOM, FILE = "kbs", "spiffe", "snp", "random", "file"
MODULES = {
    KBS: "troth.boot.key_sources.kbs",
    SPIFFE: "troth.boot.key_sources.spiffe",
    SNP: "troth.boot.key_sources.snp",
    RANDOM: "troth.boot.key_sources.random",
    FILE: "troth.boot.key_sources.file",
}
"""Scheme -> the module that a guest loads for it."""
LATER = ("tpm2", "tang")
"""Schemes with a place in the design and no module yet."""
WITH_BROKER = (KBS, SPIFFE)
PLATFORM = "troth.boot.key_sources.platform"
"""What asks the secure processor, for all but the two last schemes."""
PINNED_CA = "troth.ciphers.issued_by"
"""What a guest loads besides where a broker is known by its issuer, not by its key."""

MAX_CHARACTERS = 1024
SNP_FIELDS = ("measurement", "policy", "image_id", "family_id", "guest_svn", "tcb")
SNP_DEFAULT = ("measurement", "policy")
"""No other guest on the chip has the launch digest; policy and ids are the host's to set."""

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_SEGMENT = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ-._") | _LOWER
_MAX_NAME_CHARACTERS = 20
_MAX_TRUST_DOMAIN_CHARACTERS = 255


@record
class KeyUri:
    """``scheme``: a key of ``MODULES``; the rest as the scheme has it.

    kbs: ``broker``, "" for the only one, and ``resource``; spiffe: ``trust_domain``
    and ``path`` ("" or beginning with a slash) of the guest's own identity;
    snp: ``fields`` in the order of ``SNP_FIELDS``; file: ``name``.
    """

    scheme: str
    broker: str = ""
    resource: ResourcePath | None = None
    trust_domain: str = ""
    path: str = ""
    fields: tuple[str, ...] = ()
    name: str = ""

    def __str__(self) -> str:
        if self.scheme == KBS:
            return f"kbs://{self.broker}/{self.resource}"
        if self.scheme == SPIFFE:
            return f"spiffe://{self.trust_domain}{self.path}"
        return f"{self.scheme}:{self.name or ','.join(self.fields)}"


def parse(text: str, *, where: str = "") -> KeyUri:
    """The source that ``text`` names.

    Raises ``FormatError``: ``key-uri-scheme`` for an unknown or later one,
    ``key-uri-form``, ``resource-path``.
    """
    scheme, colon, rest = text.partition(":")
    if scheme in LATER and colon:
        raise FormatError(
            "key-uri-scheme",
            f"{scheme}: is a source of keys that this version does not have",
            where=where,
            hint=f"take one of {', '.join(MODULES)}",
        )
    if scheme not in MODULES or not colon:
        raise FormatError(
            "key-uri-scheme",
            f"{text[:80]!r} names no source of keys",
            where=where,
            hint=f"it begins with one of {', '.join(f'{name}:' for name in MODULES)}",
        )
    if len(text) > MAX_CHARACTERS:
        raise _wrong(text, f"shorter than {MAX_CHARACTERS} characters", where)
    if scheme == KBS:
        return _kbs(text, rest, where)
    if scheme == SPIFFE:
        return _spiffe(text, rest, where)
    if scheme == SNP:
        return KeyUri(SNP, fields=_fields(text, rest, where))
    if scheme == FILE:
        if not is_name(rest):
            raise _wrong(text, "file: and a name of a-z, 0-9 and -", where)
        return KeyUri(FILE, name=rest)
    if rest:
        raise _wrong(text, "random: and nothing else", where)
    return KeyUri(RANDOM)


def modules(uri: KeyUri, *, by_issuer: bool = False) -> tuple[str, ...]:
    """What a guest loads by name for ``uri``; ``by_issuer``: its broker has no pinned key."""
    found = [MODULES[uri.scheme]]
    if uri.scheme not in (RANDOM, FILE):
        found.append(PLATFORM)
    if by_issuer and uri.scheme in WITH_BROKER:
        found.append(PINNED_CA)
    return tuple(found)


def fitting(uri: KeyUri, brokers: tuple[Broker, ...]) -> tuple[Broker, ...]:
    """Those of ``brokers`` that ``uri``, of a scheme ``WITH_BROKER``, can mean; one is right."""
    if uri.scheme == SPIFFE:
        return tuple(item for item in brokers if item.trust_domain == uri.trust_domain)
    return tuple(item for item in brokers if uri.broker in ("", item.name))


def is_name(text: str) -> bool:
    """Whether ``text`` can name a broker or a packed key: 1 to 20 of a-z, 0-9 and -."""
    return 1 <= len(text) <= _MAX_NAME_CHARACTERS and (_LOWER | {"-"}).issuperset(text)


def is_trust_domain(text: str) -> bool:
    """Whether ``text`` is the name of a SPIFFE trust domain."""
    size_is_right = 1 <= len(text) <= _MAX_TRUST_DOMAIN_CHARACTERS
    return size_is_right and (_LOWER | frozenset("-._")).issuperset(text)


def _kbs(text: str, rest: str, where: str) -> KeyUri:
    broker, slash, path = rest[2:].partition("/")
    if not rest.startswith("//") or not slash or (broker and not is_name(broker)):
        raise _wrong(text, "kbs:///repository/type/tag or kbs://BROKER/repository/type/tag", where)
    return KeyUri(KBS, broker=broker, resource=resource_path.parse(path, where=where))


def _spiffe(text: str, rest: str, where: str) -> KeyUri:
    domain, slash, path = rest[2:].partition("/")
    segments = path.split("/") if slash else []
    if (
        not rest.startswith("//")
        or not is_trust_domain(domain)
        or not all(_is_segment(segment) for segment in segments)
    ):
        raise _wrong(text, "spiffe://TRUST-DOMAIN/PATH as the SPIFFE ID of this guest", where)
    return KeyUri(SPIFFE, trust_domain=domain, path=slash + path)


def _is_segment(text: str) -> bool:
    return bool(text) and text not in (".", "..") and _SEGMENT.issuperset(text)


def _fields(text: str, rest: str, where: str) -> tuple[str, ...]:
    if not rest:
        return SNP_DEFAULT
    words = rest.split(",")
    if len(set(words)) != len(words) or not set(words) <= set(SNP_FIELDS):
        raise _wrong(text, f"snp: and different words of {', '.join(SNP_FIELDS)}", where)
    return tuple(name for name in SNP_FIELDS if name in words)


def _wrong(text: str, wanted: str, where: str) -> FormatError:
    return FormatError("key-uri-form", f"{text[:80]!r} is not {wanted}", where=where)

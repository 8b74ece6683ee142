# SPDX-License-Identifier: Apache-2.0
"""What policy.json says of encrypted volumes and of the brokers that release their keys.

Serves ``documents.policy``, which imports it only where a policy has any of them,
so that other images pack nothing of it. Identities stand here, addresses may
come from an instance configuration (SECURITY S22). Must never hold a key.
"""

from __future__ import annotations

from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADERLESS, LUKS2 = "headerless", "luks2"
FORMATS = (HEADERLESS, LUKS2)
HMAC, AES_GCM, UNAUTHENTICATED = "hmac", "aes-gcm", "none"
INTEGRITIES = (HMAC, AES_GCM, UNAUTHENTICATED)
SECTOR_BYTES = 4096
#: What a blank disk means where no broker says which it should be.
REFUSE, FORMAT = "refuse", "format"
#: Which calls a broker has: ours commits generations and ends boots, plain KBS does neither.
TROTH, TRUSTEE = "troth", "trustee"


@record
class Encrypted:
    """An encrypted disk: what it must look like and where its key comes from.

    ``name``: of the manifest, or of the verified volume that lies inside it;
    ``device``: ``KIND:VALUE``; ``mount``: absolute path in the root, "" where
    something else lies on it (the overlay's upper layer, a verified volume);
    ``file_system``: kernel name, "" with a verified volume inside; ``format``,
    ``integrity``, ``blank``: words of this module; ``key``: URI of its source;
    ``uuid``: the volume's id, lower case; ``executable``: whether programs on it may run.
    """

    name: str
    device: str
    mount: str
    file_system: str
    format: str
    integrity: str
    key: str
    uuid: str
    blank: str
    executable: bool

    @property
    def profile(self) -> str:
        """The text that names all its parameters, bound into keys and records."""
        return f"{self.format}/{self.integrity}/{SECTOR_BYTES}"

    @property
    def map_name(self) -> str:
        """The device-mapper name of the readable volume."""
        return f"troth-{self.name}-clear" if not self.file_system else f"troth-{self.name}"


@record
class Broker:
    """Who may release keys, and how it is recognised.

    ``protocol``: ``TROTH`` or ``TRUSTEE``; ``addresses``: HOST:PORT in the order they
    are tried, () where only an instance configuration has them; ``spki``: SHA-256
    (hex) of the server key's SubjectPublicKeyInfo, any of them; ``ca``: base64 DER
    of the only accepted authorities, with ``server_name`` or ``spiffe_id`` that
    the certificate must carry, its dates judged no earlier than ``not_before``
    (Unix seconds); ``trust_domain``: which SPIFFE identities it issues, "" none.
    """

    name: str
    protocol: str
    addresses: tuple[str, ...]
    spki: tuple[str, ...]
    ca: tuple[str, ...]
    server_name: str
    spiffe_id: str
    not_before: int
    trust_domain: str


def encrypted(tree: dict[str, Any]) -> Encrypted:
    """The volume in ``tree``, whose shape ``policy_json`` or the build has proved."""
    return Encrypted(**tree)


def broker(tree: dict[str, Any]) -> Broker:
    """The broker in ``tree``, likewise."""
    fields: dict[str, Any] = {
        name: tuple(item) if isinstance(item, list) else item for name, item in tree.items()
    }
    return Broker(**fields)


def tree_of(value: Encrypted | Broker) -> dict[str, Any]:
    """The JSON tree of ``value``; the inverse of the two above."""
    found = {name: getattr(value, name) for name in value.__match_args__}
    return {name: list(item) if isinstance(item, tuple) else item for name, item in found.items()}

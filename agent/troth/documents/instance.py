# SPDX-License-Identifier: Apache-2.0
"""The instance configuration: what one guest of an image is told at its launch.

Flows from who launches to stage instance and to the next init. Its digest is
HOST_DATA of the launch, so every report says which one it was; but the host
chooses both, so it may only choose where something is and what it is called,
within the bounds that the measured policy states, never whom the guest trusts
(SECURITY S20, S22). Must never hold a secret.

Imports JSON: PID 1 reads it in a worker that ends at once (``boot.instance``).
Source: ``docs/instance.md``; a file is strict JSON of at most 64 KiB, in any
layout: the digest is over its bytes as they are.
"""

from __future__ import annotations

from troth.documents import instance_disk, strict
from troth.documents.host_name import is_host_name
from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.instance_network import Network
    from troth.documents.policy import InstanceRules

SCHEMA = "troth-instance-v1"
#: HOST_NAME_MAX of Linux.
MAX_HOSTNAME = 64
MAX_ADDRESSES = 8
MAX_VALUE_CHARACTERS = 4096


@record
class Instance:
    """``hostname``: "" where none is given; ``network``: None likewise.

    ``brokers``: (name, addresses); ``values``: (name, text), for applications;
    both in the order of the file.
    """

    hostname: str = ""
    network: Network | None = None
    brokers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    values: tuple[tuple[str, str], ...] = ()


def parse(data: bytes, *, where: str = "") -> Instance:
    """The configuration in ``data``.

    Raises ``FormatError``: ``instance-size``; ``json-*``; ``instance-form`` for a
    value that its key does not allow.
    """
    try:
        instance_disk.check_size(data)
        return _parse(data)
    except FormatError as error:
        raise FormatError(error.code, error.message, where=where) from None


def _parse(data: bytes) -> Instance:
    tree = strict.parse(data, limit_bytes=instance_disk.MAX_BYTES)
    top = strict.Reader(tree)
    top.text("schema", allowed=(SCHEMA,))
    hostname, network = top.text("hostname") if top.has("hostname") else "", None
    if top.has("hostname") and not is_host_name(hostname, max_characters=MAX_HOSTNAME):
        raise FormatError(
            "instance-form",
            f"hostname is not a host name of at most {MAX_HOSTNAME} characters in lower case:"
            f" {hostname[:100]!a}",
        )
    if top.has("network"):
        # Addresses cost an import that other configurations do not need.
        from troth.documents.instance_network import network as read_network

        network = read_network(top.reader("network"))
    found = Instance(
        hostname=hostname,
        network=network,
        brokers=_brokers(top.reader("brokers")) if top.has("brokers") else (),
        values=_values(top.reader("values")) if top.has("values") else (),
    )
    top.close()
    return found


def _brokers(reader: strict.Reader) -> tuple[tuple[str, tuple[str, ...]], ...]:
    from troth.documents.instance_network import check_broker

    found = []
    for name in reader.keys():  # noqa: SIM118 - a method of the reader, which counts them as asked
        addresses = reader.texts(name)
        if not 0 < len(addresses) <= MAX_ADDRESSES or len(set(addresses)) != len(addresses):
            raise FormatError(
                "instance-form",
                f"broker {name[:100]!a} has not 1 to {MAX_ADDRESSES} different addresses",
            )
        for address in addresses:
            check_broker(address)
        found.append((name, addresses))
    return tuple(found)


def _values(reader: strict.Reader) -> tuple[tuple[str, str], ...]:
    found = []
    for name in reader.keys():  # noqa: SIM118 - as above
        text = reader.text(name)
        plain = text.replace("\n", "").replace("\t", "")
        # Half a surrogate pair, which JSON can spell, is not printable either.
        if len(text) > MAX_VALUE_CHARACTERS or not plain.isprintable():
            raise FormatError(
                "instance-form",
                f"value {name[:100]!a} has over {MAX_VALUE_CHARACTERS} characters, or control"
                " characters",
            )
        found.append((name, text))
    return tuple(found)


def judge(found: Instance, rules: InstanceRules, *, where: str = "") -> None:
    """Refuse what ``rules`` do not let a launch choose; ``FormatError`` ``instance-policy``."""
    refusal = _first_refused(found, rules)
    if refusal:
        raise FormatError("instance-policy", refusal, where=where)


def _first_refused(found: Instance, rules: InstanceRules) -> str:
    if found.hostname and not rules.hostname:
        return "the policy lets no launch choose the hostname"
    if found.network is not None and found.network.method not in rules.network:
        return f"the policy lets no launch choose the network, method {found.network.method}"
    for name, _ in found.brokers:
        if name not in rules.brokers:
            return f"the policy knows no broker {name[:100]!a}"
    for name, text in found.values:
        allowed = rules.values.get(name)
        if allowed is None:
            return f"the policy knows no value {name[:100]!a}"
        if allowed and text not in allowed:
            return f"the policy does not allow {text[:100]!a} as value {name!a}"
    return ""

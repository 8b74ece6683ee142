# SPDX-License-Identifier: Apache-2.0
"""Addresses in an instance configuration: of the guest itself, and of brokers.

Serves ``documents.instance``. Addresses are where packets go, never whom the
guest trusts: a broker's identity is in the measured policy (SECURITY S22). Must
never resolve a name. Only the canonical spelling of an address passes, so that
no reader after this one can understand another address.

Source: ``docs/instance.md``; SECURITY S31 (what of a network may be chosen).
"""

from __future__ import annotations

import ipaddress
import re

from troth.documents.host_name import is_host_name
from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from troth.documents import strict

DHCP, STATIC = "dhcp", "static"
METHODS = (DHCP, STATIC)
MAX_DNS = 3
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)


@record
class Network:
    """``method``: "dhcp", with nothing else, or "static".

    ``address``: with its prefix length, ``192.0.2.10/24``; ``router``: "" for
    none; ``dns``: at most three addresses.
    """

    method: str
    address: str = ""
    router: str = ""
    dns: tuple[str, ...] = ()


def network(reader: strict.Reader) -> Network:
    """The network in ``reader``; ``FormatError`` ``json-*``, ``instance-form``."""
    if reader.text("method", allowed=METHODS) == DHCP:
        reader.close()
        return Network(method=DHCP)
    found = Network(
        method=STATIC,
        address=reader.text("address"),
        router=reader.text("router") if reader.has("router") else "",
        dns=reader.texts("dns") if reader.has("dns") else (),
    )
    reader.close()
    check_static(found)
    return found


def check_static(found: Network) -> None:
    """Refuse what no guest can be given; ``FormatError`` ``instance-form``."""
    host, slash, length = found.address.partition("/")
    own = _unicast(host)
    if not slash or not re.fullmatch(r"[1-9][0-9]{0,2}", length) or int(length) > own.max_prefixlen:
        raise _wrong("network.address", found.address, "an address with its prefix length")
    if found.router:
        router = _unicast(found.router)
        outside = own.max_prefixlen - int(length)
        if (
            router == own
            or router.version != own.version
            or int(router) >> outside != (int(own) >> outside)
        ):
            raise _wrong("network.router", found.router, "another address of the same subnet")
    if len(found.dns) > MAX_DNS or len(set(found.dns)) != len(found.dns):
        raise FormatError("instance-form", f"network.dns is not up to {MAX_DNS} different servers")
    for server in found.dns:
        _unicast(server)


def check_broker(text: str) -> None:
    """Refuse what is not ``NAME:PORT``, ``ADDRESS:PORT`` or ``[IPv6 ADDRESS]:PORT``."""
    host, _, port = text.rpartition(":")
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise _wrong("a broker", text, "a name or an address with a port")
    if host.startswith("[") and host.endswith("]"):
        if _unicast(host[1:-1]).version != 6:
            raise _wrong("a broker", text, "an IPv6 address in brackets")
        return
    if host.rpartition(".")[2][:1].isdecimal():
        # No top-level domain begins with a digit: resolvers read such names as addresses,
        # in hex too (inet_aton(3)).
        if _unicast(host).version != 4:
            raise _wrong("a broker", text, "an IPv4 address")
    elif not is_host_name(host):
        raise _wrong("a broker", text, "a host name in lower case, or an address")


def _unicast(text: str) -> IPv4Address | IPv6Address:
    """The address of one host somewhere else, in its canonical spelling."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise _wrong("an address", text, "an IPv4 or IPv6 address") from None
    if str(found) != text or "%" in text or (found.version == 6 and found.ipv4_mapped):
        raise _wrong("an address", text, "in its canonical spelling")
    # Link-local IPv4 is where clouds keep their metadata services (S31).
    if (
        found.is_multicast
        or found.is_loopback
        or found.is_unspecified
        or found.is_link_local
        or (found.is_reserved and found.version == 4)
    ):
        raise _wrong("an address", text, "the address of one other host")
    return found


def _wrong(what: str, found: str, wanted: str) -> FormatError:
    return FormatError("instance-form", f"{what} is not {wanted}: {found[:100]!a}")

# SPDX-License-Identifier: Apache-2.0
"""``[network]``: how the guest reaches others before the handover, and only then.

Serves ``image.inputs.manifest`` only. What stands here is measured; whom the guest
trusts is not here, and an address is no identity. Every refusal names the key and
its line; none looks at the file system or at a network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents import instance_network
from troth.documents.policy import DHCP, FROM_INSTANCE, STATIC, Network
from troth.errors import FormatError

if TYPE_CHECKING:
    from troth.documents.policy import InstanceRules
    from troth.documents.toml_source import Table

KEYS = ("method", "address", "router", "dns", "ipv6", "timeout_s")
METHODS = (DHCP, STATIC, FROM_INSTANCE)
DEFAULT_TIMEOUT_S = 20
MOST_TIMEOUT_S = 300
_OF_STATIC = ("address", "router", "dns")


def network(table: Table, instance: InstanceRules | None, *, deadline_s: int) -> Network:
    """The table, which is there; ``deadline_s``: of the whole boot."""
    table.need("method")
    method = table.text("method", allowed=METHODS)
    ipv6 = table.boolean("ipv6", default=False)
    for key in _OF_STATIC if method != STATIC else ():
        if table.has(key):
            raise table.fail(key, f'has a meaning with "{STATIC}" only', code="manifest-conflict")
    if method == FROM_INSTANCE and (instance is None or not instance.network):
        raise table.fail(
            "method",
            f'"{FROM_INSTANCE}" needs an instance configuration that may choose the network',
            code="manifest-conflict",
            hint='[instance] network = ["dhcp", "static"], or one of them',
        )
    if method == DHCP and ipv6:
        raise table.fail(
            "ipv6", "has no meaning with dhcp, which gives no such address",
            code="manifest-conflict",
        )  # fmt: skip
    timeout_s = table.integer("timeout_s", DEFAULT_TIMEOUT_S, minimum=1, maximum=MOST_TIMEOUT_S)
    if timeout_s >= deadline_s:
        raise table.fail(
            "timeout_s",
            f"is {timeout_s}, and the whole boot may take {deadline_s}",
            code="manifest-conflict",
            hint="a smaller timeout_s, or a larger [fail] deadline_s",
        )
    found = instance_network.Network(method=method)
    if method == STATIC:
        found = _static(table, ipv6=ipv6)
    return Network(
        method=method,
        address=found.address,
        router=found.router,
        dns=found.dns,
        ipv6=ipv6,
        timeout_s=timeout_s,
    )


def _static(table: Table, *, ipv6: bool) -> instance_network.Network:
    table.need("address")
    found = instance_network.Network(
        method=STATIC,
        address=table.text("address"),
        router=table.text("router", ""),
        dns=table.texts("dns"),
    )
    try:
        instance_network.check_static(found)
    except FormatError as error:
        raise table.fail("address", f"and what belongs to it: {error.message}") from None
    for key, addresses in (("address", (found.address,)), ("dns", found.dns)):
        for address in addresses:
            if ":" in address and not ipv6:
                raise table.fail(
                    key,
                    f"holds {address}, and IPv6 is off",
                    code="manifest-conflict",
                    hint="ipv6 = true",
                )
    return found

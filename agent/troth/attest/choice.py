# SPDX-License-Identifier: Apache-2.0
"""Which provider is asked: the first of the allowed ones that is there.

Serves ``troth report``, PID 1 and the agent, whose policy says what is allowed.
Must never take a provider that was not named: what the machine offers is the
host's to arrange.
"""

from __future__ import annotations

import os

from troth.attest import provider_sev_guest, provider_tsm
from troth.attest.provider_sev_guest import SevGuestProvider
from troth.attest.provider_tsm import TsmProvider
from troth.errors import HostError, ProviderError
from troth.linux import sev_guest, tsm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.attest.provider import Provider

AZURE = "azure-vtpm"
NAMES = (provider_tsm.NAME, provider_sev_guest.NAME, AZURE)
"""All there are, the preferred one first."""

# A kernel that speaks with the secure processor, or with a service module, gives its own reports.
_KERNELS = (provider_tsm.NAME, provider_sev_guest.NAME)


def allowed_by(vtpm_kind: str) -> tuple[str, ...]:
    """The providers that a policy with this ``vtpm_kind`` allows.

    A report of a paravisor is never taken where the policy has none, and under a
    paravisor nothing else is: it would answer for another guest.
    """
    return (AZURE,) if vtpm_kind == "paravisor" else _KERNELS


def choose(
    allowed: tuple[str, ...] = NAMES, *, reports: str = tsm.REPORTS, node: str = sev_guest.NODE
) -> Provider:
    """The provider to ask, of those ``allowed``, preferring as ``NAMES`` does.

    ``reports``, ``node``: where configfs-tsm and the device are. Raises
    ``HostError`` ``no-provider``, which says of each why not.
    """
    reasons = []
    for name in NAMES:
        if name not in allowed:
            reasons.append(f"{name} is not allowed")
            continue
        if name == provider_tsm.NAME:
            found = TsmProvider(tsm.Reports(reports))
            try:
                found.probe()
            except (HostError, ProviderError) as error:
                reasons.append(f"{name}: {error.message}")
                continue
            return found
        if name == AZURE:
            # It reads JSON, which no other guest's PID 1 needs.
            from troth.attest.provider_azure import AzureProvider

            azure = AzureProvider()
            try:
                azure.probe()
            except (HostError, ProviderError) as error:
                reasons.append(f"{name}: {error.message}")
                continue
            return azure
        if os.access(node, os.R_OK | os.W_OK):
            return SevGuestProvider(node)
        reasons.append(f"{name}: {node} is not there, or not for this user")
    raise HostError(
        "no-provider",
        f"nothing here gives reports: {'; '.join(reasons)}",
        hint="reports are made for root, in an SNP guest",
    )

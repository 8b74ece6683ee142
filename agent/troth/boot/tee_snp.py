# SPDX-License-Identifier: Apache-2.0
"""Stage 4 where the policy demands SNP: the guest's own report comes before everything else.

The host chooses the guest policy, and the launch digest does not cover it; the
report says which one it chose (SECURITY S14). What is looked at here is a belt:
no signature is checked, and a hostile host stands between. Proof is what the
verifier does.
"""

from __future__ import annotations

import os

from troth.abi import snp_policy, snp_report
from troth.attest import choice
from troth.boot import tee
from troth.errors import FormatError, HostError, ProviderError, Refusal
from troth.linux.mount import TIGHT, mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.abi.snp_report import SnpReport
    from troth.attest.provider import Provider
    from troth.boot.state import State

_NONCE_BYTES = 64
_CONFIGFS = "/sys/kernel/config"


def run(state: State) -> None:
    """Raise ``Refusal`` ``snp-*`` or what stage tee raises; leave ``state.own_report``."""
    kind = state.policy.vtpm_kind
    allowed = choice.allowed_by(kind)
    _mount_configfs()
    # First of all, so that a machine without SNP is called that and nothing else.
    _provider(allowed)
    tee.check_entropy(state.policy)
    state.own_report = own_report(below_svsm=kind == "svsm", allowed=allowed)
    tee.measure(state)


def _mount_configfs() -> None:
    """Where configfs is a module, stage mounts came too early for it."""
    if os.path.isdir(_CONFIGFS) and not os.path.ismount(_CONFIGFS):
        try:
            mount("configfs", _CONFIGFS, flags=TIGHT)
        except OSError as error:
            raise Refusal("snp-missing", f"configfs: {error.strerror}") from error


def _provider(allowed: tuple[str, ...]) -> Provider:
    try:
        return choice.choose(allowed)
    except HostError as error:
        raise Refusal("snp-missing", error.message) from error


def own_report(
    *, below_svsm: bool, allowed: tuple[str, ...] = choice.allowed_by("host")
) -> SnpReport:
    """A fresh report of this guest.

    ``below_svsm``: a service module holds VMPL 0, so the guest must not;
    ``allowed``: the providers to ask. Under a paravisor it is the paravisor's report.
    ``Refusal``: ``snp-missing``, ``snp-report``, ``snp-debug``, ``snp-migrate``,
    ``snp-vmpl``.
    """
    provider = _provider(allowed)
    try:
        answer = provider.report(os.urandom(_NONCE_BYTES), vmpl=None, key_selection=0)
        report = snp_report.parse(answer.report)
    except (ProviderError, HostError, FormatError) as error:
        raise Refusal("snp-report", f"{error.code}: {error.message}") from error
    judge(report, below_svsm=below_svsm)
    return report


def judge(report: SnpReport, *, below_svsm: bool) -> None:
    """Whether a guest with this ``report`` may have secrets; ``Refusal`` as ``own_report``."""
    # By bit: a policy of newer firmware may have others that are not known here.
    if report.policy >> snp_policy.BITS["debug"] & 1:
        raise Refusal("snp-debug", f"the host launched with DEBUG, policy {report.policy:#x}")
    if report.policy >> snp_policy.BITS["migrate_ma"] & 1:
        raise Refusal(
            "snp-migrate", f"the host may migrate this guest by an agent, policy {report.policy:#x}"
        )
    if bool(report.vmpl) != below_svsm:
        expected = "1 to 3, below a service module" if below_svsm else "0"
        raise Refusal("snp-vmpl", f"the guest runs at VMPL {report.vmpl}, expected is {expected}")

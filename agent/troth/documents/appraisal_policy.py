# SPDX-License-Identifier: Apache-2.0
"""The verification policy: what a relying party accepts, as values.

Serves the verifier and key brokers; ``documents.appraisal_policy_toml`` reads
it. Every value that is not there means the strict thing: nothing is accepted
because nothing was said. Must never read a file or a clock (source:
docs/formats.md, "Verification policy").
"""

from __future__ import annotations

from troth.documents import check_names
from troth.documents.result import REAL
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from troth.documents.platform_references import ParavisorReference, SvsmReference
    from troth.documents.tcb_floors import Floor

SCHEMA = "troth-verify-policy-v1"

#: A published attack takes the signing secret out of these chips by software alone.
DENIED_BY_DEFAULT = ("Milan",)
REPORT_VERSIONS = (2, 3, 4, 5)
VMPLS = (0, 1, 2, 3)
ACPI_AML = ("off", "builtin-dsdt", "measured-tables", "sandboxed", "unprotected")
ACPI_PROTECTED = ACPI_AML[:-1]
#: Choices of an image's builder that a strict policy refuses, by the name of their check.
WEAKNESSES = (
    "raw-report-data",
    "cipher-self-tests",
    "kernel-lockdown",
    "module-signatures",
    "io-errors",
    "volume-integrity",
)

#: What the host may be permitted, and what a guest may demand: names of the guest policy's bits.
PERMITS = ("smt", "migrate_ma", "cxl_allow")
DEMANDS = (
    "single_socket",
    "mem_aes_256_xts",
    "rapl_dis",
    "ciphertext_hiding",
    "page_swap_disable",
)
#: Names of the bits of PLATFORM_INFO -> bit.
PLATFORM_BITS = {
    "smt": 0,
    "tsme": 1,
    "ecc": 2,
    "rapl_disabled": 3,
    "ciphertext_hiding": 4,
    "alias_check": 5,
    "tio": 7,
}


@record
class OneOf:
    """Values that a field may have; ``unused``: all zero, or all ones where that means unused.

    A policy without the key has None instead: then the field is not checked.
    """

    unused: bool
    values: tuple[bytes, ...]


@record
class KeyPin:
    """A signing key that is accepted: SHA-384 of its public key, and the lowest guest SVN."""

    digest: bytes
    min_guest_svn: int


@record
class GuestPolicy:
    """``[guest_policy]``: names from ``PERMITS``, names from ``DEMANDS``, and (major, minor)."""

    permitted: tuple[str, ...] = ()
    demanded: tuple[str, ...] = ()
    min_abi: tuple[int, int] | None = None


@record
class PlatformInfo:
    """``[platform_info]``: the bits that have a demand, and whether unknown ones are let pass."""

    demanded: tuple[tuple[str, bool], ...] = ()
    unknown_bits: bool = False


@record
class Launch:
    """``[launch]``: empty and None are what is not known, and so not checked."""

    measurements: tuple[bytes, ...] = ()
    vmpl: tuple[int, ...] = ()
    host_data: OneOf | None = None
    report_ids: tuple[bytes, ...] = ()
    report_id_ma: OneOf = OneOf(unused=True, values=())


@record
class IdBlock:
    """``[id_block]``: no keys means that no ID block is accepted."""

    id_keys: tuple[KeyPin, ...] = ()
    author_keys: tuple[KeyPin, ...] = ()
    family_ids: OneOf | None = None
    image_ids: OneOf | None = None
    min_guest_svn: int = 0


@record
class Reference:
    """``[reference]``: for the verification of evidence.

    ``keys``: key ids (SHA-256 of the SPKI) of those who may sign reference values;
    ``public_keys``: the same as whole keys (DER of the SPKI), which need no file beside
    the policy; ``acpi_aml``: what may protect a guest's kernel from the host's ACPI
    code; ``paravisors``, ``svsms``: what is accepted below a guest, and makes the
    report one of that platform kind; ``pcrs``: (index, accepted values of the bank
    sha256) of a quoted TPM; ``accept``: of ``WEAKNESSES``, those an image may
    have all the same; ``callers``: who in the guest may have asked, as the
    agent writes it; () for anybody.
    """

    keys: tuple[bytes, ...] = ()
    public_keys: tuple[bytes, ...] = ()
    allow_unsigned: bool = False
    min_svn: int = 0
    acpi_aml: tuple[str, ...] = ACPI_PROTECTED
    accept: tuple[str, ...] = ()
    callers: tuple[str, ...] = ()
    paravisors: tuple[ParavisorReference, ...] = ()
    svsms: tuple[SvsmReference, ...] = ()
    pcrs: tuple[tuple[int, tuple[bytes, ...]], ...] = ()


@record
class AppraisalPolicy:
    """One verification policy.

    ``trusted_roots``: SHA-256 of root certificates that count beside AMD's;
    ``deny_products``: product lines; ``providers``: CSP ids of VLEK certificates,
    ``chip_ids``: 64 bytes each; both empty where they do not matter; ``tcb``: kind
    of silicon to floor; ``required``: what the policy itself says of checks, by name.
    """

    platform: str = REAL
    permissive: bool = False
    trusted_roots: tuple[bytes, ...] = ()
    deny_products: tuple[str, ...] = DENIED_BY_DEFAULT
    providers: tuple[str, ...] = ()
    chip_ids: tuple[bytes, ...] = ()
    report_versions: tuple[int, ...] = REPORT_VERSIONS
    masked_chip_id: bool = False
    reserved_bits: bool = False
    any_tcb_order: bool = False
    tcb: Mapping[str, Floor] = {}
    platform_info: PlatformInfo = PlatformInfo()
    guest_policy: GuestPolicy = GuestPolicy()
    launch: Launch = Launch()
    id_block: IdBlock = IdBlock()
    reference: Reference = Reference()
    required: Mapping[str, bool] = {}

    def requires(self, name: str, *, evidence: bool = False) -> bool:
        """Whether the check ``name`` must be made and pass, of ``evidence`` or of a report."""
        check = check_names.BY_NAME[name]
        if name == "certificate-chip":
            return not self.masked_chip_id
        if self.permissive and check.group not in check_names.PERMISSIVE_GROUPS:
            return False
        if check.group == check_names.EVIDENCE and not evidence:
            return self.required.get(name, False)
        if check.needed == check_names.ALWAYS:
            return True
        return self.required.get(name, check.needed == check_names.STRICT)

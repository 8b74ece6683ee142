# SPDX-License-Identifier: Apache-2.0
"""The verification policy that ``troth verify init-policy`` writes: strict, dated, commented.

Serves the relying party, who edits it. Every list and table stands on one line,
so that the hint of a failed check, which names one line, can replace it. Must
hold nothing that accepts more than what its comment says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import snp_tcb
from troth.documents import appraisal_policy as policy_of
from troth.documents import result, tcb_floors

if TYPE_CHECKING:
    from troth.abi.snp_tcb import Tcb
    from troth.documents.tcb_floors import Floor

_HEAD = """\
# Verification policy of troth. What is not written here is not accepted.
# `troth verify report` names every check; where one did not pass, its hint names the line here
# that accepts what was seen. Read why it was refused first: `troth explain RESULT`.
schema = "{schema}"

# "real": keys that AMD vouches for. "simulated": a simulated platform, for tests; the verdict is
# then pass-simulated at best.
platform = "{platform}"
# Signature, chain and certificates only; the verdict is then partial at best, and no broker
# loads such a policy.
permissive = {permissive}
# SHA-256 of root certificates (DER) that count beside AMD's pinned ones.
trusted_roots = {roots}
# Product lines whose reports are refused. Milan: a paper of May 2026 (arXiv 2605.12990) takes the
# secret that its signing keys come from out of the chip by software, which would make any report
# of Milan forgeable, of whatever version.
deny_products = {denied}
# Where not empty: the clouds whose VLEK counts, such as "CN=cc-us-east-2.amazonaws.com", and the
# chips (CHIP_ID, 64 bytes in hex) that count.
providers = []
chip_ids = []
report_versions = [2, 3, 4, 5]
# A report without chip id is tied to no machine. Those that a VLEK signed never have one.
masked_chip_id = {masked}
reserved_bits = false
any_tcb_order = false
"""

_STRICT = """
[launch]
# Launch digests of your images: `troth measure`, or reference-values.json.
measurements = []
# Who may have asked: 0 is the most privileged level. Under an SVSM the guest is not 0.
vmpl = [0]
# "unused" (all zero) or values. The host chooses it.
host_data = "unused"
# One guest instance, where you know it; and its migration agent.
report_ids = []
report_id_ma = "unused"

[id_block]
# Keys that may have signed the launch: { digest = "...", min_guest_svn = 1 }. None: no ID block.
id_keys = []
author_keys = []
family_ids = "unused"
image_ids = "unused"
min_guest_svn = 0

[guest_policy]
# What the host may do. The launch digest does not cover it. DEBUG is never accepted.
smt = false
migrate_ma = false
cxl_allow = false
# What the guest's policy must ask for. ciphertext_hiding exists on Turin and later only.
single_socket = false
mem_aes_256_xts = false
rapl_dis = false
ciphertext_hiding = false
page_swap_disable = false
# min_abi = "1.55"

[platform_info]
# true: must be on; false: must be off; left out: either.
# Memory was checked for aliases since reset: what is seen of the fix of BadRAM (AMD-SB-3015).
alias_check = true
# A sibling thread of the host helps attacks such as StackWarp (AMD-SB-3027).
smt = false
# tsme = true
# ecc = true
# rapl_disabled = true
# ciphertext_hiding = true
# tio = false
unknown_bits = false
"""

_FLOORS = """
# Floors of firmware and microcode, one table for each kind of silicon. AMD signs no list of good
# versions: read its bulletins, raise the numbers, set the date. Floors older than {days} days are
# warned about. The numbers are AMD's as others quote them; `source` says which bulletin, and where
# no number was found and genuine reports served instead. No floor is written for {unknown}: none
# was found. Mitigation bits are in version 5 reports only, for example bit 1 for AMD-SB-3020 and
# bit 2 for AMD-SB-3016: launch_mitigations = 0x6, current_mitigations = 0x6.
"""

_REFERENCE = """
[reference]
# For `troth verify evidence`: who may sign reference values. Whole keys: what stands between the
# lines of `-----BEGIN PUBLIC KEY-----`. Or key ids, for keys that `--key FILE` gives.
public_keys = []
keys = []
allow_unsigned = false
min_svn = 0
# What keeps the host's ACPI code from the guest's memory.
acpi_aml = {acpi}
# Weak choices of an image that are let pass: names of checks, as the hints say them.
accept = []
# Who in the guest may have asked, such as "uid=65534 gid=65534 unit=app.service". None: anybody.
callers = []
# What may be below a guest: Azure's paravisor, by the keys that sign it or its launch digest, and
# service modules (SVSM). Only then is REPORT_DATA read as a binding of what that one says.
# paravisor = [{{ id_key_digest = "...", family_id = "...", image_id = "...", min_guest_svn = 1 }}]
# svsm = [{{ measurement = "..." }}]
# What a TPM that it vouches for must hold, in the bank sha256: boot loader, kernel, phases.
# pcrs = [{{ index = 4, values = ["..."] }}, {{ index = 9, values = ["..."] }}]
"""

_REQUIRED = """
[required]
# A check that could not be made fails the whole, unless it is false here; true asks for more.
# certificate-revocation = false
# channel-binding = false
"""

_REQUIRED_PERMISSIVE = """
[required]
certificate-revocation = false
"""


def policy_text(*, permissive: bool, simulated: bool, unprotected_acpi: bool) -> str:
    """The file. With ``simulated`` its trusted_roots is empty, which no reader accepts as it is."""
    acpi = policy_of.ACPI_AML if unprotected_acpi else policy_of.ACPI_PROTECTED
    parts = [
        _HEAD.format(
            schema=policy_of.SCHEMA,
            platform=result.SIMULATED if simulated else result.REAL,
            permissive=str(permissive).lower(),
            masked=str(permissive).lower(),
            roots="[]  # put the simulated platform's root here" if simulated else "[]",
            denied=_words(() if simulated or permissive else policy_of.DENIED_BY_DEFAULT),
        )
    ]
    if permissive:
        return "".join([*parts, _REQUIRED_PERMISSIVE])
    unknown = [name for name in tcb_floors.SILICON if name not in tcb_floors.FLOORS]
    parts.append(_STRICT)
    parts.append(_FLOORS.format(days=tcb_floors.MAX_AGE_DAYS, unknown=" and ".join(unknown)))
    parts += [_floor(name, floor) for name, floor in tcb_floors.FLOORS.items()]
    parts += [_REFERENCE.format(acpi=_words(acpi)), _REQUIRED]
    return "".join(parts)


def _floor(name: str, floor: Floor) -> str:
    lines = [f"[tcb.{name}]", f"dated = {floor.dated}", f'source = "{floor.source}"']
    for key, tcb in (
        ("reported", floor.reported),
        ("committed", floor.committed),
        ("launch", floor.launch),
    ):
        if tcb is not None:
            lines.append(f"{key} = {inline_tcb(tcb)}")
    if floor.firmware is not None:
        lines.append(f'firmware = "{".".join(str(number) for number in floor.firmware)}"')
    return "\n".join([*lines, "", ""])


def inline_tcb(tcb: Tcb) -> str:
    """``tcb`` as an inline table of TOML."""
    parts = ((part, getattr(tcb, part)) for part in snp_tcb.PARTS)
    inner = ", ".join(f"{part} = {level}" for part, level in parts if level is not None)
    return f"{{ {inner} }}"


def _words(values: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"

# SPDX-License-Identifier: Apache-2.0
"""``troth inspect`` of a report of Azure's paravisor: what it says, and whether it fits together.

Serves whoever has such a file and wants to know what is in it. Must never let
what it prints be taken for verified: no signature is looked at.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from troth.abi import hcl, snp_report
from troth.documents import azure_evidence, hcl_claims
from troth.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_LOOK_BYTES = 4


def is_hcl(path: Path) -> bool:
    """Whether the file at ``path`` begins as such a report; no where there is none."""
    try:
        with path.open("rb") as file:
            return hcl.is_report(file.read(_LOOK_BYTES))
    except OSError:
        return False


def summary(path: Path, *, as_json: bool) -> int:
    """Print it; 1 where REPORT_DATA is not the digest of the claims.

    Raises ``FormatError``: ``hcl-*``, ``json-*``, ``snp-report-*``,
    ``foreign-evidence``; ``UsageError`` ``report-file``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(hcl.MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            "report-file", f"cannot be read: {error.strerror}", where=str(path)
        ) from None
    where = str(path)
    report = snp_report.parse(azure_evidence.of_hcl(data, where=where).report, where=where)
    found = hcl.parse(data, where=where)
    claims = hcl_claims.parse(found.claims, where=where)
    bound = report.report_data == found.report_data
    keys = {name: f"RSA {key.modulus.bit_length()}" for name, key in claims.keys}
    fields = {
        "version": str(found.version),
        "claims_bound": "yes" if bound else "no: REPORT_DATA is not their digest",
        "keys": ", ".join(f"{name} {shown}" for name, shown in keys.items()) or "none",
        "user_data": claims.user_data.hex() if any(claims.user_data) else "unused",
        "report_version": str(report.version),
        "vmpl": str(report.vmpl),
        "policy": f"{report.policy:#x}",
        "measurement": report.measurement.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex(),
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "guest_svn": str(report.guest_svn),
        "report_id": report.report_id.hex(),
        "reported_tcb": report.reported_tcb.hex(),
        "chip_id": report.chip_id.hex(),
    }
    if as_json:
        tree = {"kind": "hcl", "verified": False, **fields}
        print(json.dumps(tree | {"vm_configuration": claims.vm_configuration}, indent=2))
        return 0 if bound else 1
    print("report of Azure's paravisor; nothing in it is verified: troth verify report")
    for name, value in fields.items():
        print(f"  {name:<18} {value}")
    for key, said in claims.vm_configuration.items():
        print(f"  claims {_plain(key)}: {_plain(json.dumps(said))}")
    return 0 if bound else 1


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text)[:200]

# SPDX-License-Identifier: Apache-2.0
"""Evidence as other projects write it, made from reports; and the shared vectors."""

import os
from pathlib import Path

import pytest

import made_report

VECTORS = Path(os.environ.get("TROTH_VECTORS", Path(__file__).parents[2] / "shared/vectors"))


def vector(name):
    path = VECTORS / name
    if not path.exists():
        pytest.skip(f"no vectors at {path} (set TROTH_VECTORS)")
    return path.read_bytes()


SERDE = {
    "version": "version", "guest_svn": "guest_svn", "policy": "policy", "vmpl": "vmpl",
    "sig_algo": "signature_algo", "plat_info": "platform_info", "key_info": "key_info",
    "cpuid_fam_id": "cpuid_family", "cpuid_mod_id": "cpuid_model", "cpuid_step": "cpuid_stepping",
    "launch_mit_vector": "launch_mit_vector", "current_mit_vector": "current_mit_vector",
}  # fmt: skip
ARRAYS = (
    "family_id", "image_id", "report_data", "measurement", "host_data", "id_key_digest",
    "author_key_digest", "report_id", "report_id_ma", "chip_id",
)  # fmt: skip


def serde(raw, *, chain=None):
    """The report ``raw`` as virtee's library writes it, by offsets of made_report."""

    def part(name):
        offset, size = made_report.FIELDS[name]
        return raw[offset : offset + size]

    number = lambda name: int.from_bytes(part(name), "little")  # noqa: E731
    turin = number("cpuid_family") == 0x1A

    def tcb(name):
        own = part(name)
        if turin:
            return {"fmc": own[0], "bootloader": own[1], "tee": own[2], "snp": own[3],
                    "microcode": own[7]}  # fmt: skip
        return {"fmc": None, "bootloader": own[0], "tee": own[1], "snp": own[6],
                "microcode": own[7]}  # fmt: skip

    tree = {key: number(name) for key, name in SERDE.items()}
    if tree["version"] < 3:
        tree |= dict.fromkeys(("cpuid_fam_id", "cpuid_mod_id", "cpuid_step"))
    if tree["version"] < 5:
        del tree["launch_mit_vector"]
        tree["current_mit_vector"] = None
    tree |= {name: list(part(name)) for name in ARRAYS}
    tree |= {n: tcb(n) for n in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb")}
    for name in ("current", "committed"):
        tree[name] = {p: number(f"{name}_{p}") for p in ("major", "minor", "build")}
    tree["signature"] = {"r": list(part("r")), "s": list(part("s"))}
    return {"attestation_report": tree, "cert_chain": chain}

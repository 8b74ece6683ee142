# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: evidence in other projects' JSON."""

import base64
import json
import struct

from troth.documents import azure_evidence, kbs_evidence
from troth.errors import FormatError

ZERO_TCB = {"fmc": None, "bootloader": 0, "tee": 0, "snp": 0, "microcode": 0}


def fuzz(data: bytes) -> None:
    for parse, sizes in ((azure_evidence.parse, {24}), (kbs_evidence.parse, {0})):
        try:
            found = parse(data)
        except FormatError:
            continue
        if len(found.report) != 1184 or (bool(found.service) != (found.quote is not None)):
            raise AssertionError("evidence without its parts")
        if len(found.quote.pcrs if found.quote else ()) not in sizes:
            raise AssertionError("another number of PCRs")
        if found.service and found.report not in found.service:
            raise AssertionError("a report from elsewhere")


def blob() -> bytes:
    head = b"HCLA" + struct.pack("<4I12x", 1, 1238, 2, 0)
    return head + bytes(1184) + struct.pack("<5I", 22, 1, 2, 1, 2) + b"{}"


def first() -> dict:
    return {
        "quote": {"message": [0] * 16, "signature": [0] * 256, "pcrs": [[0] * 32] * 24},
        "report": list(blob()),
        "vcek": "x",
    }


def numbered() -> dict:
    return {
        "version": 1,
        "hcl_report": base64.urlsafe_b64encode(blob()).decode(),
        "tpm_quote": {"message": "00" * 16, "signature": "00" * 256, "pcrs": ["00" * 32] * 24},
        "vcek": "AA==",
    }


def kbs() -> dict:
    numbers = ("guest_svn", "policy", "vmpl", "sig_algo", "plat_info", "key_info")
    arrays = {
        "family_id": 16, "image_id": 16, "report_data": 64, "measurement": 48, "host_data": 32,
        "id_key_digest": 48, "author_key_digest": 48, "report_id": 32, "report_id_ma": 32,
        "chip_id": 64,
    }  # fmt: skip
    return {
        "attestation_report": {
            "version": 3,
            **dict.fromkeys(numbers, 0),
            **{name: [0] * size for name, size in arrays.items()},
            **dict.fromkeys(
                ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"), ZERO_TCB
            ),
            "cpuid_fam_id": 0x19,
            "cpuid_mod_id": 1,
            "cpuid_step": 1,
            "current": {"major": 1, "minor": 55, "build": 2},
            "committed": {"major": 1, "minor": 55, "build": 2},
            "signature": {"r": [0] * 72, "s": [0] * 72},
        },
        "cert_chain": [{"cert_type": "VCEK", "data": [48]}],
    }


SEEDS = [json.dumps(made()).encode() for made in (first, numbered, kbs)]

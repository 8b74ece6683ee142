# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: attestation reports, cut or filled to their size so that mutants get past."""

from troth.abi import snp_report, snp_tcb
from troth.errors import FormatError

SEEDS = [version.to_bytes(4, "little") + bytes(1180) for version in snp_report.VERSIONS]


def fuzz(data: bytes) -> None:
    for candidate in (data, data[:1184].ljust(1184, b"\0")):
        try:
            report = snp_report.parse(candidate)
        except FormatError:
            continue
        if report.raw != candidate or report.signed != candidate[:672]:
            raise AssertionError("the report's bytes were changed")
        snp_report.reserved_problems(report)
        for product in snp_tcb.PRODUCTS:
            for raw in (report.reported_tcb, report.launch_tcb):
                tcb = snp_tcb.decode(raw, product)
                if snp_tcb.decode(snp_tcb.encode(tcb, product), product) != tcb:
                    raise AssertionError("a TCB does not survive its encoding")

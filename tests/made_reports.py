# SPDX-License-Identifier: Apache-2.0
"""Reports made to order, for tests: fields by offset, no signature."""

import struct


def report_of(report_data, *, vmpl=0, vlek=False, version=3):
    """1184 bytes of a report that carries ``report_data``."""
    report = bytearray(1184)
    struct.pack_into("<I", report, 0x000, version)
    struct.pack_into("<Q", report, 0x008, 0x30000)
    struct.pack_into("<I", report, 0x030, vmpl)
    struct.pack_into("<I", report, 0x034, 1)
    struct.pack_into("<I", report, 0x048, int(vlek) << 2)
    report[0x050:0x090] = report_data
    report[0x090:0x0C0] = b"M" * 48
    report[0x2A0:0x2B0] = b"signature bytes."
    return bytes(report)

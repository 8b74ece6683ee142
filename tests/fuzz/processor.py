# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: payloads that a guest seals in order, and pages that nobody sealed.

The first bytes choose type, version and key; the rest is the payload. So the
fuzzer gets past the tag, which it could never guess.
"""

import made_front
from made_platform import platform
from troth.abi import snp_report
from troth.simulated.launch import Launch
from troth.simulated.processor import Processor

SEEDS = [
    b"\x05\x01\x00" + made_front.report_request(bytes(range(64))),
    b"\x03\x01\x00" + made_front.key_request(fields=63),
    b"\x03\x02\x01" + made_front.key_request(fields=127, vmpl=1, vector=1),
    b"\x11\x01\x00" + bytes(128),
]
_LAUNCH = Launch(measurement=bytes(48))


def fuzz(data: bytes) -> None:
    processor = Processor(_LAUNCH, platform())
    noise = data.ljust(4096, b"\0")[:4096]
    if processor.request(noise).firmware_error == 0 or any(processor.counts):
        raise AssertionError("a page that nobody sealed was taken")
    if len(data) < 3:
        return
    kind, version, vmpck = data[0], data[1], data[2] & 3
    key = processor.secrets_page()[0x20 + 32 * vmpck :][:32]
    payload = data[3:4003]
    page = made_front.sealed(key, 1, kind, payload, vmpck=vmpck, version=version)
    answer = processor.request(page)
    if answer.firmware_error:
        if any(processor.counts):
            raise AssertionError("a refused message was counted")
        return
    if processor.counts[vmpck] != 2 or sum(processor.counts) != 2:
        raise AssertionError("an answered message was not counted once")
    opened = made_front.opened(
        key, answer.page, sequence=2, kind=kind + 1, vmpck=vmpck, version=version
    )
    if kind == made_front.REPORT and opened[:4] == bytes(4):
        report = snp_report.parse(opened[32:1216])
        if report.report_data != payload[:64] or not vmpck <= report.vmpl <= 3:
            raise AssertionError("a report that was not asked for")
        if snp_report.reserved_problems(report):
            raise AssertionError("a report with reserved bits")

# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: IGVM files: read, look into, measure, check and write again.

Size and checksum are repaired so that mutants get past them. A file that is
read must measure, and writing it twice must give the same bytes.
"""

import io

import made_igvm as made
from troth.abi.igvm.file import BytesSource, Contents, open_
from troth.abi.igvm.write import write
from troth.errors import FormatError, UsageError
from troth.image import inspect_igvm
from troth.measure import igvm, igvm_kvm

SEEDS = [
    made.linux(3),
    made.linux(3, version=2),
    made.linux(
        1,
        before=[made.area(), made.usage(0x307), made.usage(0x30C, offset=24), made.insert(0x8000)],
        after=[made.id_block()],
    ),
    made.made(
        [
            made.platform(1, made.SNP),
            made.platform(2, made.NATIVE),
            made.platform(4, made.VSM),
            made.platform(8, made.SEV_ES),
            made.policy(mask=9),
            made.relocatable(),
            made.page_tables(),
            made.corim(0, 8),
            made.corim(8, 8, kind=0x105),
            made.area(data_at=0),
            made.page(0x1000, 0, mask=15),
            made.page(0x200000, flags=1),
            made.page(0x2000, flags=6),
            made.error_range(0x5000),
            made.context(0, mask=8),
            made.context(0, mask=2, gpa=0),
            made.context(0, mask=4, gpa=0),
            made.vbs(4),
        ],
        b"\1" + bytes(8191),
    ),
]

_MEASURED_PAGES = 1 << 16


def fuzz(data: bytes) -> None:
    for candidate in (data, made.repaired(data)):
        try:
            file = open_(BytesSource(candidate))
        except FormatError:
            continue
        _use(file)


def _use(file):
    seen = inspect_igvm.summary(file)
    if sum(item.pages for item in seen.pages) > _MEASURED_PAGES:
        return
    if sum(item.size_bytes for item in seen.areas) // 4096 > _MEASURED_PAGES:
        return
    for platform in igvm.PLATFORMS:
        for compat in (None, "igvmmeasure"):
            try:
                found = igvm.measure(
                    file, platform=platform, compat=compat, vcpus=2, vcpu_signature=0x800F12
                )
            except (FormatError, UsageError):
                continue
            if len(found.digest) != (48 if platform == "sev-snp" else 32):
                raise AssertionError(platform)
            igvm_kvm.check(file, platform=platform)
    try:
        once = _written(file)
    except FormatError:
        return
    if _written(open_(BytesSource(once))) != once:
        raise AssertionError("written otherwise the second time")


def _written(file):
    stream = io.BytesIO()
    write(Contents(file), version=file.version, stream=stream, architecture=file.architecture)
    return stream.getvalue()

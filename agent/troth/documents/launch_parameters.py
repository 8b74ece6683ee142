# SPDX-License-Identifier: Apache-2.0
"""The parameters of a direct boot, so that a verifier needs no firmware file.

``troth measure launch --format json`` prints it, ``--parameters`` reads it.
Flows from whoever has the firmware to whoever expects its digest. It is no
reference value: nobody has signed it. Pure: it holds parameters and never
computes a digest. Fields are described in ``docs/measuring.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import ovmf
from troth.abi.kernel_hashes import KernelHashes
from troth.abi.ovmf import Area, Section
from troth.documents import strict
from troth.errors import FormatError
from troth.record import record

if TYPE_CHECKING:
    from troth.documents.strict import Reader

SCHEMA = "troth-launch-parameters-v1"
MODES = ("snp", "snp:ovmf-hash", "seves", "sev")
VMMS = ("qemu", "ec2", "gce")
COMPATS = ("sev-snp-measure", "virtee-sev")
MAX_VCPUS = 512

LIMIT_BYTES = 1 << 20
"""No firmware has parameters as large as that."""

_KINDS = {name: kind for kind, name in ovmf.SECTION_KINDS.items()}


@record
class FirmwareParameters:
    """All of a firmware that its launch digest depends on.

    ``ovmf_hash``: 48 bytes, the launch digest after the firmware's own pages;
    ``sections``: in the order of measuring; ``hashes_area``: where hashes of a
    kernel go; ``ap_eip``: where other processors than the first start.
    """

    ovmf_hash: bytes
    size_bytes: int
    sections: tuple[Section, ...]
    hashes_area: Area | None
    ap_eip: int | None


@record
class Processors:
    """The processors of a machine.

    ``vcpus``: 1 to 512; ``signature``: 32 bits, None where the monitor's reset
    state does not show it; ``vcpu_type``: the name it was asked by, or empty;
    ``vmm``: one of ``VMMS``; ``guest_features``: SEV_FEATURES, 64 bits;
    ``compat``: one of ``COMPATS``, which differ about EC2 only.
    """

    vcpus: int
    signature: int | None
    vcpu_type: str = ""
    vmm: str = "qemu"
    guest_features: int = 1
    compat: str = "sev-snp-measure"


@record
class LaunchParameters:
    """The whole document.

    ``mode``: one of ``MODES``; ``digest``: 48 bytes, 32 in the modes of older SEV;
    ``kernel``: None for a boot from disk; ``processors``: None in the modes that
    do not measure them.
    """

    mode: str
    digest: bytes
    firmware: FirmwareParameters
    kernel: KernelHashes | None
    processors: Processors | None


def print_(parameters: LaunchParameters) -> bytes:
    """The document for people and for ``parse``: sorted, indented, with a final newline."""
    firmware, kernel, processors = (
        parameters.firmware,
        parameters.kernel,
        parameters.processors,
    )
    area = firmware.hashes_area
    tree: dict[str, object] = {
        "schema": SCHEMA,
        "mode": parameters.mode,
        "digest": parameters.digest.hex(),
        "firmware": {
            "ovmf_hash": firmware.ovmf_hash.hex(),
            "size_bytes": firmware.size_bytes,
            "sections": [
                {
                    "gpa": hex(section.gpa),
                    "size_bytes": section.size_bytes,
                    "kind": ovmf.SECTION_KINDS[section.kind],
                }
                for section in firmware.sections
            ],
            "hashes_area": None
            if area is None
            else {"gpa": hex(area.gpa), "size_bytes": area.size_bytes},
            "ap_eip": None if firmware.ap_eip is None else hex(firmware.ap_eip),
        },
        "kernel": None
        if kernel is None
        else {
            "kernel_sha256": kernel.kernel.hex(),
            "initrd_sha256": kernel.initrd.hex(),
            "cmdline_sha256": kernel.cmdline.hex(),
        },
        "processors": None
        if processors is None
        else {
            "vcpus": processors.vcpus,
            "signature": None if processors.signature is None else hex(processors.signature),
            "vcpu_type": processors.vcpu_type,
            "vmm": processors.vmm,
            "guest_features": hex(processors.guest_features),
            "compat": processors.compat,
        },
    }
    return strict.pretty(tree)


def parse(data: bytes, *, where: str = "") -> LaunchParameters:
    """The parameters in ``data``.

    Whether the digest is that of the parameters is not checked here. Raises
    ``FormatError``: ``json-*``, ``launch-parameters`` (a number, or a combination),
    ``firmware-size``, ``firmware-section``.
    """
    top = strict.Reader(strict.parse(data, where=where, limit_bytes=LIMIT_BYTES), where=where)
    top.text("schema", allowed=(SCHEMA,))
    mode = top.text("mode", allowed=MODES)
    snp = mode.startswith("snp")
    parameters = LaunchParameters(
        mode=mode,
        digest=_digest(top, "digest", size_bytes=48 if snp else 32),
        firmware=_firmware(top.reader("firmware"), where),
        kernel=None if top.raw("kernel") is None else _kernel(top.reader("kernel")),
        processors=None
        if top.raw("processors") is None
        else _processors(top.reader("processors"), where),
    )
    top.close()
    if (parameters.processors is None) != (mode in ("snp:ovmf-hash", "sev")):
        raise FormatError(
            "launch-parameters",
            f"the mode {mode} measures processors, or does not, unlike these parameters",
            where=where,
        )
    return parameters


def _firmware(reader: Reader, where: str) -> FirmwareParameters:
    firmware = FirmwareParameters(
        ovmf_hash=_digest(reader, "ovmf_hash", size_bytes=48),
        size_bytes=reader.integer("size_bytes", maximum=ovmf.MAX_BYTES),
        sections=reader.each("sections", lambda item: _section(item, where)),
        hashes_area=None
        if reader.raw("hashes_area") is None
        else _area(reader.reader("hashes_area"), where),
        ap_eip=_optional_number(reader, "ap_eip", bits=32, where=where),
    )
    reader.close()
    ovmf.check_size(firmware.size_bytes, where=where)
    ovmf.check_sections(firmware.sections, firmware_bytes=firmware.size_bytes, where=where)
    return firmware


def _section(reader: Reader, where: str) -> Section:
    return Section(
        gpa=_number(reader, "gpa", bits=32, where=where),
        size_bytes=reader.integer("size_bytes", maximum=2**32 - 1),
        kind=_KINDS[reader.text("kind", allowed=tuple(_KINDS))],
    )


def _area(reader: Reader, where: str) -> Area:
    area = Area(
        gpa=_number(reader, "gpa", bits=32, where=where),
        size_bytes=reader.integer("size_bytes", maximum=2**32 - 1),
    )
    reader.close()
    return area


def _kernel(reader: Reader) -> KernelHashes:
    kernel = KernelHashes(
        kernel=_digest(reader, "kernel_sha256", size_bytes=32),
        initrd=_digest(reader, "initrd_sha256", size_bytes=32),
        cmdline=_digest(reader, "cmdline_sha256", size_bytes=32),
    )
    reader.close()
    return kernel


def _processors(reader: Reader, where: str) -> Processors:
    processors = Processors(
        vcpus=reader.integer("vcpus", minimum=1, maximum=MAX_VCPUS),
        signature=_optional_number(reader, "signature", bits=32, where=where),
        vcpu_type=reader.text("vcpu_type"),
        vmm=reader.text("vmm", allowed=VMMS),
        guest_features=_number(reader, "guest_features", bits=64, where=where),
        compat=reader.text("compat", allowed=COMPATS),
    )
    reader.close()
    if processors.signature is None and processors.vmm == "qemu":
        raise FormatError(
            "launch-parameters", "under qemu the processors have a signature", where=where
        )
    return processors


def _digest(reader: Reader, key: str, *, size_bytes: int) -> bytes:
    return bytes.fromhex(reader.digest(key, size_bytes=size_bytes))


def _optional_number(reader: Reader, key: str, *, bits: int, where: str) -> int | None:
    return None if reader.raw(key) is None else _number(reader, key, bits=bits, where=where)


def _number(reader: Reader, key: str, *, bits: int, where: str) -> int:
    # Text, because JSON's integers end below 64 bits; one spelling only, as hex() writes.
    text = reader.text(key)
    digits = text.removeprefix("0x")
    if digits and len(digits) <= bits // 4 and set(digits) <= set("0123456789abcdef"):
        value = int(digits, 16)
        if text == hex(value):
            return value
    raise FormatError(
        "launch-parameters", f"{key} is no hex number of {bits} bits: {text[:24]!r}", where=where
    )

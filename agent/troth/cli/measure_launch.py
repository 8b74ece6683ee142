# SPDX-License-Identifier: Apache-2.0
"""``troth measure launch``: the launch digest of a direct boot with OVMF.

Serves people and scripts. Reads options and words the answer; the sums are
``troth.measure.direct_boot``'s. Standard output is the digest, or the document
of parameters, and nothing else.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from troth.cli import vcpu_options
from troth.documents import launch_parameters
from troth.documents.launch_parameters import LaunchParameters, Processors
from troth.errors import UsageError
from troth.image import firmware as firmware_file
from troth.measure import direct_boot, vcpu
from troth.record import replace

if TYPE_CHECKING:
    from typing import Protocol

    from troth.abi.kernel_hashes import KernelHashes

    class Options(Protocol):
        """What the grammar gives."""

        ovmf: str | None
        ovmf_hash: str | None
        parameters: str | None
        kernel: str | None
        initrd: str | None
        append: str | None
        vcpus: int | None
        vcpu_type: str | None
        vcpu_sig: str | None
        vcpu_family: str | None
        vcpu_model: str | None
        vcpu_stepping: str | None
        vmm: str
        guest_features: str
        mode: str
        compat: str
        format: str


def launch(options: Options) -> int:
    """Print the digest that was asked for.

    Raises ``UsageError`` ``launch-input``, ``launch-number``, ``vcpu-type``,
    ``vcpu-count``, ``vcpu-signature``; ``FormatError`` of the firmware or of the
    parameters; ``OSError`` about a named file.
    """
    _check_inputs(options)
    features = vcpu_options.number(options.guest_features, "--guest-features", bits=64)
    processors = _processors(options, features=features)
    if options.parameters is not None:
        found = _from_parameters(Path(options.parameters), options, processors)
    else:
        found = _from_firmware(Path(options.ovmf or ""), options, processors)
    if found.mode == "snp" and not found.firmware.sections:
        _note("this firmware has no SEV metadata: QEMU does not start it as an SNP guest")
    if options.format == "json":
        sys.stdout.write(launch_parameters.print_(found).decode())
    elif options.format == "base64":
        print(base64.b64encode(found.digest).decode())
    else:
        print(found.digest.hex())
    return 0


def _check_inputs(options: Options) -> None:
    snp = options.mode == "snp"
    for wrong, message in (
        (
            (options.ovmf is None) == (options.parameters is None),
            "exactly one of --ovmf and --parameters is needed",
        ),
        (
            options.kernel is None and options.initrd is not None,
            "--initrd is of use with --kernel only",
        ),
        (
            options.kernel is None and bool(options.append),
            "--append is of use with --kernel only",
        ),
        (
            options.ovmf_hash is not None and (not snp or options.ovmf is None),
            "--ovmf-hash is of use with --ovmf and --mode snp only",
        ),
        (
            options.parameters is not None and options.mode in ("sev", "seves"),
            f"the mode {options.mode} measures the firmware file itself: name it with --ovmf",
        ),
        (
            options.vcpus is None and options.mode in ("snp", "seves"),
            f"--vcpus is needed: the mode {options.mode} measures each processor",
        ),
    ):
        if wrong:
            raise UsageError("launch-input", message, hint="troth measure launch --help")


def _from_parameters(
    path: Path, options: Options, processors: Processors | None
) -> LaunchParameters:
    with path.open("rb") as file:
        data = file.read(launch_parameters.LIMIT_BYTES + 1)
    given = launch_parameters.parse(data, where=str(path))
    direct_boot.check(given, where=str(path))
    if options.mode == "snp:ovmf-hash" or processors is None:
        return replace(
            given,
            mode="snp:ovmf-hash",
            digest=given.firmware.ovmf_hash,
            kernel=None,
            processors=None,
        )
    kernel = given.kernel if options.kernel is None else _kernel(options)
    return LaunchParameters(
        mode=options.mode,
        digest=direct_boot.digest(given.firmware, processors, kernel=kernel),
        firmware=given.firmware,
        kernel=kernel,
        processors=processors,
    )


def _from_firmware(path: Path, options: Options, processors: Processors | None) -> LaunchParameters:
    mode = options.mode
    kernel = None if mode == "snp:ovmf-hash" else _kernel(options)
    # A firmware without a table is a whole one under plain SEV, unless something in it is needed.
    firmware = firmware_file.read(path, footer_required=mode != "sev" or kernel is not None)
    known = _hash(options.ovmf_hash)
    parameters = direct_boot.firmware_parameters(
        firmware,
        ovmf_hash=firmware_file.ovmf_hash(path, firmware) if known is None else known,
    )
    if mode == "snp:ovmf-hash":
        digest = parameters.ovmf_hash
    elif mode == "snp" and processors is not None:
        digest = direct_boot.digest(parameters, processors, kernel=kernel)
    else:
        digest = direct_boot.older_digest(
            firmware_file.chunks(path),
            hashes_area=firmware.hashes_area,
            ap_eip=firmware.ap_eip,
            kernel=kernel,
            processors=processors,
        )
    return LaunchParameters(
        mode=mode, digest=digest, firmware=parameters, kernel=kernel, processors=processors
    )


def _kernel(options: Options) -> KernelHashes | None:
    if options.kernel is None:
        return None
    return firmware_file.kernel_hashes(
        Path(options.kernel),
        initrd=None if options.initrd is None else Path(options.initrd),
        cmdline=options.append,
    )


def _processors(options: Options, *, features: int) -> Processors | None:
    if options.vcpus is not None and not 1 <= options.vcpus <= vcpu.MAX_VCPUS:
        raise UsageError(
            "vcpu-count", f"--vcpus {options.vcpus}: possible are 1 to {vcpu.MAX_VCPUS}"
        )
    signature = _signature(options)
    if options.mode in ("sev", "snp:ovmf-hash") or options.vcpus is None:
        return None
    if signature is None and vcpu.needs_signature(options.vmm):
        raise UsageError(
            "vcpu-type",
            "--vcpu-type, --vcpu-sig or --vcpu-family is needed:"
            " the state of QEMU's processors shows their model",
            hint=f"the types are {', '.join(vcpu.SIGNATURES)}",
        )
    if options.mode == "snp" and not features & vcpu.SNP_ACTIVE:
        _note("bit 0 of --guest-features is clear: no SNP guest has such features")
    return Processors(
        vcpus=options.vcpus,
        signature=signature,
        vcpu_type=options.vcpu_type or "",
        vmm=options.vmm,
        # SEV-ES knows no features: its VMSA pages are measured with none.
        guest_features=features if options.mode == "snp" else 0,
        compat=options.compat,
    )


def _signature(options: Options) -> int | None:
    parts = (options.vcpu_family, options.vcpu_model, options.vcpu_stepping)
    by_parts = any(part is not None for part in parts)
    if (options.vcpu_type is not None) + (options.vcpu_sig is not None) + by_parts > 1:
        raise UsageError(
            "launch-input",
            "one of --vcpu-type, --vcpu-sig and --vcpu-family says which processor it is",
        )
    if by_parts:
        family, model, stepping = parts
        if family is None or model is None or stepping is None:
            raise UsageError(
                "launch-input", "--vcpu-family, --vcpu-model and --vcpu-stepping belong together"
            )
        return vcpu.signature(
            vcpu_options.number(family, "--vcpu-family", bits=32),
            vcpu_options.number(model, "--vcpu-model", bits=32),
            vcpu_options.number(stepping, "--vcpu-stepping", bits=32),
        )
    return vcpu_options.signature(options.vcpu_type, options.vcpu_sig)


def _hash(text: str | None) -> bytes | None:
    if text is None:
        return None
    digits = text.lower()
    if len(digits) != 96 or not set(digits) <= set("0123456789abcdef"):
        raise UsageError("launch-number", "--ovmf-hash must be 96 hex digits")
    return bytes.fromhex(digits)


def _note(text: str) -> None:
    print(f"troth: {text}", file=sys.stderr)

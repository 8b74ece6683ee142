# SPDX-License-Identifier: Apache-2.0
"""``troth measure igvm``: the launch digest of an IGVM file, printed as igvmmeasure does.

Serves people and scripts. Standard output is exactly igvmmeasure's, or one
JSON object; what the digest does not cover and what is odd goes to standard
error. Words only: the sums are ``troth.measure.igvm``'s.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from troth.abi.igvm.file import FileSource, open_
from troth.abi.igvm.source import opener
from troth.cli import vcpu_options
from troth.errors import FormatError, UsageError
from troth.measure import igvm as measuring
from troth.measure.igvm_runs import PAGE_BYTES

if TYPE_CHECKING:
    from typing import Protocol

    from troth.abi.igvm.file import IgvmFile
    from troth.image.id_block_check import Signatures
    from troth.measure.igvm import Measured
    from troth.measure.igvm_kvm import Violation
    from troth.measure.igvm_machine import Machine

    class Options(Protocol):
        """What the grammar gives."""

        file: str
        platform: str
        check_kvm: bool
        native_zero: bool
        ignore_idblock: bool
        bare: bool
        verbose: bool
        compat: str | None
        vcpus: int
        vcpu_type: str | None
        vcpu_sig: str | None
        json: bool


_RULE = "=" * 111


def igvm(options: Options) -> int:
    """Print the digest that was asked for.

    Raises ``FormatError`` ``igvm-*``: of the file, of the first rule of
    ``--check-kvm`` that it breaks (all are printed), or ``igvm-id-block-digest``
    after printing; ``UsageError`` ``vcpu-type``, ``vcpu-count``, ``usage``,
    ``launch-input``, ``launch-number``.
    """
    if options.bare and options.json:
        raise UsageError("usage", "--bare and --json are two forms of the answer")
    signature = vcpu_options.signature(options.vcpu_type, options.vcpu_sig)
    with open(options.file, "rb", opener=opener) as stream:
        file = open_(FileSource(stream.fileno(), where=options.file))
        measured = measuring.measure(
            file,
            platform=options.platform,
            native_zero=options.native_zero,
            compat=options.compat,
            vcpus=options.vcpus,
            vcpu_signature=signature,
        )
        if options.compat is None:
            measuring.check_policy(measured, where=options.file)
        broken = _check_kvm(file, options.platform) if options.check_kvm else None
        signed = _signatures(file, measured)
        ask = not (options.ignore_idblock or measured.id_block_agrees)
        machine = _machine(options, file, measured) if ask else None
    if options.json:
        _json(options, file, measured, broken, signed)
        _refuse(broken, options.file)
    else:
        for violation in broken or ():
            times = f" ({violation.times} times)" if violation.times > 1 else ""
            sys.stderr.write(f"troth: {violation.code}: {violation.message}{times}\n")
        _refuse(broken, options.file)
        _print(options, measured, signed)
    if not options.ignore_idblock:
        _check_id_block(measured, machine, options.file)
    return 0


def _check_kvm(file: IgvmFile, platform: str) -> tuple[Violation, ...]:
    from troth.measure import igvm_kvm

    return igvm_kvm.check(file, platform=platform)


def _refuse(broken: tuple[Violation, ...] | None, where: str) -> None:
    if not broken:
        return
    first = broken[0]
    further = f"; {len(broken) - 1} further rules are broken" if len(broken) > 1 else ""
    raise FormatError(first.code, f"KVM check: {first.message}{further}", where=where)


def _signatures(file: IgvmFile, measured: Measured) -> Signatures | None:
    if measured.id_block_digest is None:
        return None
    from troth.image import id_block_check  # it brings the library of keys, which takes its time

    return id_block_check.signatures(file)


def _machine(options: Options, file: IgvmFile, measured: Measured) -> Machine | None:
    """The machine that the ID block is for, where it is not the one that was asked for."""
    from troth.measure import igvm_machine

    if measured.id_block_digest is None:
        return None
    alone = measuring.measure(
        file, platform="sev-snp", native_zero=options.native_zero, compat=options.compat
    )
    return igvm_machine.machine(alone, measured.id_block_digest)


def _check_id_block(measured: Measured, machine: Machine | None, where: str) -> None:
    if measured.id_block_digest is None or measured.id_block_agrees:
        return
    hint = "--ignore-idblock accepts it; troth igvm sign replaces it"
    if machine is not None:
        kind = "" if machine.vcpu_type is None else f" --vcpu-type {machine.vcpu_type}"
        hint = f"it is for this file with --vcpus {machine.vcpus}{kind}; {hint}"
    raise FormatError(
        "igvm-id-block-digest",
        f"the ID block is for another launch: it expects {measured.id_block_digest.hex().upper()}",
        where=where,
        hint=hint,
    )


def _obstacles(signed: Signatures | None) -> list[str]:
    """Why the ID block would not be taken, as far as its signatures go."""
    if signed is None:
        return []
    if signed.id_key is None:
        return [f"the ID block cannot be read, and no launch succeeds with it: {signed.obstacle}"]
    found = (signed.id_key, *([] if signed.author is None else [signed.author]))
    return [
        f"no launch succeeds with this ID block: {item.obstacle}" for item in found if item.obstacle
    ]


def _print(options: Options, measured: Measured, signed: Signatures | None) -> None:
    if options.verbose:
        for run in measured.runs:
            size_bytes = run.pages * PAGE_BYTES
            sys.stdout.write(f"gpa {run.gpa:#x} len {size_bytes:#x} ({run.kind} page)\n")
    digest = measured.digest.hex().upper()
    if options.bare:
        sys.stdout.write(f"{digest}\n")
        return
    sys.stdout.write(f"\n{_RULE}\nigvmmeasure '{options.file}'\nLaunch Digest: {digest}\n")
    sys.stdout.write(f"{_RULE}\n\n")
    sys.stdout.flush()
    for warning in (*measured.warnings, *([] if options.ignore_idblock else _obstacles(signed))):
        sys.stderr.write(f"warning: {warning}\n")
    for line in measured.unmeasured:
        sys.stderr.write(f"not measured: {line}\n")


def _json(
    options: Options,
    file: IgvmFile,
    measured: Measured,
    broken: tuple[Violation, ...] | None,
    signed: Signatures | None,
) -> None:
    ours = measured.id_block_digest
    tree = {
        "file": options.file,
        "format_version": file.version,
        "platform": measured.platform,
        "compat": options.compat,
        "native_zero": options.native_zero,
        "vcpus": options.vcpus,
        "digest": measured.digest.hex(),
        "policy": None if measured.policy is None else f"{measured.policy:#x}",
        "id_block": None if ours is None else {
            "launch_digest": ours.hex(), "agrees": measured.id_block_agrees,
            "signatures_valid": signed is not None and signed.valid,
        },
        "processors": [
            {
                "index": item.vp_index,
                "gpa": f"{item.gpa:#x}",
                "sev_features": f"{item.sev_features:#x}",
                "in_file": item.in_file,
            }
            for item in measured.vmsas
        ],
        "runs": [
            {"kind": run.kind, "gpa": f"{run.gpa:#x}", "pages": run.pages}
            for run in measured.runs
        ],
        "not_measured": list(measured.unmeasured),
        "warnings": list(measured.warnings),
        "kvm": None if broken is None else [
            {"code": item.code, "message": item.message, "times": item.times} for item in broken
        ],
    }  # fmt: skip
    sys.stdout.write(json.dumps(tree, indent=2) + "\n")

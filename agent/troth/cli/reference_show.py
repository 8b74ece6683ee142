# SPDX-License-Identifier: Apache-2.0
"""``troth reference show``: reference values for people.

Verifies nothing and says so. Every flag that takes protection away is named
with what it means.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from troth.abi import snp_policy
from troth.cli import reference_file
from troth.documents import reference_document, reference_values_json, strict
from troth.documents.reference_values import launch_cmdline
from troth.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from troth.documents.reference_document import Document
    from troth.documents.reference_values import Flags, LaunchValue, ReferenceValues, Registers

    class Options(Protocol):
        """What the grammar gives."""

        file: str
        json: bool


_GIB, _MIB = 1 << 30, 1 << 20
_AML = {
    "unprotected": "the host's ACPI bytecode runs in the guest's kernel",
    "measured-tables": "the image brings its own, measured ACPI tables",
    "off": "the guest runs no ACPI bytecode",
}


def show(options: Options) -> int:
    """Print the values; 0 where they could be read."""
    document = reference_file.read(options.file)
    values = reference_document.values(document)
    if options.json:
        envelope = document.envelope
        signed_by = [] if envelope is None else [item.key_id for item in envelope.signatures]
        tree = {
            "values": reference_values_json.to_tree(values),
            "signatures": signed_by,
            "verified": False,
        }
        sys.stdout.write(strict.pretty(tree).decode())
        return 0
    for line in _lines(document, values):
        print(_safe(line))
    return 0


_WITHOUT = "; registers below are of boots without one"
_INSTANCE = {"refused": "", "optional": _WITHOUT, "required": _WITHOUT}


def _lines(document: Document, values: ReferenceValues) -> Iterator[str]:
    yield f"image       {values.image_name}, svn {values.svn}, made by troth {values.troth_version}"
    if document.envelope is None:
        yield "signature   none: nobody vouches for these values"
    else:
        for item in document.envelope.signatures:
            yield f"signature   {item.key_id or 'of an unnamed key'} (not verified here)"
        yield f"in force    from {values.issued}, expires {values.expires}"
        yield f"commit      {values.commit or 'not stated'}"
    yield f"demands     snp {values.snp}, vtpm {values.vtpm} ({values.vtpm_kind})"
    yield f"products    {', '.join(values.products) or 'any'}"
    yield ""
    if not values.launch:
        yield "launch digests: none. Nothing that the hardware reports can be compared"
    for launch in values.launch:
        yield from _launch(launch, revoked=launch.digest in values.revoked)
    for digest in values.revoked:
        if all(launch.digest != digest for launch in values.launch):
            yield f"revoked     {digest}"
    yield ""
    yield f"policy      {values.policy_sha256}"
    for name, digest in values.root_hashes:
        yield f"root hash   {digest}  {name}"
    yield f"workload    {values.workload or 'not measured'}"
    yield f"instance    configuration {values.instance}{_INSTANCE[values.instance]}"
    for name, digest in (*values.artefacts, *values.inputs):
        yield f"sha256      {digest}  {name}"
    for case in values.cases:
        yield ""
        yield f"boot with   {case.cmdline}"
        yield f"            form {case.form}, TPM {case.tpm}; after the handover:"
        yield from _registers(case.handover)
    yield ""
    notes = list(_notes(values.flags))
    yield from (f"note        {text}" for text in notes)
    if not notes:
        yield "note        no choice that takes protection away"


def _launch(value: LaunchValue, *, revoked: bool) -> Iterator[str]:
    yield f"launch      {value.digest}{'  REVOKED' if revoked else ''}"
    machine = [f"{value.vcpus} vCPU"]
    if value.cpu_types:
        machine.append(f"{'/'.join(value.cpu_types)} ({value.vcpu_signature:#x})")
    if value.memory_bytes:
        machine.append(_size(value.memory_bytes))
    machine.append(f"features {value.guest_features:#x}, policy {value.policy:#x}, {value.vmm}")
    yield f"            {value.kind} {value.file}: {', '.join(machine)}"
    yield f"            command line {launch_cmdline(value)}"
    rooted = "roots the boot chain" if value.roots_boot_chain else "does NOT root the boot chain"
    yield f"            covers {', '.join(value.covers) or 'nothing of the image'}: {rooted}"
    yield f"            ACPI: {_AML.get(value.acpi_aml, value.acpi_aml)}"
    for text in _policy_notes(value.policy):
        yield f"            WARNING: {text}"
    if value.experimental:
        yield f"            experimental: {value.experimental}"


def _policy_notes(policy: int) -> tuple[str, ...]:
    try:
        return snp_policy.warnings(snp_policy.parse(policy))
    except FormatError as error:
        return (error.message,)


def _size(size_bytes: int) -> str:
    if size_bytes % _GIB == 0:
        return f"{size_bytes // _GIB} GiB"
    return f"{size_bytes // _MIB} MiB" if size_bytes % _MIB == 0 else f"{size_bytes} bytes"


def _registers(registers: Registers) -> Iterator[str]:
    for bank, index, value in registers.pcrs:
        yield f"            {bank:<7} {index:>2}  {value}"
    yield f"            software    {registers.software}"


def _notes(flags: Flags) -> Iterator[str]:
    if flags.simulated:
        yield "simulated: made for the simulated secure processor, proves nothing"
    if flags.acpi_aml == "unprotected":
        yield f"acpi_aml = unprotected: where no launch says otherwise, {_AML['unprotected']}"
    if flags.cryptomgr_notests:
        yield "cryptomgr.notests: the kernel's ciphers are not tested, a broken AES goes unnoticed"
    if flags.unsigned_modules:
        yield "unsigned_modules: packed kernel modules carry no signature"
    if flags.lockdown == "none":
        yield "lockdown = none: root of the guest can change its running kernel"
    if not flags.modules_disabled:
        yield "modules_disabled = false: modules can be loaded after the handover"
    if flags.io_error == "survivable":
        yield "io_error = survivable: the host can make single reads fail and the guest goes on"
    if flags.overlay != "none":
        paths = ", ".join(flags.overlay_paths)
        yield f"overlay = {flags.overlay}: can be written over the verified root at {paths}"
    for name in flags.unauthenticated_volumes:
        yield f"volume {name} is not authenticated: the host can change its data unnoticed"
    for name in flags.untracked_volumes:
        yield f"volume {name} is not counted: the host can put back an older state between boots"


def _safe(text: str) -> str:
    """``text`` without control characters: it may come from anybody."""
    return "".join(char if char.isprintable() else "?" for char in text)

# SPDX-License-Identifier: Apache-2.0
"""Reference values against the bundle they speak of: everything computed anew.

Serves ``troth reference check --bundle``, on the machine of the build or on any
other. Needs the bundle directory alone. What cannot be computed from it is
said, line by line; must never take a value of the document for a result.
"""

from __future__ import annotations

import hashlib
import stat
from typing import TYPE_CHECKING

from troth import __version__
from troth.documents import finding, launch_parameters, policy_json
from troth.errors import FormatError, TrothError, UsageError
from troth.image import launch_files, launch_values, reference
from troth.image.build import image_name
from troth.image.hashing import verity_image
from troth.image.launch_values import PARAMETERS_FILE, DirectBoot, Shape
from troth.image.packing import initramfs, initramfs_file
from troth.image.packing.module_closure import SIGNATURE_MAGIC
from troth.measure import direct_boot
from troth.measure.vcpu import SIGNATURES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from troth.documents.finding import Finding
    from troth.documents.policy import Policy
    from troth.documents.reference_values import LaunchValue, ReferenceValues

_MAX_POLICY_BYTES = 64 << 20


def compare(folder: Path, values: ReferenceValues) -> tuple[Finding, ...]:
    """One finding for each thing the values state, computed from the bundle in ``folder``.

    Raises ``UsageError`` ``bundle-missing`` where there is none, ``FormatError``
    ``bundle-file`` where a name of it is a pipe, a device or a directory, which
    nobody's bundle holds and reading might not end.
    """
    _check_kinds(folder, values)
    try:
        policy_bytes = _read(folder / "policy.json")
    except OSError as error:
        raise UsageError(
            "bundle-missing",
            f"not a bundle: {error.filename}: {error.strerror}",
            where=str(folder),
            hint="make one with troth build",
        ) from None
    policy = policy_json.parse(policy_bytes, where=str(folder / "policy.json"))
    digests = {name: _digest(folder / name) for name, _stated in values.artefacts}
    return (
        *_files(values, digests),
        *_policy(values, policy, policy_bytes),
        *_initramfs(folder, values, policy, policy_bytes),
        *_root_hashes(folder, values),
        *_cases(values, policy, policy_bytes),
        *_launches(folder, values, policy, digests),
        *_left_out(values),
    )


def _check_kinds(folder: Path, values: ReferenceValues) -> None:
    named = [name for name, _stated in values.artefacts]
    named += [image_name(volume) for volume, _stated in values.root_hashes]
    named += [value.file for value in values.launch if value.kind == "igvm"]
    for name in ("policy.json", "vmlinuz", "initramfs", PARAMETERS_FILE, *named):
        path = folder / name
        try:
            regular = stat.S_ISREG(path.stat().st_mode)
        except OSError:
            continue  # whoever needs it says so
        if not regular:
            raise FormatError("bundle-file", "not a regular file", where=str(path))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_POLICY_BYTES)


def _digest(path: Path) -> str:
    """SHA-256 in hex of the file, empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _equal(name: str, stated: object, found: object, *, detail: str = "") -> Finding:
    if stated == found:
        return finding.passed(name, detail)
    return _differs(name, f"stated {_short(stated)}, found {_short(found)}")


def _differs(name: str, detail: str) -> Finding:
    return finding.failed(name, "reference-differs", detail)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _files(values: ReferenceValues, digests: dict[str, str]) -> Iterator[Finding]:
    for name, stated in values.artefacts:
        if not digests[name]:
            yield _differs(f"file {name}", "it is not in the bundle")
        else:
            yield _equal(f"file {name}", stated, digests[name])


def _policy(values: ReferenceValues, policy: Policy, data: bytes) -> Iterator[Finding]:
    yield _equal("policy digest", values.policy_sha256, hashlib.sha256(data).hexdigest())
    for name, found in (
        ("image_name", policy.image_name),
        ("svn", policy.svn),
        ("snp", policy.snp),
        ("vtpm", policy.vtpm),
        ("vtpm_kind", policy.vtpm_kind),
        ("platform", reference.platform(policy)),
    ):
        yield _equal(f"stated {name}", getattr(values, name), found)
    volumes = tuple((item.name, item.verity.root_hash) for item in policy.volumes)
    yield _equal("root hashes of the policy", values.root_hashes, volumes)


def _initramfs(
    folder: Path, values: ReferenceValues, policy: Policy, policy_bytes: bytes
) -> Iterator[Finding]:
    """The policy that PID 1 measures, and the flags that follow from what is packed."""
    try:
        members = {item.path: item.data for item in initramfs_file.members(folder / "initramfs")}
    except OSError as error:
        yield _differs("policy in the initramfs", f"{error.strerror}")
        return
    except FormatError as error:
        yield finding.failed("policy in the initramfs", error.code, error.message)
        return
    packed = members.get(initramfs.POLICY_PATH, b"")
    yield _equal("policy in the initramfs", True, packed == policy_bytes)
    modules = [data for path, data in members.items() if path.startswith("modules/") and data]
    unsigned = any(not data.endswith(SIGNATURE_MAGIC) for data in modules)
    yield _equal("flags", values.flags, reference.flags(policy, unsigned_modules=unsigned))


def _root_hashes(folder: Path, values: ReferenceValues) -> Iterator[Finding]:
    """Every block of every image against its tree, and the tree against the root hash."""
    for volume, stated in values.root_hashes:
        name = f"root hash of {volume}"
        path = folder / image_name(volume)
        try:
            offset_bytes = verity_image.appended_offset(path)
            verity_image.verify_image(
                path, path, root_hash=bytes.fromhex(stated), hash_offset_bytes=offset_bytes
            )
        except TrothError as error:
            yield finding.failed(name, error.code, error.message)
        else:
            yield finding.passed(name)


def _cases(values: ReferenceValues, policy: Policy, policy_bytes: bytes) -> Iterator[Finding]:
    found = reference.cases(
        policy,
        policy_bytes=policy_bytes,
        workload=bytes.fromhex(values.workload) if values.workload else None,
    )
    if found == values.cases:
        yield finding.passed("registers", f"{len(found)} cases")
    else:
        yield _differs("registers", "the cases are not those of this policy")


def _launches(
    folder: Path, values: ReferenceValues, policy: Policy, digests: dict[str, str]
) -> Iterator[Finding]:
    boot, trouble = _direct_boot(folder, values, digests)
    if trouble is not None:
        yield trouble
    for value in values.launch:
        yield _launch(folder, value, policy=policy, boot=boot)
    shapes = {
        value.file: (Shape(value.file, value.vcpus, value.memory_bytes), value.policy)
        for value in values.launch
        if value.kind == "igvm"
    }
    # They are read into memory: only what has the stated digest, so nothing without end.
    stated = dict(values.artefacts)
    same_parts = all(
        name in stated and digests[name] == stated[name] for name in ("vmlinuz", "initramfs")
    )
    for name, (shape, guest_policy) in shapes.items():
        yield _content(
            folder,
            shape,
            policy=policy,
            guest_policy=guest_policy,
            same_parts=same_parts,
            stored=digests.get(name, ""),
            troth_version=values.troth_version,
        )
    for name, _stated in values.artefacts:
        if name.endswith(".igvm") and name not in shapes:
            yield _differs(f"launch digest of {name}", "none is stated")


def _direct_boot(
    folder: Path, values: ReferenceValues, digests: dict[str, str]
) -> tuple[DirectBoot | None, Finding | None]:
    """What stands for the firmware, proved to agree with itself; None where it is not there."""
    if all(value.kind != "ovmf" for value in values.launch):
        return None, None
    path = folder / PARAMETERS_FILE
    try:
        document = launch_parameters.parse(_read(path), where=str(path))
        direct_boot.check(document, where=str(path))
    except FormatError as error:
        return None, finding.failed("firmware parameters", error.code, error.message)
    except OSError:
        return None, None  # each launch that needs it says so
    return DirectBoot(
        firmware=document.firmware,
        name="",
        kernel_sha256=bytes.fromhex(digests.get("vmlinuz") or "00" * 32),
        initramfs_sha256=bytes.fromhex(digests.get("initramfs") or "00" * 32),
    ), None


def _launch(
    folder: Path, value: LaunchValue, *, policy: Policy, boot: DirectBoot | None
) -> Finding:
    name = f"launch {value.digest[:16]}"
    for cpu_type in value.cpu_types:
        if SIGNATURES.get(cpu_type) != value.vcpu_signature:
            return _differs(name, f"{cpu_type} does not have the signature stated for it")
    try:
        found = launch_values.again(value, folder, policy=policy, boot=boot)
    except OSError as error:
        return _differs(name, f"{value.file}: {error.strerror}")
    except TrothError as error:
        return finding.failed(name, error.code, error.message)
    for field in value.__match_args__:
        stated, computed = getattr(value, field), getattr(found, field)
        # Experience with hardware is not computed.
        if stated != computed and field != "experimental":
            return _differs(name, f"{field}: stated {_short(stated)}, found {_short(computed)}")
    processors = f", {value.vcpus} vCPU" if value.vcpus else ""
    return finding.passed(name, f"{value.kind} {value.file}{processors}")


def _content(
    folder: Path,
    shape: Shape,
    *,
    policy: Policy,
    guest_policy: int,
    same_parts: bool,
    stored: str,
    troth_version: str,
) -> Finding:
    """Whether an IGVM file holds this bundle's kernel, initramfs and command line: made again."""
    name = f"content of {shape.file}"
    if not same_parts:
        return _differs(name, "kernel or initramfs are not the stated ones")
    try:
        found = launch_files.igvm_sha256(folder, shape, policy=policy, guest_policy=guest_policy)
    except OSError as error:
        return _differs(name, f"{error.filename}: {error.strerror}")
    except TrothError as error:
        return finding.failed(name, error.code, error.message)
    if found == stored:
        return finding.passed(name, "kernel, initramfs and command line of this bundle")
    if troth_version != __version__:
        return finding.not_checked(name, f"made by troth {troth_version}, this is {__version__}")
    return _differs(name, "not what kernel, initramfs and command line make")


def _left_out(values: ReferenceValues) -> Iterator[Finding]:
    """What the values state and no bundle can show."""
    if values.workload:
        yield finding.not_checked("workload", "the tree digest was taken as stated")
    for name, _sha256 in values.inputs:
        yield finding.not_checked(f"input {name}", "the bundle does not hold it")
    if any(value.kind == "ovmf" for value in values.launch):
        yield finding.not_checked("guest policy of direct boots", "the signer's word")
    if values.commit:
        yield finding.not_checked("commit", "the signer's word")

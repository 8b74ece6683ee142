# SPDX-License-Identifier: Apache-2.0
"""From a manifest to the policy PID 1 obeys, as JSON and as a module of literals.

Both carry the same tree; ``twin`` proves it before anything is packed.
"""

from __future__ import annotations

import ast
import re
from hashlib import sha256
from typing import TYPE_CHECKING

from troth.documents import policy_json, strict
from troth.documents.policy import (
    Attest,
    ExtendRule,
    Fail,
    Handover,
    Policy,
    Verity,
    Volume,
)
from troth.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from troth.image.inputs.manifest_records import Manifest

OWNED_PCRS = (11, 14, 15)
#: The kernel's own entries of every rootfs (usr/default_cpio_list).
KERNEL_ENTRIES = ("d dev", "o dev/console", "d root")
#: dm-verity can panic on read errors from here on (facts: storage, section 2).
_PANIC_ON_ERROR_SINCE = (6, 12)

#: Always on the measured command line: fail closed (panic), an unpredictable host excluded
#: from the random pool (S32), systemd's host inputs off (S12), the modules that would
#: bring them back refused by the kernel itself.
_BASE_WORDS = (
    "console=ttyS0",
    "panic=-1",
    "oops=panic",
    "quiet",
    "random.trust_bootloader=off",
    "module_blacklist=qemu_fw_cfg,efivarfs",
    "efi=noruntime",
    "systemd.import_credentials=no",
    "systemd.gpt_auto=no",
    "systemd.swap=no",
)


def cmdline(manifest: Manifest) -> str:
    """The baked command line; a variable key stands in it with its first allowed value."""
    image = manifest.image
    words = [*_BASE_WORDS]
    if image.acpi == "off":
        words.append("acpi=off")
    if manifest.encrypted:
        # What the key worker leaves behind is overwritten as its memory is given back (S19).
        words.append("init_on_free=1")
    words.extend(image.cmdline)
    words.extend(f"{key}={values[0]}" for key, values in image.cmdline_variable.items())
    return " ".join(words)


def verity_options(kernel_release: str) -> tuple[str, ...]:
    """Words of the verity target: any doubt is a panic, as far as this kernel can (S34)."""
    found = re.match(r"(\d+)\.(\d+)", kernel_release)
    if found is None:
        raise BuildError("kernel-release", f"{kernel_release!r} is not a kernel release")
    version = (int(found[1]), int(found[2]))
    if version >= _PANIC_ON_ERROR_SINCE:
        return ("panic_on_corruption", "panic_on_error")
    return ("panic_on_corruption",)


def compile_policy(
    manifest: Manifest,
    *,
    kernel_release: str,
    modules: tuple[str, ...],
    volumes: tuple[tuple[str, str, str, str, str, Verity], ...],
    manager: str,
) -> Policy:
    """The policy of one image.

    ``volumes``: (name, device, mount, file system, mount options, verity), root first;
    ``manager``: as found in the root.
    """
    hand = manifest.handover
    return Policy(
        image_name=manifest.image.name,
        svn=manifest.image.svn,
        kernel_release=kernel_release,
        snp=manifest.tee.snp,
        vtpm=manifest.tee.vtpm,
        vtpm_kind=manifest.tee.vtpm_kind,
        owned_pcrs=OWNED_PCRS,
        cmdline=cmdline(manifest),
        cmdline_forms=("plain", "ovmf-direct"),
        cmdline_variable=dict(manifest.image.cmdline_variable),
        modules=modules,
        volumes=tuple(
            Volume(name, device, mount, kind, options, verity)
            for name, device, mount, kind, options, verity in volumes
        ),
        overlay=manifest.root.overlay if manifest.root else "none",
        overlay_paths=manifest.root.overlay_paths if manifest.root else (),
        workload=manifest.workload,
        handover=Handover(
            kind="supervise" if hand.supervise else "switch",
            argv=hand.supervise or (hand.init,),
            manager=manager,
            user=hand.user,
            group=hand.group,
            grace_s=hand.grace_s,
        ),
        fail=Fail(
            action=manifest.fail.action,
            detail=manifest.fail.detail,
            deadline_s=manifest.fail.deadline_s,
            device_timeout_s=manifest.fail.device_timeout_s,
        ),
        lockdown=hand.lockdown,
        modules_disabled=hand.modules_disabled,
        # S11: a distribution kernel runs the host's ACPI bytecode unless ACPI is off.
        acpi_aml="off" if manifest.image.acpi == "off" else "unprotected",
        attest=Attest(
            group=manifest.attest.group,
            raw_report_data=manifest.attest.raw_report_data,
            extend=tuple(ExtendRule(user, unit) for user, unit in manifest.attest.extend),
            quote=manifest.attest.quote,
        ),
        instance=manifest.instance,
        encrypted=manifest.encrypted,
        brokers=manifest.brokers,
        network=manifest.network,
    )


def twin(policy_bytes: bytes, rootfs: Iterable[str]) -> str:
    """Python source of ``troth_baked``: the policy and the list of rootfs entries.

    ``rootfs``: ``"<kind> <path>"`` as ``linux.tree.names`` reports them. Raises
    ``BuildError`` ``policy-twin`` where the source does not read back as the JSON.
    """
    tree = strict.parse(policy_bytes)
    names = "\n".join(sorted({*rootfs, *KERNEL_ENTRIES}))
    source = (
        f"POLICY = {tree!r}\n"
        f"POLICY_SHA256 = {sha256(policy_bytes).hexdigest()!r}\n"
        f"ROOTFS = {names!r}\n"
    )
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    if strict.canonical(found["POLICY"]) != policy_bytes:
        raise BuildError("policy-twin", "the module of literals does not say what policy.json says")
    policy_json.parse(policy_bytes)
    return source

# SPDX-License-Identifier: Apache-2.0
"""What a good boot of this bundle leaves in its registers, for every boot the policy allows.

One case for each accepted command line (platform form, and values of variable
keys) and each TPM state the policy accepts. PCRs differ between command lines,
so a relying party picks the case its guest reports and compares all of it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from troth.documents.reference_values import BANKS, OVMF_WORDS, REFUSED, Case, Flags
from troth.errors import BuildError
from troth.image import volume_warnings
from troth.measure.boot_events import POINTS, boot_events
from troth.measure.boot_registers import boot_registers
from troth.record import replace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from troth.documents.event_log import Event
    from troth.documents.policy import Policy

_MAX_CASES = 256


def cmdlines(policy: Policy) -> Iterator[tuple[str, str]]:
    """(platform form, text) of every command line that PID 1 accepts."""
    keys = sorted(policy.cmdline_variable)
    for values in itertools.product(*(policy.cmdline_variable[key] for key in keys)):
        chosen = dict(zip(keys, values, strict=True))
        words = [
            f"{key}={chosen[key]}" if (key := word.split("=", 1)[0]) in chosen else word
            for word in policy.cmdline.split(" ")
        ]
        text = " ".join(words)
        for form in policy.cmdline_forms:
            yield form, text + (OVMF_WORDS if form == "ovmf-direct" else "")


def longest_cmdline_bytes(policy: Policy) -> int:
    """Length of the longest command line that PID 1 accepts, without looking at all of them."""
    longest = {key: (max(values, key=len),) for key, values in policy.cmdline_variable.items()}
    return max(
        len(text.encode()) for _form, text in cmdlines(replace(policy, cmdline_variable=longest))
    )


def tpm_states(policy: Policy) -> tuple[str, ...]:
    """The TPM states the policy accepts: "present", "absent", or "unused"."""
    return {"required": ("present",), "optional": ("present", "absent"), "none": ("unused",)}[
        policy.vtpm
    ]


def instance(policy: Policy) -> str:
    """Whether a boot takes an instance configuration: "refused", "optional" or "required"."""
    return REFUSED if policy.instance is None else policy.instance.need


def platform(policy: Policy) -> str:
    """What the image itself demands as root of its boot chain."""
    if policy.snp == "required":
        return {"svsm": "svsm", "paravisor": "azure-paravisor"}.get(policy.vtpm_kind, "direct")
    return policy.snp


def flags(policy: Policy, *, unsigned_modules: bool) -> Flags:
    """The choices of ``policy`` that a relying party may want to refuse."""
    options = {word for volume in policy.volumes for word in volume.verity.options}
    return Flags(
        acpi_aml=policy.acpi_aml,
        cryptomgr_notests=_switches_tests_off(policy),
        modules_disabled=policy.modules_disabled,
        lockdown=policy.lockdown,
        unsigned_modules=unsigned_modules,
        io_error="panic" if not policy.volumes or "panic_on_error" in options else "survivable",
        overlay=policy.overlay,
        overlay_paths=policy.overlay_paths,
        simulated=policy.snp == "simulated",
        unauthenticated_volumes=volume_warnings.unauthenticated(policy),
        untracked_volumes=volume_warnings.untracked(policy),
    )


_NOTESTS = "cryptomgr.notests"


def _switches_tests_off(policy: Policy) -> bool:
    """Whether the kernel may skip its ciphers' self-tests; any value but a clear no counts."""
    words = policy.cmdline.split(" ")
    words += [f"{_NOTESTS}={value}" for value in policy.cmdline_variable.get(_NOTESTS, ())]
    for word in words:
        key, _, value = word.partition("=")
        # As kstrtobool() of lib/kstrtox.c: the first letters decide. No value is a yes.
        if key == _NOTESTS and not value.lower().startswith(("n", "f", "0", "of")):
            return True
    return False


def cases(
    policy: Policy, *, policy_bytes: bytes, workload: bytes | None, instance: bytes | None = None
) -> tuple[Case, ...]:
    """All cases of boots with the ``instance`` configuration of this digest, None for none.

    ``BuildError`` ``reference-cases`` where variable keys make too many.
    """
    texts = list(itertools.islice(cmdlines(policy), _MAX_CASES + 1))
    if len(texts) > _MAX_CASES:
        raise BuildError(
            "reference-cases",
            f"variable keys make more than {_MAX_CASES} accepted command lines",
            hint="allow fewer values in [image] cmdline_variable",
        )
    return tuple(
        _case(
            policy,
            form,
            text,
            state,
            policy_bytes=policy_bytes,
            workload=workload,
            instance=instance,
        )
        for form, text in texts
        for state in tpm_states(policy)
    )


def predict(
    policy: Policy,
    *,
    policy_bytes: bytes,
    workload: bytes | None,
    cmdline: str,
    tpm: str,
    point: str,
    instance: bytes | None = None,
) -> tuple[Event, ...]:
    """The events of one case up to ``point``, with all banks troth knows."""
    return boot_events(
        policy,
        policy_bytes=policy_bytes,
        cmdline=cmdline.encode(),
        workload=workload,
        instance=instance,
        tpm_absent=tpm == "absent",
        banks=BANKS,
        point=point,
    )


def _case(
    policy: Policy,
    form: str,
    text: str,
    tpm: str,
    *,
    policy_bytes: bytes,
    workload: bytes | None,
    instance: bytes | None,
) -> Case:
    points = {
        point: boot_registers(
            policy,
            policy_bytes=policy_bytes,
            cmdline=text.encode(),
            workload=workload,
            instance=instance,
            tpm=tpm,
            point=point,
        )
        for point in POINTS
    }
    return Case(form=form, cmdline=text, tpm=tpm, **points)

# SPDX-License-Identifier: Apache-2.0
"""Stage 2: the command line and the rootfs must be those that the build measured."""

from __future__ import annotations

import troth_baked
from troth.abi.hashes import sha256
from troth.errors import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.state import State
    from troth.documents.policy import Policy

POLICY_FILE = "/runtime/etc/troth/policy.json"
#: OVMF's direct kernel boot appends it (seen in OvmfPkg's QemuKernelLoaderFs, SECURITY S13).
_OVMF_WORD = " initrd=initrd"


def run(state: State) -> None:
    """Compare; raise ``Refusal`` ``policy-*``, ``rootfs-unexpected`` or ``cmdline-*``."""
    with open(POLICY_FILE, "rb", buffering=0) as file:
        state.policy_bytes = file.read()
    if sha256(state.policy_bytes).hexdigest() != troth_baked.POLICY_SHA256:
        raise Refusal("policy-differs", "policy.json is not the policy this init was built with")
    with open("/proc/cmdline", "rb", buffering=0) as file:
        state.cmdline = file.read().removesuffix(b"\n")
    judge_cmdline(state.policy, state.cmdline)
    _judge_words(state)
    _judge_rootfs(state.names)


def _judge_words(state: State) -> None:
    """Words the kernel did not know came as arguments and variables: only listed ones may."""
    words = set(state.cmdline.decode("latin-1").split(" "))
    came = [*state.arguments, *(f"{name}={value}" for name, value in state.environ.items())]
    for word in came:
        if word not in words:
            raise Refusal("cmdline-unlisted", f"init was started with the unknown word {word!r}")


def judge_cmdline(policy: Policy, found: bytes) -> None:
    """Refuse ``found`` unless the policy lists it, value by value of variable keys.

    Raises ``Refusal``: ``cmdline-environment``, ``cmdline-repeated``,
    ``cmdline-unlisted``, ``cmdline-value``, ``cmdline-differs``.
    """
    text = found.decode("latin-1")
    if "ovmf-direct" in policy.cmdline_forms and text.endswith(_OVMF_WORD):
        text = text.removesuffix(_OVMF_WORD)
    if text == policy.cmdline:
        return
    baked, words = policy.cmdline.split(" "), text.split(" ")
    known = {word.split("=", 1)[0] for word in baked}
    counts: dict[str, int] = {}
    for word in words:
        key = word.split("=", 1)[0]
        counts[key] = counts.get(key, 0) + 1
        if key.startswith(("PYTHON", "LD_", "GLIBC_")):
            raise Refusal("cmdline-environment", f"the command line sets {key}")
        if key not in known:
            raise Refusal("cmdline-unlisted", f"the key {key!r} is not in the policy")
    for key, count in counts.items():
        if count > sum(word.split("=", 1)[0] == key for word in baked):
            raise Refusal("cmdline-repeated", f"the key {key!r} stands {count} times")
    if len(words) != len(baked):
        raise Refusal("cmdline-differs", f"{len(words)} words, the policy has {len(baked)}")
    for mine, word in zip(baked, words, strict=True):
        if mine == word:
            continue
        key, _, value = word.partition("=")
        if mine.split("=", 1)[0] != key or key not in policy.cmdline_variable:
            raise Refusal("cmdline-differs", f"{word!r} stands where the policy has {mine!r}")
        if value not in policy.cmdline_variable[key]:
            raise Refusal("cmdline-value", f"{value!r} is not an allowed value of {key}")


def _judge_rootfs(found: set[str]) -> None:
    """Refuse files that the packer did not list; a missing one is named by who needs it."""
    unexpected = found.difference(troth_baked.ROOTFS.split("\n"))
    if unexpected:
        first = min(unexpected)
        raise Refusal(
            "rootfs-unexpected",
            f"{len(unexpected)} entries of the rootfs are not in the manifest, first {first[2:]!r}",
        )

# SPDX-License-Identifier: Apache-2.0
"""Keys that a guest derives from the chip or from its own launch.

Serves ``simulated.processor``. AMD does not publish the real function, so this
one is troth's own (``docs/simulated.md``): keys of a simulated chip open nothing
elsewhere. What may be mixed in, and the bounds of it, are AMD's. Must never
print a key.

Source: AMD 56860 1.58, section 7.2, "Key Derivation", MSG_KEY_REQ.
"""

from __future__ import annotations

import hmac
import struct
from typing import TYPE_CHECKING

from troth.abi import guest_payload, snp_tcb

if TYPE_CHECKING:
    from troth.abi.guest_payload import KeyRequest
    from troth.simulated.chip import Chip
    from troth.simulated.launch import Launch

TAG = b"troth-simulated-derived-key-v1\0"
ROOT_TAG = b"troth-simulated-vcek-root-v1\0"
_FIELDS_V1 = (1 << 6) - 1
_NUMBERS = struct.Struct("<IQI")


def refused(request: KeyRequest, *, launch: Launch, chip: Chip, vmpck: int) -> bool:
    """Whether ``request``, sealed under VMPCK ``vmpck``, asks for more than is the guest's."""
    _, committed, _ = launch.tcbs(chip)
    wanted = request.tcb_version.to_bytes(snp_tcb.TCB_BYTES, "little")
    known = _FIELDS_V1
    if request.launch_mit_vector is not None:
        known |= guest_payload.FIELD_LAUNCH_MIT_VECTOR
    return (
        not vmpck <= request.vmpl <= 3
        or bool(request.fields & ~known)
        or request.guest_svn > launch.guest_svn
        or not snp_tcb.reserved_zero(wanted, chip.product)
        or not snp_tcb.decode(committed, chip.product).at_least(
            snp_tcb.decode(wanted, chip.product)
        )
        or bool((request.launch_mit_vector or 0) & ~launch.launch_mit_vector)
    )


def derive(request: KeyRequest, *, launch: Launch, chip: Chip, vmrk: bytes) -> bytes:
    """The 32 bytes of the key for ``request``, which is not to be ``refused``.

    HMAC-SHA-384, cut to 32 bytes, under the root over the tag, the numbers of the
    request and each field in the order of its bit: its value where it was
    chosen, zeros else. The root is ``vmrk``, or HMAC-SHA-384 of the reported
    TCB under the chip's secret.
    """
    if request.root_key == guest_payload.ROOT_KEY_VMRK:
        root = vmrk
    else:
        root = hmac.digest(chip.secret, ROOT_TAG + chip.tcb, "sha384")
    values = (
        (guest_payload.FIELD_POLICY, launch.policy.to_bytes(8, "little")),
        (guest_payload.FIELD_IMAGE_ID, launch.image_id),
        (guest_payload.FIELD_FAMILY_ID, launch.family_id),
        (guest_payload.FIELD_MEASUREMENT, launch.measurement),
        (guest_payload.FIELD_GUEST_SVN, request.guest_svn.to_bytes(4, "little")),
        (guest_payload.FIELD_TCB_VERSION, request.tcb_version.to_bytes(8, "little")),
        (
            guest_payload.FIELD_LAUNCH_MIT_VECTOR,
            (request.launch_mit_vector or 0).to_bytes(8, "little"),
        ),
    )
    mixed = b"".join(
        value if request.fields & field else bytes(len(value)) for field, value in values
    )
    numbers = _NUMBERS.pack(request.root_key, request.fields, request.vmpl)
    return hmac.digest(root, TAG + numbers + mixed, "sha384")[: guest_payload.KEY_BYTES]

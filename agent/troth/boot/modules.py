# SPDX-License-Identifier: Apache-2.0
"""Stage 3: load the baked modules in their baked order."""

from __future__ import annotations

import errno
import os

from troth.errors import Refusal
from troth.linux import modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.state import State

DIRECTORY = "/modules"
#: Drivers that refuse to be loaded (ENODEV) on a machine without their device, and whose
#: absence a later stage judges: stage tee says ``snp-missing``.
#: Without AES instructions the kernel has its plain cipher.
_JUDGED_LATER = ("sev-guest", "aesni-intel")


def run(state: State) -> None:
    """Load; raise ``Refusal`` ``kernel-differs``, ``module-missing`` or ``module-refused``."""
    release = os.uname().release
    if release != state.policy.kernel_release:
        raise Refusal("kernel-differs", f"kernel {release} runs, the image has modules of another")
    for name in state.policy.modules:
        try:
            modules.load(f"{DIRECTORY}/{name}.ko")
        except FileNotFoundError:
            # ENOENT is also what the kernel says of an unresolved symbol.
            raise Refusal(
                "module-missing", f"{name}.ko, or a module it needs, is not in the image"
            ) from None
        except OSError as error:
            if error.errno == errno.ENODEV and name in _JUDGED_LATER:
                continue
            raise Refusal(
                "module-refused", f"the kernel refused {name}: {error.strerror}"
            ) from None

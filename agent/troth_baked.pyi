# SPDX-License-Identifier: Apache-2.0
# Types of the module of literals that the builder makes for each image
# (image.policy_compile); it exists only inside an initramfs.
from typing import Any

POLICY: dict[str, Any]
POLICY_SHA256: str
ROOTFS: str

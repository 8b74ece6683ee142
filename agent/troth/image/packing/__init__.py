# SPDX-License-Identifier: Apache-2.0
"""Host: the initramfs: closures of what PID 1 needs, profiles, and the archive itself."""

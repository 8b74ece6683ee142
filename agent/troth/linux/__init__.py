# SPDX-License-Identifier: Apache-2.0
"""The only room with foreign function calls and ioctls (x86-64 Linux)."""

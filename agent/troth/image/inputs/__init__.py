# SPDX-License-Identifier: Apache-2.0
"""Host: what a build starts from: the manifest, the kernel, the interpreter."""

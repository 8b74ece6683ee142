# SPDX-License-Identifier: Apache-2.0
"""Host: from a manifest to a bundle. Never runs in the guest."""

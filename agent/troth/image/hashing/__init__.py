# SPDX-License-Identifier: Apache-2.0
"""Host: dm-verity hash trees over whole files, on all cores."""

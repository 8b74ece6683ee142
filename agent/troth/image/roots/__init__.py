# SPDX-License-Identifier: Apache-2.0
"""Host: roots and verity volumes, from directory, tar or ready image."""

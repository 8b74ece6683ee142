# SPDX-License-Identifier: Apache-2.0
"""The reference key broker: keys for guests whose evidence is good. Host only."""

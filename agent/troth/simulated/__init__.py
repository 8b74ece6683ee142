# SPDX-License-Identifier: Apache-2.0
"""The simulated platform: a secure processor on the host, for guests that state it."""

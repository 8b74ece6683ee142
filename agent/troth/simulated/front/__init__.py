# SPDX-License-Identifier: Apache-2.0
"""The guest half of the simulated platform: the kernel's interfaces without its driver."""

# SPDX-License-Identifier: Apache-2.0
"""The door to cryptography for code that also runs in a guest; one algorithm a module."""

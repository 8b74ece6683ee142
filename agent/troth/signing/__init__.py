# SPDX-License-Identifier: Apache-2.0
"""Keys and signatures of those who vouch for an image; the only door to cryptography."""

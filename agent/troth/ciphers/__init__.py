# SPDX-License-Identifier: Apache-2.0
"""Encryption for code that also runs in a guest: the door to ``cryptography`` there."""

# SPDX-License-Identifier: Apache-2.0
"""Bytes to values and back, pure: no file, clock or environment is touched here."""

# SPDX-License-Identifier: Apache-2.0
"""Encrypted volumes: their keys, records, maps and first format. In guests and on hosts."""

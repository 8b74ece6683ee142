# SPDX-License-Identifier: Apache-2.0
"""Encrypted volumes, in a guest and on the host: what is accepted, opened and written."""

# SPDX-License-Identifier: Apache-2.0
"""Pure sums over artefacts: hash trees, register values."""

# SPDX-License-Identifier: Apache-2.0
"""The commands: grammar, hints and one module per verb, no logic."""

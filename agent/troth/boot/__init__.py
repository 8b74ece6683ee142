# SPDX-License-Identifier: Apache-2.0
"""Guest, PID 1: one module per stage, imported when the stage runs."""

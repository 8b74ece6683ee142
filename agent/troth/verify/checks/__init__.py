# SPDX-License-Identifier: Apache-2.0
"""The checks of a report and of evidence, by what they look at."""

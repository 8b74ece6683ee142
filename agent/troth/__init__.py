# SPDX-License-Identifier: Apache-2.0
"""troth: from the launch measurement to the code that runs."""

__version__ = "0.1.0"

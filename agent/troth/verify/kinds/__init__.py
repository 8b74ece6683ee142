# SPDX-License-Identifier: Apache-2.0
"""What stands between processor and guest, and where each platform kind puts the binding."""

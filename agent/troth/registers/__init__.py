# SPDX-License-Identifier: Apache-2.0
"""Guest: what was measured, where it is kept, and the one lock around both."""

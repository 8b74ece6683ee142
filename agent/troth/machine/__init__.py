# SPDX-License-Identifier: Apache-2.0
"""Host: virtual machines behind ``troth run``. Never runs in the guest."""

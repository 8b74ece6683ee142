# SPDX-License-Identifier: Apache-2.0
"""Evidence inside the guest: who gives reports, how often they are asked, and who asks them."""

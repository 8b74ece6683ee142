# SPDX-License-Identifier: Apache-2.0
"""Who signed a report: certificates, roots and lists of revocation, from files or from AMD."""

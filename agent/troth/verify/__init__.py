# SPDX-License-Identifier: Apache-2.0
"""The relying party: evidence, endorsements and a policy give a result that names every check."""

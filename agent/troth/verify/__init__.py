# SPDX-License-Identifier: Apache-2.0
"""The relying party: from evidence, endorsements and a policy to a result that names every check."""

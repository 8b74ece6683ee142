# SPDX-License-Identifier: Apache-2.0
"""Where the keys of encrypted volumes come from: one module a scheme, run by the key worker."""

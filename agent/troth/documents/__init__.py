# SPDX-License-Identifier: Apache-2.0
"""One module per document that flows between rooms: parse and print, pure."""

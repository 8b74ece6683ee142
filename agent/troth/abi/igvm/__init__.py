# SPDX-License-Identifier: Apache-2.0
"""IGVM files: headers, reading, writing.

``headers``: one record a header type; ``source``: where bytes come from;
``file``: the strict reader; ``rules``: what headers must keep; ``coverage``:
pages placed once; ``write``: the serialiser. Pure: no room of troth but
``errors`` and ``record`` is used.
"""

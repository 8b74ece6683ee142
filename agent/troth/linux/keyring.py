# SPDX-License-Identifier: Apache-2.0
"""Keys handed to the kernel by its keyring, so that none is in an ioctl, argv or table.

A *logon* key can be used by the kernel and read by nobody. It is put into the
keyring of this thread, named in a device-mapper table, and taken away as soon
as the table is loaded, which keeps its own copy (keyrings(7), add_key(2);
Documentation/admin-guide/device-mapper/dm-crypt.rst, "<key>"). Serves the key
worker. Must never leave a key behind when a table was refused.
"""

from __future__ import annotations

import contextlib

from troth.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LOGON = "logon"
_THREAD_KEYRING = -1
_KEYCTL_UNLINK = 9


@contextlib.contextmanager
def logon_key(description: str, payload: bytes) -> Iterator[str]:
    """Within: the words ``:<bytes>:logon:<description>`` for a table. ``OSError``.

    ``description`` needs a prefix and a colon, as the kernel wants of logon keys.
    """
    serial = syscalls.add_key(_LOGON, description, payload, keyring=_THREAD_KEYRING)
    try:
        yield f":{len(payload)}:{_LOGON}:{description}"
    finally:
        syscalls.keyctl(_KEYCTL_UNLINK, serial, _THREAD_KEYRING)

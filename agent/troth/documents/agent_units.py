# SPDX-License-Identifier: Apache-2.0
"""Where a root could change the units of the troth agent (SECURITY S24).

systemd prefers these directories over the /run/systemd/system in which the
agent's units lie, and applies drop-ins for all services to the agent too. One
rule, read by the builder's lint and by PID 1. Imports nothing.
"""

from __future__ import annotations

#: Unit directories of a root, relative to it (systemd.unit(5), "Unit File Load Path").
DIRECTORIES = (
    "etc/systemd/system",
    "etc/systemd/system.control",
    "etc/systemd/system.attached",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
AGENT = "troth-agent"
#: Drop-in directories that apply to units of the agent among others.
FOR_ALL = ("service.d", "socket.d", "troth-.service.d", "troth-.socket.d")

# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: the disk of an instance configuration, and the file on it."""

from __future__ import annotations

from troth.documents import instance, instance_disk
from troth.documents.policy import InstanceRules
from troth.errors import FormatError

RULES = InstanceRules(
    need="optional",
    hostname=True,
    network=("static",),
    brokers=("keys",),
    values={"region": ("eu",), "owner": ()},
)
SEEDS = [
    b'{"schema":"troth-instance-v1","hostname":"node-7.example"}' + bytes(454),
    b'{"schema":"troth-instance-v1","network":{"method":"static","address":"192.0.2.10/24"}}',
    b'{"schema":"troth-instance-v1","brokers":{"keys":["a.example:1","[2001:db8::7]:3"]}}',
    b'{"schema":"troth-instance-v1","values":{"region":"eu","owner":"a\\nb"}}',
]


def fuzz(data: bytes) -> None:
    try:
        content = instance_disk.content(data[: instance_disk.READ_BYTES])
        found = instance.parse(content)
        instance.judge(found, RULES)
    except FormatError:
        return
    if instance.parse(content + b"\n ") != found:
        raise AssertionError("layout changes the meaning")
    if found.hostname.lower() != found.hostname or set(dict(found.values)) - set(RULES.values):
        raise AssertionError("more than the policy allows")

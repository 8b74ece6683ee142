# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: the page of secrets, which in a simulated guest comes over the host's wire."""

from troth.abi import secrets_page
from troth.errors import FormatError


def fuzz(data: bytes) -> None:
    for candidate in (data, data[:4096].ljust(4096, b"\0"), b"\3\0\0\0" + data[:4092].ljust(4092)):
        try:
            page = secrets_page.parse(candidate)
        except FormatError:
            continue
        if secrets_page.parse(secrets_page.encode(page)) != page:
            raise AssertionError("a page is not what was read")


SEEDS = [
    secrets_page.encode(secrets_page.SecretsPage(vmpcks=(b"k" * 32,) * 4)),
    secrets_page.encode(
        secrets_page.below(
            secrets_page.SecretsPage(vmpcks=(b"k" * 32,) * 4),
            secrets_page.Svsm(1 << 30, 1 << 20, 1 << 30, 1, 2),
        )
    ),
]

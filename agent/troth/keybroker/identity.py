# SPDX-License-Identifier: Apache-2.0
"""Who the broker is: its TLS key, its issuer of guests' certificates, and what is settled for TLS.

Serves ``troth keybroker serve``. Keys are made on first use, in files that only their
owner reads; the digest of the TLS key is what guests pin, so it must outlive its
certificate. Must never speak less than TLS 1.3, nor resume a session (SECURITY S22).
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from troth.documents.result import SIMULATED
from troth.errors import HostError
from troth.signing import service_certificates as certificates
from troth.signing.service_certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

TLS_KEY, TLS_CERTIFICATE = "tls.key", "tls.pem"
ISSUER_KEY, ISSUER_CERTIFICATE = "issuer.key", "issuer.pem"

_MAX_FILE_BYTES = 64 << 10
#: The digest of the key is pinned; whoever pins the certificate has it long.
_YEARS = timedelta(days=10 * 365)
_BEFORE = timedelta(days=1)


def tls_certificate(folder: Path, hosts: Sequence[str], kind: str) -> bytes:
    """PEM of the broker's certificate in ``folder``; made, with its key, where there is none.

    ``hosts``: names and addresses in a new one. Raises ``HostError`` ``broker-own-keys``.
    """
    now = datetime.now(UTC)
    name = "troth keybroker" + (" SIMULATED" if kind == SIMULATED else "")

    def make() -> tuple[bytes, bytes]:
        key = certificates.new_key()
        made = certificates.server_certificate(
            key, name, hosts, not_before=now - _BEFORE, not_after=now + _YEARS
        )
        return key, made

    return _pair(folder, TLS_KEY, TLS_CERTIFICATE, make)[1]


def authority(folder: Path, trust_domain: str) -> Authority:
    """The issuer of guests' certificates in ``folder``; made where there is none.

    Raises ``HostError`` ``broker-own-keys``; ``FormatError``: ``cert-format``, ``key-*``.
    """
    now = datetime.now(UTC)

    def make() -> tuple[bytes, bytes]:
        key = certificates.new_authority_key()
        made = Authority.make(
            key, f"spiffe://{trust_domain}", not_before=now - _BEFORE, not_after=now + _YEARS
        )
        return key, made.pem

    return Authority(*_pair(folder, ISSUER_KEY, ISSUER_CERTIFICATE, make))


def context(folder: Path, issuer: Authority | None) -> ssl.SSLContext:
    """TLS as the broker speaks it; with an ``issuer``, guests may show its certificates.

    Raises ``HostError`` ``broker-own-keys``.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.num_tickets = 0
    made.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    made.set_alpn_protocols(["http/1.1"])
    try:
        made.load_cert_chain(folder / TLS_CERTIFICATE, folder / TLS_KEY)
    except (ssl.SSLError, OSError) as error:
        raise _unusable(folder / TLS_CERTIFICATE, error) from None
    if issuer is not None:
        made.verify_mode = ssl.CERT_OPTIONAL
        made.load_verify_locations(cadata=issuer.pem.decode("ascii"))
    return made


def _pair(
    folder: Path, key_name: str, certificate_name: str, make: Callable[[], tuple[bytes, bytes]]
) -> tuple[bytes, bytes]:
    """Key and certificate from their files; both are new where the key is missing."""
    key_path, certificate_path = folder / key_name, folder / certificate_name
    try:
        if not key_path.exists():
            key, certificate = make()
            # The key last: where it is, its certificate is there too.
            _write(certificate_path, certificate, 0o644)
            _write(key_path, key, 0o600)
        return _read(key_path), _read(certificate_path)
    except OSError as error:
        raise _unusable(key_path, error) from None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES)


def _write(path: Path, data: bytes, mode: int) -> None:
    beside = path.with_name(path.name + ".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(beside, flags, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


def _unusable(path: Path, error: Exception) -> HostError:
    said = (error.strerror if isinstance(error, OSError) else "") or str(error)
    return HostError(
        "broker-own-keys", f"key and certificate cannot be used: {said}", where=str(path)
    )

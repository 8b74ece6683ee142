# SPDX-License-Identifier: Apache-2.0
"""``troth keybroker serve``: settle policy and identity, say what guests pin, serve until told."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from troth.cli import broker_database
from troth.errors import HostError, UsageError
from troth.keybroker import appraisal, identity, issuer, store
from troth.keybroker.appraisal import Appraiser
from troth.keybroker.audit import AuditLog
from troth.keybroker.issuer import Issuer
from troth.keybroker.routes import Broker
from troth.keybroker.server import Server
from troth.keybroker.sessions import Sessions
from troth.signing import service_certificates
from troth.signing.es256 import TokenKey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from troth.keybroker.appraisal import StrictPolicy
    from troth.keybroker.store import Store

    class Options(Protocol):
        """What the grammar gives."""

        db: str
        listen: str
        policy: str | None
        certs: str | None
        trust_domain: str | None
        name: list[str]
        passphrase_file: str | None


_POLICY = "policy"
_MAX_POLICY_BYTES = 1 << 20
_HOST_OF_GUEST = "10.0.2.2"
_ANY = ("0.0.0.0", "::")  # noqa: S104 - what no certificate names


def serve(options: Options) -> int:
    """Serve until SIGTERM or SIGINT.

    Raises ``UsageError``: ``broker-listen``, ``broker-policy``, ``broker-kind``,
    ``broker-passphrase``, ``broker-trust-domain``, ``certs-directory``; ``HostError``:
    ``broker-listen``, ``broker-*``; ``FormatError`` of a damaged policy or database.
    """
    host, port = _address(options.listen)
    given = None
    if options.policy is not None:
        text = broker_database.read(options.policy, _MAX_POLICY_BYTES, code="verify-policy-file")
        given = appraisal.strict_policy(text, where=options.policy)
        if not broker_database.exists(options.db):
            broker_database.create(
                options.db, given.policy.platform, passphrase_file=options.passphrase_file
            )
    with broker_database.opened(options.db, passphrase_file=options.passphrase_file) as kept:
        policy = _policy(kept, given)
        folder = None if options.certs is None else Path(options.certs)
        appraiser = Appraiser(kept, policy, folder)
        domain = issuer.settled_domain(kept, options.trust_domain)
        authority = identity.authority(kept.folder, domain) if domain else None
        names = options.name or [name for name in (host,) if name not in _ANY]
        certificate = identity.tls_certificate(kept.folder, names, kept.kind)
        context = identity.context(kept.folder, authority)
        audit = AuditLog(kept.folder)
        broker = Broker(
            kept,
            appraiser,
            Sessions(),
            token_key=TokenKey(),
            audit=audit,
            issuer=None if authority is None else Issuer(kept, authority, domain),
        )
        try:
            with _listener(host, port) as listener:
                server = Server(broker.answer, context, knows=broker.knows)
                port = listener.getsockname()[1]
                said = _introduction(
                    kept,
                    f"{_bracketed(host)}:{port}",
                    _reached(host, options.name, port),
                    certificate,
                    domain,
                )
                asyncio.run(_until_told(server, listener, said))
        finally:
            audit.close()
    return 0


async def _until_told(server: Server, listener: socket.socket, text: str) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    # Whoever reads this may end it from here on.
    sys.stdout.write(text)
    sys.stdout.flush()
    await server.run(listener)


def _policy(kept: Store, given: StrictPolicy | None) -> StrictPolicy:
    """The policy that counts: ``given`` now, which is kept, or the one that was given before."""
    if given is not None:
        store.check_kind(kept, given.policy.platform, "the policy")
        kept.put_meta(_POLICY, given.text)
        return given
    before = kept.meta(_POLICY)
    if before is None:
        raise UsageError(
            "broker-policy",
            "no policy was given yet",
            where=str(kept.folder),
            hint="troth verify init-policy -o policy.toml writes a strict one; then --policy",
        )
    return appraisal.strict_policy(before, where=f"{kept.folder}, policy")


def _introduction(kept: Store, at: str, reached: str, certificate: bytes, domain: str) -> str:
    """What people read: where it listens, and the lines for guests that reach it there."""
    pin = service_certificates.spki_sha256(certificate)
    lines = [
        f"troth keybroker: {kept.kind} guests, on https://{at}",
        f"SPKI SHA-256 of its key: {pin}",
        "in troth.toml:",
        "[[broker]]",
        'name = "keybroker"',
        'protocol = "troth"',
        f"addresses = [{reached}",
        f'spki = ["{pin}"]',
    ]
    if domain:
        lines.append(f"trust_domain = {json.dumps(domain)}")
    return "".join(f"{line}\n" for line in lines)


def _reached(host: str, names: Sequence[str], port: int) -> str:
    """The rest of the line of addresses: the names given, or where a local guest finds it."""
    if names or not _is_local(host):
        places = [f"{_bracketed(name)}:{port}" for name in names or (host,)]
        return ", ".join(json.dumps(place) for place in places) + "]"
    return (
        f"\"{_HOST_OF_GUEST}:{port}\"]  # as QEMU's user network has it; else this machine's name"
    )


def _is_local(host: str) -> bool:
    """Whether ``host`` is no address that another machine could ask at."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return found.is_loopback or found.is_unspecified


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise UsageError(
            "broker-listen",
            f"{text[:80]!r} is not HOST:PORT",
            hint="--listen 127.0.0.1:8443, or [::]:8443 for every address",
        )
    return host, int(port)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, *_rest, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise HostError(
            "broker-listen",
            f"cannot listen there: {error.strerror}",
            where=f"{_bracketed(host)}:{port}",
            hint="take a free port of this machine",
        ) from None

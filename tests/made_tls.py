# SPDX-License-Identifier: Apache-2.0
"""Certificates and listeners on the loopback, right ones and wrong ones, for clients under test.

A listener serves a bounded number of connections, each in a thread and with a
time-out, and ends with its ``with`` block.
"""

import base64
import contextlib
import datetime as dt
import hashlib
import socket
import ssl
import tempfile
import threading
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from troth.record import record

START = 1_750_000_000
"""About when all certificates begin, unix seconds."""
DAY_S = 86400
BOTH_USES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@cache
def key(number):
    """A P-256 key that is the same in every run."""
    return ec.derive_private_key(0xB0B0000 + number, ec.SECP256R1())


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def moment(seconds):
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def certificate(
    own, issuer_key=None, *, issuer="issuer", subject="server", dns=(), uris=(), authority=False,
    begins=START, days=365, usage=BOTH_USES,
):  # fmt: skip
    """DER of a certificate for the private key ``own``, or its public half."""
    public = own if isinstance(own, ec.EllipticCurvePublicKey) else own.public_key()
    signer = issuer_key or own
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(public)
        .serial_number(1000 + len(subject))
        .not_valid_before(moment(begins))
        .not_valid_after(moment(begins + days * DAY_S))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    names = [x509.DNSName(item) for item in dns]
    names += [x509.UniformResourceIdentifier(item) for item in uris]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if authority:
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False,
                encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )  # fmt: skip
    elif usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    made = builder.sign(signer, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


@cache
def authority(number=1, *, begins=START, days=3650):
    """DER of an issuer with key(number), called "issuer"."""
    return certificate(
        key(number), subject="issuer", issuer="issuer", authority=True, begins=begins, days=days
    )


def pin(own):
    """SHA-256 of the SubjectPublicKeyInfo of ``own``, as the library prints it."""
    public = own.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(public).hexdigest()


def pin_of(certificate):
    """The same for the key in a certificate, DER."""
    public = x509.load_der_x509_certificate(certificate).public_key()
    return hashlib.sha256(
        public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ).hexdigest()


@record
class Broker:
    """What a policy says of a broker."""

    name: str = "main"
    protocol: str = "troth"
    addresses: tuple[str, ...] = ()
    spki: tuple[str, ...] = ()
    ca: tuple[str, ...] = ()
    server_name: str = ""
    spiffe_id: str = ""
    not_before: int = 0
    trust_domain: str = ""


def base64_of(der):
    return base64.b64encode(der).decode()


@cache
def server_context(
    number=2, *, chain=None, newest=ssl.TLSVersion.TLSv1_3, clients=None, optional=False
):
    """A server's side with key(number), and certificates ``chain`` or one of its own making."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.maximum_version = newest
    own = key(number)
    ders = chain or (certificate(own, subject="self", issuer="self"),)
    text = "".join(ssl.DER_cert_to_PEM_cert(item) for item in ders).encode()
    text += own.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.pem"
        path.write_bytes(text)
        made.load_cert_chain(path)
    if clients:
        made.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
        made.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(clients))
        made.verify_flags |= 0x200000  # X509_V_FLAG_NO_CHECK_TIME: the tests' clock is no clock
    return made


class Listener:
    """``handle(connection)`` for each of at most ``most`` connections; with TLS if ``context``.

    ``handle`` gets a connection with a time-out of 5 s, and may end it as it likes.
    """

    def __init__(self, handle, *, context=None, most=8):
        self._handle, self._context, self._most = handle, context, most
        self.accepted = 0
        self._busy = []
        self.over = threading.Event()
        """Set when the client is done: a handler that is slow on purpose waits for it."""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(10)
        self.port = self._socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_exception):
        self.over.set()
        # Closing alone wakes nobody who is in accept(2).
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in (self._thread, *self._busy):
            thread.join(10)
            assert not thread.is_alive()

    def _serve(self):
        for _ in range(self._most):
            try:
                plain, _address = self._socket.accept()
            except OSError:
                return
            self.accepted += 1
            plain.settimeout(5)
            busy = threading.Thread(target=self._one, args=(plain,), daemon=True)
            self._busy.append(busy)
            busy.start()

    def _one(self, plain):
        connection = plain
        # A client that is refused, or refuses, breaks off anywhere.
        with contextlib.suppress(OSError):
            if self._context is not None:
                connection = self._context.wrap_socket(plain, server_side=True)
            self._handle(connection)
        connection.close()


@record
class Asked:
    """A request as a listener read it."""

    method: str
    path: str
    headers: dict
    body: bytes


def read_request(connection):
    """The next request of ``connection``, or None at its end."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(4096)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    method, path, _version = first.split(" ")
    headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return Asked(method, path, headers, body)


def answer(body=b"{}", status="200 OK", *, more=""):
    """An answer's bytes; ``more``: header lines, each with its end."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode("latin-1") + body


def answering(*texts):
    """A handler that answers each request of a connection with the next of ``texts``."""

    def handle(connection):
        for text in texts:
            if read_request(connection) is None:
                return
            connection.sendall(text)

    return handle

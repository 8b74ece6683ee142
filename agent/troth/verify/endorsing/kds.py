# SPDX-License-Identifier: Apache-2.0
"""AMD's key distribution service, or another that speaks the same: paths and requests.

Serves ``verify.endorsing.fetch``. What comes back is bytes from a network: nothing here
believes them. The service answers about one request for a VCEK in ten seconds
for each client, so these are paced, across processes too. Must never follow a
redirect, read without a bound, retry without end, or speak plain HTTP to
anything but this machine.

Source: AMD 57230, "VCEK Certificate and KDS Interface Specification", chapter
"KDS"; RFC 9110 section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from troth.abi import snp_report, snp_tcb
from troth.errors import FormatError, HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.abi.snp_tcb import Tcb

SERVICE = "https://kdsintf.amd.com"

MAX_ANSWER_BYTES = 1 << 20
ATTEMPTS = 4
_CONNECT_ATTEMPTS = 2
TIMEOUT_S = 30.0
"""For connecting and for each piece of an answer; a whole answer has four times that."""

MAX_WAIT_S = 60.0
"""A service that asks for a longer pause is told to the user instead."""

_DEFAULT_PAUSE_S = 10.0
_FIRST_PAUSE_S = 2.0
_CHUNK_BYTES = 64 << 10
_BUSY = 429
_NOT_FOUND = 404


def vcek_path(line: str, hwid: bytes, tcb: Tcb) -> str:
    """Where the certificate of the chip ``hwid`` of ``line`` at ``tcb`` is.

    ``hwid``: 8 bytes where the line has the part fmc, else 64. Raises
    ``FormatError`` ``kds-chip`` for another length, ``snp-tcb`` for a TCB of
    another line.
    """
    snp_tcb.encode(tcb, line)
    if len(hwid) != hwid_bytes(line):
        raise FormatError("kds-chip", f"a chip id of {len(hwid)} bytes on {line}")
    levels = (
        ("fmcSPL", tcb.fmc),
        ("blSPL", tcb.bootloader),
        ("teeSPL", tcb.tee),
        ("snpSPL", tcb.snp),
        ("ucodeSPL", tcb.microcode),
    )
    query = "&".join(f"{name}={level:02d}" for name, level in levels if level is not None)
    return f"/vcek/v1/{line}/{hwid.hex()}?{query}"


def hwid_bytes(line: str) -> int:
    """How many bytes of CHIP_ID the service knows a chip of ``line`` by."""
    return 8 if snp_tcb.has_fmc(line) else 64


def chain_path(line: str, signer: str) -> str:
    """Where intermediate and root of ``signer`` (``VCEK`` or ``VLEK``) are, in PEM."""
    return f"/{_kind(signer)}/v1/{line}/cert_chain"


def list_path(line: str, signer: str) -> str:
    """Where the revocation list is, in DER."""
    return f"/{_kind(signer)}/v1/{line}/crl"


def _kind(signer: str) -> str:
    if signer not in (snp_report.VCEK, snp_report.VLEK):
        raise ValueError(f"{signer!r} names no hierarchy")
    return signer


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect stays what it is: an answer that is not the one asked for."""

    def redirect_request(self, *_: object) -> None:
        return None


class Service:
    """A service at ``url``: https, or http on this machine itself.

    ``pause`` sleeps for seconds and ``tell`` is told why, before. Raises
    ``UsageError`` ``kds-service`` for another URL.
    """

    def __init__(
        self,
        url: str = SERVICE,
        *,
        pause: Callable[[float], None] = time.sleep,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.url, loopback = _checked(url)
        self._pause = pause
        self._tell = tell
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if loopback:
            # A proxy has no business between two programs of one machine.
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, path: str) -> bytes:
        """The answer to a GET of ``path``, at most ``MAX_ANSWER_BYTES``.

        Raises ``FormatError``: ``kds-unknown`` (404), ``kds-answer`` (too large);
        ``HostError``: ``kds-unreachable``, ``kds-busy``, ``kds-refused``.
        """
        attempt, wait = 1, _FIRST_PAUSE_S
        while True:
            last = attempt == ATTEMPTS
            try:
                return self._once(path)
            except urllib.error.HTTPError as error:
                with error:
                    status, after = error.code, error.headers.get("Retry-After", "")
                problem = self._status_problem(status, path)
                last = last or (status < 500 and status != _BUSY)
                wait = _seconds(after) if status == _BUSY else wait
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                problem = HostError(
                    "kds-unreachable",
                    f"no answer: {reason}",
                    where=self.url,
                    hint="a verifier needs no network: bring the files from a machine that has one",
                )
                # A service that is not there, or is another, is not so for a moment only.
                impostor = isinstance(reason, ssl.SSLCertVerificationError)
                last = last or impostor or attempt == _CONNECT_ATTEMPTS
            if last or wait > MAX_WAIT_S:
                raise problem
            self._tell(f"{problem.message}; trying again in {wait:.0f} s")
            self._pause(wait)
            attempt, wait = attempt + 1, 2 * wait

    def _once(self, path: str) -> bytes:
        deadline = time.monotonic() + 4 * TIMEOUT_S
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self.url + path, headers={"Accept": "*/*", "User-Agent": "troth"}
        )
        with self._opener.open(request, timeout=TIMEOUT_S) as answer:
            announced = answer.headers.get("Content-Length", "")
            data = bytearray()
            while piece := answer.read1(_CHUNK_BYTES):
                data += piece
                if len(data) > MAX_ANSWER_BYTES:
                    raise FormatError(
                        "kds-answer", f"more than {MAX_ANSWER_BYTES} bytes", where=self.url + path
                    )
                if time.monotonic() > deadline:
                    raise TimeoutError("the answer takes too long")
        if announced.isascii() and announced.isdigit() and int(announced) != len(data):
            raise http.client.IncompleteRead(bytes(data))
        return bytes(data)

    def _status_problem(self, status: int, path: str) -> FormatError | HostError:
        where = self.url + path
        if status == _NOT_FOUND:
            return FormatError(
                "kds-unknown",
                "the service knows no such certificate",
                where=where,
                hint="is the report genuine? The service also says so at times when it is not well",
            )
        if status == _BUSY:
            return HostError(
                "kds-busy",
                "the service answers no more requests for now",
                where=where,
                hint="it answers about one request for a chip's certificate in 10 s per client",
            )
        return HostError("kds-refused", f"the service answered with status {status}", where=where)


def _checked(url: str) -> tuple[str, bool]:
    """``url`` without a final slash, and whether its host is this machine."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
        parts = urllib.parse.urlsplit("")
    loopback = host == "localhost" or _is_loopback(host)
    odd = parts.query or parts.fragment or parts.username is not None or not url.isascii()
    scheme = parts.scheme == "https" or (parts.scheme == "http" and loopback)
    if odd or not host or not scheme or port == 0 or not url.isprintable() or " " in url:
        raise UsageError(
            "kds-service",
            f"{url!r} is no service that can be asked",
            hint="https://HOST[:PORT][/PATH]; plain http only for this machine, 127.0.0.1 or ::1",
        )
    return url.rstrip("/"), loopback


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _seconds(after: str) -> float:
    """What a Retry-After field asks for: seconds, or a date."""
    after = after.strip()
    if after.isascii() and after.isdigit() and len(after) <= 9:
        return float(after)
    try:
        until = email.utils.parsedate_to_datetime(after)
    except (ValueError, OverflowError):
        return _DEFAULT_PAUSE_S
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(1.0, (until - datetime.now(UTC)).total_seconds())

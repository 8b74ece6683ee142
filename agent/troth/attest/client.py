# SPDX-License-Identifier: Apache-2.0
"""The agent asked over its socket: one HTTP/1.1 request, one bounded answer.

Serves ``troth report --socket``. The standard library's HTTP client would bring
its mail parser into the image; what the agent speaks is a few lines. The answer
is compared with what was asked before it is returned. Must never wait or read
without end, whoever listens on the socket.

Source: RFC 9112; docs/formats.md, "A report's answer".
"""

from __future__ import annotations

import socket
import time

from troth.abi import snp_report, tpm_attest
from troth.abi.hashes import sha512
from troth.documents import binding, evidence, report_answer, strict
from troth.errors import FormatError, HostError, ProviderError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.evidence import Evidence
    from troth.documents.report_answer import ReportAnswer

ATTEST_SOCKET = "/run/troth/attest.sock"
REPORT_PATH = "/v1/report"
EVIDENCE_PATH = "/v1/evidence"
EXTEND_PATH = "/v1/extend"
TIMEOUT_S = 90.0
"""Longer than the kernel's own minute, after which its answer would come."""

_HEAD_BYTES = 16384
_CHUNK_BYTES = 65536
_TRIES = 4
_BUSY = 429
_MAX_WAIT_S = 30


class AgentClient:
    """The agent behind the socket ``path``; ``timeout_s`` bounds each call as a whole."""

    def __init__(self, path: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.path = path
        self._timeout_s = timeout_s

    def report(self, nonce: bytes, *, user_data: bytes = b"") -> ReportAnswer:
        """A report bound to ``nonce`` and ``user_data``.

        An agent that is busy is asked again when it says so, three times. Raises
        ``UsageError`` ``nonce-length``; ``HostError`` ``no-agent``;
        ``ProviderError``: ``agent-busy``, ``agent-refused``, ``agent-timeout``,
        ``provider-mismatch``; ``FormatError``: ``agent-answer``, ``json-*``,
        ``report-answer``, ``snp-report-*``.
        """
        wanted = binding.report_binding(nonce, user_data)
        asked = {"nonce": nonce.hex()} | ({"user_data": user_data.hex()} if user_data else {})
        answer = report_answer.parse(
            self._post(REPORT_PATH, strict.canonical(asked)), where=self.path
        )
        found = snp_report.parse(answer.report, where=self.path)
        carried = found.report_data
        if answer.service:
            # Only a paravisor's guest needs to read claims.
            from troth.documents import hcl_claims

            carried = hcl_claims.bound_user_data(answer.service, answer.report, where=self.path)
        if (carried, answer.nonce, answer.user_data) != (wanted, nonce, user_data):
            raise ProviderError(
                "provider-mismatch", "the agent's report is bound to something else",
                where=self.path,
            )  # fmt: skip
        return answer

    def evidence(
        self, nonce: bytes, *, user_data: bytes = b"", channel_sha256: bytes = b""
    ) -> Evidence:
        """Evidence for ``nonce``, whose report binds what came; judged by nobody yet.

        ``channel_sha256``: of a channel's public key, 32 bytes or empty. Raises as
        ``report`` does, and ``FormatError`` of ``documents.evidence``.
        """
        binding.check_nonce(nonce)
        asked = {"nonce": nonce.hex()}
        if user_data:
            asked["user_data"] = user_data.hex()
        if channel_sha256:
            asked["channel_key_sha256"] = channel_sha256.hex()
        body = self._ask(
            "POST", EVIDENCE_PATH, strict.canonical(asked), limit_bytes=evidence.LIMIT_BYTES
        )
        found = evidence.parse(body, where=self.path)
        name = b"" if found.tpm is None else tpm_attest.name(found.tpm.ak_public, where=self.path)
        wanted = (nonce, user_data, channel_sha256)
        same = (found.nonce, found.user_data, found.channel_sha256) == wanted
        if not same or not self._carries(found, evidence.binding_of(found, ak_name=name)):
            raise ProviderError(
                "provider-mismatch", "the agent's evidence is bound to something else",
                where=self.path,
            )  # fmt: skip
        return found

    def _carries(self, found: Evidence, bound: bytes) -> bool:
        """Whether ``bound`` stands where the platform kind puts it; SECURITY S3."""
        report_data = snp_report.parse(found.report, where=self.path).report_data
        if found.platform_kind not in evidence.SERVICE_KINDS:
            return report_data == bound
        if found.service is None:
            return False
        if found.platform_kind == "svsm":
            return report_data == sha512(bound + found.service.data).digest()
        # Only a paravisor's guest needs to read claims.
        from troth.documents import hcl_claims

        data = hcl_claims.bound_user_data(found.service.data, found.report, where=self.path)
        return data == bound

    def get(self, target: str) -> strict.Reader:
        """The JSON object at ``target``. Raises as ``report`` does."""
        return self._read(self._ask("GET", target, b""))

    def extend(self, event: str, data: bytes) -> tuple[int, str]:
        """Add an event of the caller's own: its number, and the software register after it, hex.

        Raises as ``report`` does; who may not is told ``agent-refused``.
        """
        asked = strict.canonical({"event": event, "data": data.hex()})
        found = self._read(self._post(EXTEND_PATH, asked))
        return found.integer("recnum"), found.digest("software_register", size_bytes=48)

    def _read(self, body: bytes) -> strict.Reader:
        return strict.Reader(
            strict.parse(body, where=self.path, limit_bytes=report_answer.LIMIT_BYTES),
            where=self.path,
        )

    def _post(self, target: str, body: bytes) -> bytes:
        return self._ask("POST", target, body)

    def _ask(
        self, method: str, target: str, body: bytes, *, limit_bytes: int = report_answer.LIMIT_BYTES
    ) -> bytes:
        deadline_s = time.monotonic() + self._timeout_s
        for _ in range(_TRIES):
            status, headers, answer = self._exchange(
                method, target, body, deadline_s, limit_bytes=limit_bytes
            )
            if status == 200:
                return answer
            if status != _BUSY:
                raise self._refused(status, answer)
            wait_s = _seconds(headers.get("retry-after", ""))
            if time.monotonic() + wait_s > deadline_s:
                break
            time.sleep(wait_s)
        raise ProviderError(
            "agent-busy", "the agent has too much to do", where=self.path, hint="ask again later"
        )

    def _exchange(
        self, method: str, target: str, body: bytes, deadline_s: float, *, limit_bytes: int
    ) -> tuple[int, dict[str, str], bytes]:
        head = f"{method} {target} HTTP/1.1\r\nHost: troth\r\nConnection: close\r\n"
        if method == "POST":
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head += "\r\n"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            try:
                self._patience(peer, deadline_s)
                peer.connect(self.path)
            except TimeoutError:
                raise self._late() from None
            except PermissionError as error:
                raise HostError(
                    "no-agent",
                    f"not for this user: {error.strerror}",
                    where=self.path,
                    hint="be in the group of [attest] group of the image's manifest",
                ) from None
            except (OSError, ValueError) as error:
                said = error.strerror if isinstance(error, OSError) else None
                raise HostError(
                    "no-agent",
                    f"nobody answers there: {said or error}",
                    where=self.path,
                    hint="an agent is in guests only, at /run/troth/attest.sock; in a guest look "
                    "whether it runs: systemctl status troth-agent, else dmesg",
                ) from None
            try:
                peer.sendall(head.encode() + body)
                return self._receive(peer, deadline_s, limit_bytes)
            except TimeoutError:
                raise self._late() from None
            except OSError as error:
                raise self._odd(f"it hung up: {error.strerror}") from None

    def _receive(
        self, peer: socket.socket, deadline_s: float, limit_bytes: int = report_answer.LIMIT_BYTES
    ) -> tuple[int, dict[str, str], bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            if len(data) > _HEAD_BYTES:
                raise self._odd("its head has no end")
            data += self._some(peer, deadline_s, "within its head")
        head, _, body = data.partition(b"\r\n\r\n")
        status, headers = self._head(head)
        length = headers.get("content-length", "")
        if not length.isdecimal() or not length.isascii() or len(length) > 10:
            raise self._odd("it says no length")
        if int(length) > limit_bytes:
            raise self._odd(f"it has {length} bytes")
        parts = [body]
        missing = int(length) - len(body)
        while missing > 0:
            parts.append(self._some(peer, deadline_s, "before its end"))
            missing -= len(parts[-1])
        if missing < 0:
            raise self._odd("it is longer than it says")
        return status, headers, b"".join(parts)

    def _some(self, peer: socket.socket, deadline_s: float, where: str) -> bytes:
        self._patience(peer, deadline_s)
        found = peer.recv(_CHUNK_BYTES)
        if not found:
            raise self._odd(f"it ends {where}")
        return found

    def _head(self, head: bytes) -> tuple[int, dict[str, str]]:
        try:
            first, *lines = head.decode("ascii").split("\r\n")
        except UnicodeDecodeError:
            raise self._odd("its head is not ASCII") from None
        version, _, rest = first.partition(" ")
        code = rest[:3]
        if not version.startswith("HTTP/1.") or not code.isdecimal() or len(code) != 3:
            raise self._odd("it is not HTTP/1.1")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or name.lower() in headers:
                raise self._odd("a line of its head is wrong, or there twice")
            headers[name.lower()] = value.strip()
        if "transfer-encoding" in headers:
            raise self._odd("it comes in a transfer coding")
        return int(code), headers

    def _refused(self, status: int, body: bytes) -> ProviderError:
        """The agent's own words, where they are any."""
        words = ""
        try:
            reader = strict.Reader(strict.parse(body, limit_bytes=_HEAD_BYTES))
            words = f" [{reader.text('code')[:64]}]: {reader.text('message')[:1024]}"
        except FormatError:
            pass
        return ProviderError(
            "agent-refused", f"the agent answered {status}{_shown(words)}", where=self.path
        )

    def _patience(self, peer: socket.socket, deadline_s: float) -> None:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise self._late()
        peer.settimeout(left_s)

    def _late(self) -> ProviderError:
        return ProviderError(
            "agent-timeout", f"no answer within {self._timeout_s:g} s", where=self.path
        )

    def _odd(self, message: str) -> FormatError:
        return FormatError("agent-answer", f"the agent's answer: {message}", where=self.path)


def _seconds(text: str) -> int:
    """The Retry-After ``text``; one second where it is no number of seconds."""
    if not text.isascii() or not text.isdecimal() or len(text) > 4:
        return 1
    return min(max(1, int(text)), _MAX_WAIT_S)


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)

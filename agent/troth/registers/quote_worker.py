# SPDX-License-Identifier: Apache-2.0
"""A process that lives for one quote: the library's memory goes away with it.

Serves the agent's evidence. ``ask`` runs it from the agent's side and bounds
its time; ``main`` is the process itself, which says one line of JSON on standard
output. Must never outlive the one who asked, nor be believed without the
comparisons that ``registers.tpm`` makes.
"""

from __future__ import annotations

import binascii
import os
import select
import sys
import time

from troth.documents import strict
from troth.errors import FormatError, HostError, ProviderError, TrothError
from troth.linux import signals
from troth.linux import tpm as tpm_device
from troth.registers import tpm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.registers.tpm import Quoted

TIMEOUT_S = 30.0
"""Hardware takes a second for a key and a quote; a TPM under another's load some more."""
LIMIT_BYTES = 64 << 10

PROGRAM = (
    sys.executable,
    "-ISB",
    "-c",
    "import sys; from troth.registers import quote_worker; quote_worker.main(sys.argv[1:])",
)
"""The words that start the process, before its own."""

_ENVIRONMENT = {"TSS2_LOG": "all+NONE"}
_SIGPIPE = 13


def quoter(vtpm_kind: str) -> Callable[[bytes], Quoted]:
    """What quotes this guest's only TPM for a nonce; ``vtpm_kind``: of the policy.

    What it returns raises as ``ask`` does, and ``HostError`` ``register-tpm``
    where there is none, or a second one came.
    """
    handle = tpm.PARAVISOR_AK if vtpm_kind == "paravisor" else None

    def made(nonce: bytes) -> Quoted:
        names = tpm_device.present()
        if len(names) != 1:
            raise HostError("register-tpm", f"{len(names)} TPMs, where the boot used one")
        node = f"/dev/tpmrm{names[0].removeprefix('tpm')}"
        return ask(f"device:{node}", nonce, handle=handle)

    return made


def ask(
    tcti: str,
    nonce: bytes,
    *,
    handle: int | None = None,
    timeout_s: float = TIMEOUT_S,
    program: tuple[str, ...] = PROGRAM,
) -> Quoted:
    """``registers.tpm.quote`` in a process of its own, at most ``timeout_s`` long.

    Raises as that does, and ``ProviderError``: ``quote-worker`` where the process
    said nothing that can be used, ``quote-timeout``.
    """
    words = (*program, tcti, nonce.hex(), "" if handle is None else str(handle))
    said, says = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            words[0], words, _ENVIRONMENT,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, says, 1),
            ],
            # The agent may have blocked or caught what ends this one.
            setsigmask=[],
            setsigdef=[signals.TERM, signals.INT, signals.HUP, _SIGPIPE],
        )  # fmt: skip
    except OSError as error:
        os.close(said)
        raise ProviderError("quote-worker", f"cannot be started: {error.strerror}") from None
    finally:
        os.close(says)
    try:
        data = _read(said, time.monotonic() + timeout_s)
    finally:
        os.close(said)
        # It has said all, or is late: either way nobody needs it any more.
        os.kill(pid, signals.KILL)
        os.waitpid(pid, 0)
    return _parse(data)


def main(words: list[str]) -> None:
    """Quote as ``words`` say (TCTI, nonce in hex, handle or ""), and print what came."""
    tcti, nonce, handle = words
    tree: dict[str, object]
    try:
        found = tpm.quote(tcti, bytes.fromhex(nonce), handle=int(handle) if handle else None)
        tree = {
            "ak_public": _text(found.ak_public),
            "attest": _text(found.attest),
            "signature": _text(found.signature),
            "pcrs": [
                {"bank": bank, "index": index, "value": value.hex()}
                for (bank, index), value in found.pcrs.items()
            ],
        }
    except TrothError as error:
        kind = "host" if isinstance(error, HostError) else "provider"
        tree = {"kind": kind, "code": error.code, "message": str(error), "hint": error.hint}
    sys.stdout.buffer.write(strict.canonical(tree) + b"\n")
    sys.stdout.buffer.flush()


def _read(fd: int, deadline_s: float) -> bytes:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    found = b""
    while not found.endswith(b"\n"):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not poll.poll(int(left_s * 1000) + 1):
            raise ProviderError(
                "quote-timeout", "the TPM gave no quote in time", hint="ask again later"
            )
        part = os.read(fd, LIMIT_BYTES)
        found += part
        if not part or len(found) > LIMIT_BYTES:
            break
    return found


def _parse(data: bytes) -> Quoted:
    try:
        reader = strict.Reader(strict.parse(data, limit_bytes=LIMIT_BYTES))
        if reader.has("code"):
            kind = HostError if reader.text("kind") == "host" else ProviderError
            raise kind(reader.text("code"), reader.text("message"), hint=reader.text("hint"))
        return tpm.Quoted(
            _bytes(reader, "ak_public"),
            _bytes(reader, "attest"),
            _bytes(reader, "signature"),
            dict(reader.each("pcrs", _pcr)),
        )
    except (FormatError, ValueError) as error:
        raise ProviderError(
            "quote-worker", f"the process that asks the TPM ended without a quote: {error}"
        ) from None


def _pcr(reader: strict.Reader) -> tuple[tuple[str, int], bytes]:
    key = reader.text("bank", allowed=tpm.BANKS), reader.integer("index", maximum=23)
    return key, bytes.fromhex(reader.text("value"))


def _bytes(reader: strict.Reader, key: str) -> bytes:
    return binascii.a2b_base64(reader.text(key), strict_mode=True)


def _text(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()

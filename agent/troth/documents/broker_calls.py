# SPDX-License-Identifier: Apache-2.0
"""What a guest asks of troth's own broker besides the key broker protocol.

Serves ``boot.key_sources`` and ``keybroker``: a volume's committed generation,
the end of a boot, and the calls of an identity in SPIFFE's form. Must never be
sent to a broker that the policy does not call one of troth.

Format: docs/formats.md, "Calls of the broker".
"""

from __future__ import annotations

from troth.documents import base64_text, kbs, strict, volume_key
from troth.errors import FormatError
from troth.record import record

COMMIT_PATH = f"{kbs.PREFIX}/troth/commit/"
"""The name of the resource follows."""
BOOT_FINISHED_PATH = f"{kbs.PREFIX}/troth/boot-finished"
ISSUE_PATH = "/spiffe/v1/issue"
KEY_PATH = "/spiffe/v1/key"
SPIFFE_COMMIT_PATH = "/spiffe/v1/commit"

MAX_BODY_BYTES = 64 << 10
MAX_CSR_BYTES = 8 << 10
MAX_CERTIFICATE_BYTES = 16 << 10
MAX_CERTIFICATES = 4
NOTHING = b"{}"


@record
class Commit:
    """``generation``: from 1; ``digest``: SHA-256 of the new record, in hex; ``volume``: UUID,
    empty where the URL names the volume.
    """  # noqa: D205 - the fields are the summary

    generation: int
    digest: str
    volume: str = ""


def print_commit(commit: Commit) -> bytes:
    """The body of a commit, in either of its two calls."""
    tree: dict[str, object] = {"generation": commit.generation, "record": commit.digest}
    if commit.volume:
        tree["disk_uuid"] = commit.volume
    return strict.canonical(tree)


def parse_commit(data: bytes, *, named: bool, where: str = "") -> Commit:
    """The commit in ``data``; ``named``: whether it names its volume itself.

    Raises ``FormatError``: ``broker-call``, ``json-*``.
    """
    own = _reader(data, where)
    generation = own.integer("generation", minimum=1)
    digest = own.digest("record", size_bytes=32)
    volume = _volume(own, where) if named else ""
    own.close()
    return Commit(generation, digest, volume)


def parse_nothing(data: bytes, *, where: str = "") -> None:
    """Whether ``data`` is an empty object. ``FormatError``: ``json-*``."""
    _reader(data, where).close()


def print_issue(csr: bytes) -> bytes:
    """The request for an identity; ``csr``: PKCS #10 in DER."""
    return strict.canonical({"csr": base64_text.standard(csr)})


def parse_issue(data: bytes, *, where: str = "") -> bytes:
    """The DER text of the request in ``data``. ``FormatError``: ``broker-call``, ``json-*``."""
    own = _reader(data, where)
    csr = _bytes(own.text("csr"), "csr", MAX_CSR_BYTES, where)
    own.close()
    return csr


def print_svid(chain: tuple[bytes, ...]) -> bytes:
    """The answer with an identity; ``chain``: DER, the guest's own first."""
    return strict.canonical({"svid": [base64_text.standard(item) for item in chain]})


def parse_svid(data: bytes, *, where: str = "") -> tuple[bytes, ...]:
    """The certificates in ``data``. ``FormatError``: ``broker-call``, ``json-*``."""
    own = _reader(data, where)
    texts = own.texts("svid")
    own.close()
    if not 1 <= len(texts) <= MAX_CERTIFICATES:
        raise _wrong(f"{len(texts)} certificates came", where)
    return tuple(_bytes(text, "svid", MAX_CERTIFICATE_BYTES, where) for text in texts)


def print_key_request(volume: str) -> bytes:
    """The request for the key of ``volume``, a UUID."""
    return strict.canonical({"disk_uuid": volume})


def parse_key_request(data: bytes, *, where: str = "") -> str:
    """The UUID in ``data``. ``FormatError``: ``broker-call``, ``json-*``."""
    own = _reader(data, where)
    volume = _volume(own, where)
    own.close()
    return volume


def _volume(own: strict.Reader, where: str) -> str:
    volume = own.text("disk_uuid")
    if not volume_key.is_volume_id(volume):
        raise _wrong("disk_uuid is no UUID in lower case", where)
    return volume


def _bytes(text: str, name: str, most: int, where: str) -> bytes:
    found = base64_text.from_standard(text)
    if not found or len(found) > most:
        raise _wrong(f"{name} is not 1 to {most} bytes of base64", where)
    return found


def _reader(data: bytes, where: str) -> strict.Reader:
    tree = strict.parse(data, where=where, limit_bytes=MAX_BODY_BYTES)
    return strict.Reader(tree, where=where)


def _wrong(message: str, where: str) -> FormatError:
    return FormatError("broker-call", message, where=where)

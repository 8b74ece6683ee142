# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: requests to the key broker, from bytes of a connection to its answers.

The broker's parts behind it are real, but for the judge of evidence, who believes
everything, so that what follows good evidence is reached too.
"""

import atexit
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import made_broker as made
from troth.attest import http
from troth.documents import kbs
from troth.errors import FormatError
from troth.keybroker.routes import Peer

_FOLDER = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
_STORE = made.kept(_FOLDER / "db")
_COOKIE = "5a" * 16
_PEER = Peer("192.0.2.1")
_POINT = made.Guest(None).jwk


def _request(method: str, path: str, tree: object) -> bytes:
    body = json.dumps(tree).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: a\r\ncookie: {kbs.COOKIE}={_COOKIE}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _fixed(size: int) -> bytes:
    return b"\x5a" * size


_BROKER = made.broker_of(_STORE, random=_fixed, trust_domain="a.example")
_NONCE = "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo="
_AUTH = _request("POST", kbs.AUTH_PATH, {"version": "0.4.0", "tee": "snp", "extra-params": {}})
_ATTEST = _request(
    "POST",
    kbs.ATTEST_PATH,
    {
        "init-data": {"format": "toml", "body": ""},
        "runtime-data": {"nonce": _NONCE, "tee-pubkey": _POINT},
        "tee-evidence": {"primary_evidence": {}, "additional_evidence": ""},
    },
)
_COMMIT = _request(
    "POST", f"/kbs/v0/troth/commit/{made.PATH}", {"generation": 1, "record": "11" * 32}
)

SEEDS = [
    _AUTH,
    _AUTH + _ATTEST + _request("GET", f"/kbs/v0/resource/{made.PATH}", {}),
    _AUTH + _ATTEST + _COMMIT + _request("POST", "/kbs/v0/troth/boot-finished", {}),
    _AUTH + _ATTEST + _request("POST", "/spiffe/v1/issue", {"csr": "MIIB"}),
    _request("POST", "/spiffe/v1/key", {"disk_uuid": made.UUID}),
    b"GET /kbs/v0/resource/a/b/c HTTP/1.1\r\nhost: a\r\nauthorization: Bearer a.b.c\r\n\r\n",
]

_STATUS = {200, 401, 404, 503}


def fuzz(data: bytes) -> None:
    parser = http.Parser(kbs.MAX_BODY_BYTES)
    parser.feed(data[: parser.room])
    try:
        while (request := parser.next()) is not None:
            response = _BROKER.answer(request, _PEER)
            if response.status not in _STATUS:
                raise AssertionError(f"{request.path} was answered {response.status}")
            tree = json.loads(response.body)
            if response.status != 200 and set(tree) != {"type", "detail"}:
                raise AssertionError("an error in another form")
            http.head(response, keep=request.keep)
    except FormatError as error:
        if error.code not in http.STATUS:
            raise AssertionError(f"{error.code} has no status") from None

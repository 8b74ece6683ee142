#!/usr/bin/python3 -ISB
# SPDX-License-Identifier: Apache-2.0
"""The example's workload with proof: what `service.py` says, over TLS, and evidence for its key.

The key is made at each start, is in this process alone, and its digest is in the
evidence: who has verified that, and finds the same key at the end of a TLS
connection, speaks with this guest. Besides `GET /` it answers
`GET /evidence?nonce=HEX` and, for a report that binds the nonce alone,
`GET /report?nonce=HEX`. Ports: 8443 with TLS, 8080 without.
"""

import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer

sys.path.insert(0, "/opt/app")
import service

AGENT = "/run/troth/attest.sock"
TLS_PORT = 8443
NONCE = re.compile(r"/(evidence|report)\?nonce=((?:[0-9a-f]{2}){16,64})")


class Agent(http.client.HTTPConnection):
    """A connection to the attestation agent."""

    def __init__(self):
        super().__init__("localhost", timeout=90)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(AGENT)


def attest(what, question):
    """(status, body) of the agent's answer to POST /v1/`what`."""
    agent = Agent()
    try:
        agent.request("POST", f"/v1/{what}", json.dumps(question).encode())
        answer = agent.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 503, json.dumps({"error": f"the agent: {error}"}).encode()
    finally:
        agent.close()


class Handler(service.Handler):
    timeout = 100
    key_sha256 = ""

    def do_GET(self):
        asked = NONCE.fullmatch(self.path)
        if not asked:
            super().do_GET()
            return
        what, nonce = asked.groups()
        question = {"nonce": nonce}
        if what == "evidence":
            question["channel_key_sha256"] = self.key_sha256
        self.answer(*attest(what, question))


def tls_server(state):
    """A server with a new key, and the SHA-256 of that key in the form certificates have it."""
    key, certificate = f"{state}/key.pem", f"{state}/certificate.pem"
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc",
        "-days", "3650", "-subj", "/CN=service", "-keyout", key, "-out", certificate,
    )  # fmt: skip
    public = openssl("pkey", "-in", key, "-pubout", "-outform", "DER")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    os.unlink(key)  # it was in memory only; from here on it is in this process only
    server = ThreadingHTTPServer(("", TLS_PORT), Handler)
    # The handshake happens in each connection's thread: a slow caller holds up nobody.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    return server, hashlib.sha256(public).hexdigest()


def openssl(*words):
    return subprocess.run(["openssl", *words], check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    server, Handler.key_sha256 = tls_server(os.environ["RUNTIME_DIRECTORY"])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("", 8080), Handler).serve_forever()

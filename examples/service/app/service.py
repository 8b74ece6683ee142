#!/usr/bin/python3 -ISB
# SPDX-License-Identifier: Apache-2.0
"""The example's workload: says on port 8080 what it runs from.

`GET /` answers JSON: process, file systems under the root and the model, and
the model's digest, computed at each request from the verity volume.
"""

import hashlib
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = sys.argv[1] if len(sys.argv) > 1 else "/srv/models/model.bin"
#: Made by systemd for this service; the file in it tells `check` that somebody was answered.
STATE = os.environ.get("RUNTIME_DIRECTORY")


def mount_of(path):
    """(source, mount point, type, options) of the mount that holds `path`."""
    best = None
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            source, point, kind, options = line.split()[:4]
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and (best is None or len(point) >= len(best[1])):
                best = (source, point, kind, options)
    return dict(zip(("source", "mount", "type", "options"), best or (), strict=False))


def facts():
    with open(MODEL, "rb") as model:
        digest = hashlib.file_digest(model, "sha256").hexdigest()
    return {
        "pid": os.getpid(),
        "uid": os.getuid(),
        "init": os.readlink("/proc/1/exe") if os.getuid() == 0 else "",
        "root": mount_of("/"),
        "model": {"path": MODEL, "sha256": digest, "mount": mount_of(MODEL)},
    }


class Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self):
        status, body = (200, facts()) if self.path == "/" else (404, {"error": "only / is here"})
        self.answer(status, json.dumps(body, indent=1).encode() + b"\n")
        if STATE and status == 200:
            open(f"{STATE}/answered", "w", encoding="ascii").close()

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format, *args):  # the console is the host's: say nothing per request
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("", 8080), Handler).serve_forever()

# SPDX-License-Identifier: Apache-2.0
"""What the agent's sockets answer, in the words of OpenAPI.

Served at ``/v1/openapi.json`` for programs that make clients of it. A test holds
it against the agent's routes, both ways. Must never describe what is not there.

Source: OpenAPI Specification 3.1.0.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Tree = dict[str, object]

_HEX = "^([0-9a-fA-F]{2})*$"
_NONCE: Tree = {
    "type": "string", "pattern": _HEX, "minLength": 32, "maxLength": 128,
    "description": "16 to 64 bytes in hex, chosen by whoever verifies, never twice the same",
}  # fmt: skip
_BASE64: Tree = {"type": "string", "contentEncoding": "base64"}
_TEXT: Tree = {"type": "string"}
_COUNT: Tree = {"type": "integer", "minimum": 0}


def _object(needed: tuple[str, ...] = (), **properties: Tree) -> Tree:
    tree: Tree = {"type": "object", "properties": properties, "additionalProperties": False}
    if needed:
        tree["required"] = list(needed)
    return tree


def _content(words: str, schema: Tree, *, media: str = "application/json") -> Tree:
    return {"description": words, "content": {media: {"schema": schema}}}


def _reference(name: str) -> Tree:
    return {"$ref": f"#/components/{name}"}


def _operation(
    words: str,
    *,
    good: Tree,
    body: Tree | None = None,
    bad: tuple[int, ...] = (),
    status: int = 200,
) -> Tree:
    answers: Tree = {str(status): good}
    answers |= {
        str(code): _reference("responses/later" if code == 429 else "responses/refused")
        for code in bad
    }
    answers["default"] = _reference("responses/refused")
    tree: Tree = {"summary": words, "responses": answers}
    if body is not None:
        tree["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    return tree


_ERROR = _object(("code", "message"), code=_TEXT, message=_TEXT, hint=_TEXT)
_LATER: Tree = {
    **_content(
        "Too many ask at once. For reports and evidence a place is kept for this very request: "
        "send it again after Retry-After seconds with the same body, nonce and all. Another nonce "
        "is a new request, without that place.",
        _reference("schemas/error"),
    ),
    "headers": {"Retry-After": {"schema": _COUNT, "description": "seconds, whole"}},
}
_REPORT = _object(
    ("schema", "provider", "report", "certificates", "service", "binding"),
    schema={"const": "troth-report-answer-v1"},
    provider=_TEXT,
    report=_BASE64,
    certificates=_BASE64,
    service=_BASE64,
    binding=_object(
        ("rule", "nonce", "user_data"),
        rule={"const": "troth-report-v1"},
        nonce=_NONCE,
        user_data=_TEXT,
    ),
)
_EVIDENCE = _object(
    ("schema", "platform_kind", "nonce", "user_data", "channel_key_sha256", "caller", "report",
     "certificates", "event_log", "log_records", "registers", "tpm", "service"),
    schema={"const": "troth-evidence-v1"},
    platform_kind={"enum": ["direct", "svsm", "azure-paravisor", "simulated"]},
    nonce=_NONCE,
    user_data=_TEXT,
    channel_key_sha256=_TEXT,
    caller=_TEXT,
    report=_BASE64,
    certificates=_BASE64,
    event_log=_BASE64,
    log_records=_COUNT,
    registers={"type": "array", "items": _object(("name", "value"), name=_TEXT, value=_TEXT)},
    tpm={"type": ["object", "null"]},
    service={"type": ["object", "null"]},
)  # fmt: skip
_RAW = _object(
    ("schema", "provider", "report", "certificates", "report_data"),
    schema={"const": "troth-raw-report-v1"},
    provider=_TEXT,
    report=_BASE64,
    certificates=_BASE64,
    report_data=_TEXT,
)
_REGISTER = _object(
    ("bank", "index", "replayed", "observed"),
    bank=_TEXT,
    index={"type": "integer", "minimum": 0, "maximum": 23},
    replayed=_TEXT,
    observed={"type": "string", "description": "empty where the TPM was not read"},
)
_MEASUREMENTS = _object(
    ("events", "software_register", "registers", "tpm", "log"),
    events=_COUNT,
    software_register=_TEXT,
    registers={"type": "array", "items": _REGISTER},
    tpm={"type": "string", "description": "why the TPM was not read, or empty"},
    log={"enum": ["whole", "broken"]},
)
_CALLER = _object(
    ("uid", "gid", "pid", "unit", "rights"),
    uid=_COUNT,
    gid=_COUNT,
    pid=_COUNT,
    unit={"type": "string", "description": "of the system's systemd, empty for none"},
    rights={"type": "array", "items": {"enum": ["extend", "raw", "control"]}},
)
_INFO = _object(
    ("version", "image", "svn", "policy_sha256", "snp", "vtpm", "provider", "raw_report_data",
     "log", "caller"),
    version=_TEXT,
    image=_TEXT,
    svn=_COUNT,
    policy_sha256=_TEXT,
    snp={"enum": ["required", "simulated", "none"]},
    vtpm={"enum": ["required", "optional", "none"]},
    provider={"type": "string", "description": "empty before the first report"},
    raw_report_data={"enum": ["never", "root", "group"]},
    log={"enum": ["whole", "broken", "none"]},
    caller=_CALLER,
)  # fmt: skip
_HEALTH = _object(
    ("status", "reasons"),
    status={"enum": ["ok", "degraded"]},
    reasons={"type": "array", "items": _TEXT},
)
_DONE = _object(("status",), status=_TEXT)

DOCUMENT: Tree = {
    "openapi": "3.1.0",
    "info": {
        "title": "troth agent",
        "version": "1",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        "description": "HTTP/1.1 over /run/troth/attest.sock, and /run/troth/control.sock for "
        "root. Bodies have a Content-Length of at most 65536.",
    },
    "servers": [{"url": "http://localhost", "description": "any Host will do"}],
    "paths": {
        "/healthz": {
            "get": _operation(
                "Whether reports can be expected",
                good=_content("they can", _HEALTH),
                bad=(503,),
            )
        },
        "/metrics": {
            "get": _operation(
                "Numbers for Prometheus",
                good=_content("text format 0.0.4", _TEXT, media="text/plain"),
            )
        },
        "/v1/info": {
            "get": _operation(
                "The image, its policy, and what the caller may do", good=_content("this", _INFO)
            )
        },
        "/v1/openapi.json": {
            "get": _operation("This document", good=_content("this", {"type": "object"}))
        },
        "/v1/measurements": {
            "get": _operation(
                "The log replayed and held against the TPM",
                good=_content("their values", _MEASUREMENTS),
                bad=(429, 503),
            )
        },
        "/v1/event-log": {
            "get": _operation(
                "The event log, one record a line",
                good=_content("the log", _TEXT, media="application/x-ndjson"),
                bad=(503,),
            )
        },
        "/v1/report": {
            "post": _operation(
                "A report bound to a nonce",
                body=_object(("nonce",), nonce=_NONCE, user_data={
                    "type": "string", "pattern": _HEX, "maxLength": 8192,
                }),
                good=_content("the report and the host's certificates", _REPORT),
                bad=(400, 429, 502, 503, 504),
            )
        },
        "/v1/raw-report": {
            "post": _operation(
                "A report with REPORT_DATA of the caller's choice, where the policy allows it",
                body=_object(
                    ("report_data",),
                    report_data={"type": "string", "pattern": _HEX, "minLength": 128,
                                 "maxLength": 128},
                    vmpl={"type": "integer", "minimum": 0, "maximum": 3},
                    key={"enum": ["auto", "vcek", "vlek"]},
                ),
                good=_content("the report and the host's certificates", _RAW),
                bad=(400, 403, 429, 502, 503, 504),
            )
        },
        "/v1/evidence": {
            "post": _operation(
                "Log, registers, a quote where the image asks for one, and the report that binds "
                "them to the nonce and the caller",
                body=_object(
                    ("nonce",),
                    nonce=_NONCE,
                    user_data={"type": "string", "pattern": _HEX, "maxLength": 8192},
                    channel_key_sha256={"type": "string", "pattern": "^([0-9a-fA-F]{64})?$"},
                ),
                good=_content("evidence.json, as docs/formats.md describes it", _EVIDENCE),
                bad=(400, 429, 502, 503, 504),
            )
        },
        "/v1/extend": {
            "post": _operation(
                "Add an event, where the policy allows the caller to",
                body=_object(
                    ("event", "data"),
                    event={"type": "string", "pattern": "^[a-z0-9][a-z0-9.-]{0,63}$"},
                    data={"type": "string", "pattern": _HEX, "maxLength": 2048},
                ),
                good=_content(
                    "the record",
                    _object(
                        ("recnum", "software_register"), recnum=_COUNT, software_register=_TEXT
                    ),
                ),
                bad=(400, 403, 429, 503),
            )
        },
        "/v1/reload": {
            "post": _operation(
                "control.sock: look for the provider and read the log anew",
                good=_content("done", _DONE),
                bad=(403,),
            )
        },
        "/v1/shutdown": {
            "post": _operation(
                "control.sock: end the agent",
                good=_content("it will", _DONE),
                bad=(403,),
                status=202,
            )
        },
    },
    "components": {
        "schemas": {"error": _ERROR},
        "responses": {
            "refused": _content("the reason, with a stable code", _reference("schemas/error")),
            "later": _LATER,
        },
    },
}  # fmt: skip

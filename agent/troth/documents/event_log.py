# SPDX-License-Identifier: Apache-2.0
"""/run/troth/event-log.jsonl: one TCG CEL record in JSON a line.

Values and printing, cheap enough for PID 1; reading is ``event_log_json``.
The digest of each bank is over the content bytes alone. Content that is
printable ASCII stands in the record as text, anything else as hex, so that a
reader can always recompute the digest (TCG Canonical Event Log Format 1.0,
section 5; ``docs/formats.md``, event log).
"""

from __future__ import annotations

from troth.record import record

PATH = "/run/troth/event-log.jsonl"
CONTENT_TYPE = "troth"

#: Event type -> PCR (DESIGN, the PCR table). ``cap`` is extended into each of its PCRs.
POLICY, CMDLINE, VERITY, PHASE = "policy", "cmdline", "verity", "phase"
WORKLOAD, CAP, REFUSED, TPM_ABSENT = "workload", "cap", "refused", "tpm-absent"
INSTANCE = "instance"
#: Who released which key; and the key itself, as a keyed digest that nobody else can make.
KEY_RELEASE, VOLUME_KEY = "key-release", "volume-key"
PCR_OF = {
    POLICY: 14,
    CMDLINE: 14,
    VERITY: 15,
    PHASE: 11,
    INSTANCE: 14,
    KEY_RELEASE: 15,
    VOLUME_KEY: 15,
    WORKLOAD: 14,
    REFUSED: 14,
    TPM_ABSENT: 14,
}
CAPPED_PCRS = (14, 15)
#: After the boot, by the agent alone: into a PCR that anyone may reset, so they prove little.
APPLICATION, AGENT_RESTARTED, RUNTIME_PCR = "application", "agent-restarted", 23
ENTER_INITRD, LEAVE_INITRD, CAP_CONTENT = b"enter-initrd", b"leave-initrd", b"troth:cap"


@record
class Event:
    """One record. ``digests``: (bank, digest bytes), in the order of the banks."""

    number: int
    pcr: int
    kind: str
    content: bytes
    digests: tuple[tuple[str, bytes], ...]


def verity_content(name: str, root_hash: str) -> bytes:
    """Content of a ``verity`` event, the text systemd-veritysetup uses too."""
    return f"verity:{name}:{root_hash}:".encode()


def volume_key_content(map_name: str, uuid: str) -> bytes:
    """Content of a ``volume-key`` event, the text that systemd-cryptsetup measures by."""
    return f"cryptsetup:{map_name}:{uuid}".encode()


def is_text(content: bytes) -> bool:
    """Whether ``content`` stands in the record as text: printable ASCII only."""
    return content.isascii() and content.decode("ascii").isprintable()


def quote(text: str) -> str:
    """Printable ASCII ``text`` as a JSON string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def line(event: Event) -> bytes:
    """The record as one line with its newline; keys in a fixed order."""
    digests = ",".join(
        f'{{"hashAlg":"{bank}","digest":"{value.hex()}"}}' for bank, value in event.digests
    )
    if is_text(event.content):
        content = f'"text":{quote(event.content.decode("ascii"))}'
    else:
        content = f'"hex":"{event.content.hex()}"'
    return (
        f'{{"recnum":{event.number},"pcr":{event.pcr},"digests":[{digests}],'
        f'"content_type":"{CONTENT_TYPE}",'
        f'"content":{{"type":{quote(event.kind)},{content}}}}}\n'
    ).encode()

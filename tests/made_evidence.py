# SPDX-License-Identifier: Apache-2.0
"""Evidence of a guest that booted as its reference values predict, and parts to spoil.

Written after docs/formats.md: log, registers and binding are computed here by
hand, with nothing of what is under test. Over ``made_pki``, whose chain has no
mark SIMULATED.
"""

import base64
import hashlib
import json
import struct
from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

import made_appraisal
import made_pki
from made_policy import policy as made_policy
from troth.documents import policy_json
from troth.documents.reference_values import (
    Case,
    Flags,
    LaunchValue,
    ReferenceValues,
    Registers,
)

AT = made_appraisal.AT
NONCE = bytes(range(32))
USER_DATA = b"hello"
CHANNEL = hashlib.sha256(b"the channel's SPKI").digest()
CALLER = "uid=65534 gid=65534 unit=app.service"
DIGEST = "04" * 48
GUEST_POLICY = made_appraisal.GUEST_POLICY

POLICY_JSON = policy_json.print_(made_policy(snp="required", vtpm="none"))
CMDLINE = b"console=ttyS0 quiet"
ROOTS = (("root", "ab" * 32), ("models", "cd" * 32))
WORKLOAD = bytes(range(128, 160))

#: (type, PCR, content) of the whole boot, from the PCR table.
BOOT = (
    ("policy", 14, POLICY_JSON),
    ("cmdline", 14, CMDLINE),
    *(("verity", 15, f"verity:{name}:{value}:".encode()) for name, value in ROOTS),
    ("phase", 11, b"enter-initrd"),
    ("workload", 14, WORKLOAD),
    ("phase", 11, b"leave-initrd"),
    ("cap", 14, b"troth:cap"),
    ("cap", 15, b"troth:cap"),
)
INSTANCE = hashlib.sha256(b'{"schema":"troth-instance-v1"}').digest()
INSTANCE_EVENT = ("instance", 14, INSTANCE)
APPLICATION = ("application", 23, CALLER.encode() + b" event=login data=00")


def with_instance(boot=BOOT, event=INSTANCE_EVENT):
    """``boot`` of a guest that took an instance configuration."""
    at = next(n for n, item in enumerate(boot) if item[2] == b"enter-initrd") + 1
    return (*boot[:at], event, *boot[at:])


def record(number, event, banks=("sha256", "sha384")):
    """One record of the log as a tree."""
    kind, pcr, content = event
    text = content.decode("latin-1")
    plain = text.isascii() and text.isprintable()
    return {
        "recnum": number,
        "pcr": pcr,
        "digests": [
            {"hashAlg": bank, "digest": hashlib.new(bank, content).hexdigest()} for bank in banks
        ],
        "content_type": "troth",
        "content": {"type": kind, **({"text": text} if plain else {"hex": content.hex()})},
    }


def log(events=BOOT, banks=("sha256", "sha384")):
    """The log's bytes."""
    return lines(record(number, event, banks) for number, event in enumerate(events))


def lines(records):
    return b"".join(json.dumps(item).encode() + b"\n" for item in records)


def software(events=BOOT):
    value = bytes(48)
    for kind, _pcr, content in events:
        event = hashlib.sha384(kind.encode() + b"\0" + content).digest()
        value = hashlib.sha384(value + event).digest()
    return value


def pcrs(events=BOOT, banks=("sha256", "sha384")):
    found = {}
    for _kind, pcr, content in events:
        for bank in banks:
            old = found.get((bank, pcr), bytes(hashlib.new(bank).digest_size))
            digest = hashlib.new(bank, content).digest()
            found[bank, pcr] = hashlib.new(bank, old + digest).digest()
    return found


def bound(tree):
    """The 64 bytes of troth-evidence-v1 for a document; the key is named by SHA-256."""
    listed = {item["name"]: bytes.fromhex(item["value"]) for item in tree["registers"]}
    ak_name = quote = b""
    if tree["tpm"] is not None:
        parts = {name: base64.b64decode(tree["tpm"][name]) for name in QUOTE_PARTS}
        ak_name = b"\x00\x0b" + hashlib.sha256(parts["ak_public"]).digest()
        quote = hashlib.sha256(parts["attest"] + parts["signature"]).digest()
        if tree["tpm"]["counters"] is not None:
            listed["tpm-counters"] = struct.pack("<IIQ", *tree["tpm"]["counters"].values())
    registers = b"".join(field(name.encode()) + field(listed[name]) for name in sorted(listed))
    values = (
        (1, struct.pack("<I", 1)),
        (2, b"troth-evidence-v1"),
        (3, bytes.fromhex(tree["nonce"])),
        (4, tree["platform_kind"].encode()),
        (5, bytes.fromhex(tree["channel_key_sha256"])),
        (6, ak_name),
        (7, quote),
        (8, registers),
        (9, hashlib.sha384(base64.b64decode(tree["event_log"])).digest()),
        (10, struct.pack("<Q", tree["log_records"])),
        (11, tree["caller"].encode()),
        (12, bytes.fromhex(tree["user_data"])),
    )
    return hashlib.sha512(b"".join(bytes([kind]) + field(value) for kind, value in values)).digest()


QUOTE_PARTS = ("ak_public", "attest", "signature")


def tpm_tree(part):
    """A ``TpmPart`` as the document has it."""
    counters = part.counters
    return {
        **{name: b64(getattr(part, name)) for name in QUOTE_PARTS},
        "pcrs": [{"bank": p.bank, "index": p.index, "value": p.value.hex()} for p in part.pcrs],
        "counters": counters
        and {name: getattr(counters, name) for name in counters.__match_args__},
    }


def field(value):
    return struct.pack("<I", len(value)) + value


def tree(events=BOOT, *, report=None, made=None, tpm_registers=False, **changes):
    """A document whose report binds it; ``report``: fields; ``made``: the chain that signs."""
    registers = {"software": software(events).hex()}
    if tpm_registers:
        registers |= {
            f"{bank}:{index}": value.hex() for (bank, index), value in pcrs(events).items()
        }
    whole = {
        "schema": "troth-evidence-v1",
        "platform_kind": "direct",
        "nonce": NONCE.hex(),
        "user_data": USER_DATA.hex(),
        "channel_key_sha256": CHANNEL.hex(),
        "caller": CALLER,
        "certificates": "",
        "event_log": b64(log(events)),
        "log_records": len(events),
        "registers": [{"name": name, "value": registers[name]} for name in sorted(registers)],
        "tpm": None,
        "service": None,
    } | changes
    fields = made_appraisal.FIELDS | {
        "report_data": bound(whole),
        "measurement": bytes.fromhex(DIGEST),
        "host_data": bytes(32),
    }
    signer = made or made_appraisal.pki()
    whole["report"] = b64(signer.report(**(fields | (report or {}))))
    return whole


def document(events=BOOT, **changes):
    return json.dumps(tree(events, **changes)).encode()


def b64(data):
    return base64.b64encode(data).decode()


LAUNCH = LaunchValue(
    digest=DIGEST, kind="igvm", platform="direct", file="guest.igvm", ovmf_hash="",
    form="plain", cmdline=CMDLINE.decode(), vcpus=2, cpu_types=("EPYC-v4",),
    vcpu_signature=0xA00F11, memory_bytes=1 << 30, vmm="qemu", guest_features=1,
    policy=GUEST_POLICY, acpi_aml="measured-tables",
    covers=("kernel", "initramfs", "cmdline", "acpi"), experimental="",
)  # fmt: skip


def registers(events, *, tpm):
    values = sorted(pcrs(events, ("sha1", "sha256", "sha384", "sha512")).items()) if tpm else ()
    return Registers(
        tuple((bank, index, value.hex()) for (bank, index), value in values),
        software(events).hex(),
    )


def case(events=BOOT, *, tpm="unused", cmdline=CMDLINE):
    before = tuple(event for event in events if event[0] != "cap" and event[2] != b"leave-initrd")
    used = tpm == "present"
    return Case(
        "plain", cmdline.decode(), tpm, registers(before, tpm=used), registers(events, tpm=used)
    )


VALUES = ReferenceValues(
    image_name="demo",
    svn=3,
    troth_version="0.1.0",
    platform="direct",
    snp="required",
    vtpm="none",
    vtpm_kind="host",
    policy_sha256=hashlib.sha256(POLICY_JSON).hexdigest(),
    root_hashes=ROOTS,
    workload=WORKLOAD.hex(),
    cases=(case(),),
    flags=Flags("measured-tables", False, False, "integrity", False, "panic", "tmpfs", ("/",)),
    launch=(LAUNCH,),
    products=("Genoa",),
    revoked=("0a" * 48,),
    artefacts=(("vmlinuz", "1" * 64),),
    inputs=(),
    issued="2026-03-01T00:00:00Z",
    expires="2026-12-01T00:00:00Z",
    commit="d" * 40,
)


@cache
def signer(number=1):
    """(PEM of a private key, base64 of the SPKI)."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem, b64(spki)


def policy_text(made=None):
    """A policy with every demand that this evidence meets."""
    text = made_appraisal.policy_text(made)
    for line in (
        "[required] caller = true",
        "[launch] measurements = []",
        '[launch] host_data = "unused"',
        f'[reference] public_keys = ["{signer()[1]}"]',
        "[reference] min_svn = 3",
        f'[reference] callers = ["{CALLER}"]',
    ):
        text = made_appraisal.with_line(text, line)
    return text


@cache
def simulated_pki():
    return made_pki.Pki("Genoa", simulated=True)

# SPDX-License-Identifier: Apache-2.0
"""A guest with a simulated secure processor: its own report, and those that others ask for.

What the guest's programs show is read here by offsets from AMD's tables, and
signatures are checked with ``cryptography``, apart from the code that made them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
import warnings
from base64 import b64decode
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from boot.expected import event_names
from boot.machine import check_good, check_refused

NONCE = bytes.fromhex("00112233445566778899aabbccddeeff")
DEBUG, MIGRATE_MA = 0xB0000, 0x70000


@contextlib.contextmanager
def commands(path, *trees, after=None):
    """Give the processor these commands as soon as it listens, or ``after``; all must be taken."""
    answers, ended = [], threading.Event()

    def speak():
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(30)
            while not ended.is_set():
                try:
                    control.connect(str(path))
                    break
                except OSError:
                    time.sleep(0.01)
            while after is not None and not ended.is_set() and not after.wait(0.05):
                pass
            with control.makefile("rw") as lines:
                for tree in trees:
                    lines.write(json.dumps(tree) + "\n")
                    lines.flush()
                    answers.append(json.loads(lines.readline()))

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        yield answers
    finally:
        ended.set()
        thread.join()
    assert [answer["ok"] for answer in answers] == [True] * len(trees), answers


def certificate(bundle, name):
    with warnings.catch_warnings():
        # AMD's serial numbers are zero, and so are these.
        warnings.simplefilter("ignore")
        return x509.load_der_x509_certificate(der(bundle, name))


def der(bundle, name):
    pem = Path(f"{bundle}.sim/certs/{name}.pem").read_bytes()
    return b64decode(b"".join(pem.split(b"-----")[2].split()))


def check_report(raw, vcek, *, report_data):
    """A report of 1184 bytes by this chip, with this REPORT_DATA, of VMPL 0."""
    assert len(raw) == 1184
    assert raw[0x50:0x90] == report_data
    assert int.from_bytes(raw[0x30:0x34], "little") == 0
    r, s = (int.from_bytes(raw[at : at + 72], "little") for at in (0x2A0, 0x2E8))
    vcek.public_key().verify(encode_dss_signature(r, s), raw[:0x2A0], ec.ECDSA(hashes.SHA384()))


def triples(lines, verb):
    """name -> what it came to, of lines "<verb> name ..."."""
    return [tuple(line.split(" ")[1:]) for line in lines if line.startswith(f"{verb} ")]


def test_reports_in_a_guest(forge, boot, token):
    """By ioctl, by configfs-tsm and by troth's own verb; PID 1 has asked before them all."""
    bundle = forge.bundle("simulated")
    found = boot(bundle, "--sim-snp")
    check_good(found, token)
    assert found.stages == ["mounts", "policy", "modules", "tee", "devices", "verity", "root",
                            "handover"]  # fmt: skip
    vcek = certificate(bundle, "vcek")
    left = found.json("file /run/troth/state/boot.json")
    assert (left["host_data"], len(left["report_id"])) == ("00" * 32, 64)
    _check_device(found, bundle, vcek, left["report_id"])
    _check_tree(found, vcek)
    _check_verb(found, vcek)
    # Only what the policy names was loaded, and the tree is not open to programs.
    mounts = [line.split(" ") for line in found.lines("file /proc/mounts")]
    (tree,) = [line for line in mounts if line[1] == "/sys/kernel/config"]
    assert tree[0] == "simulated-configfs"
    assert {"nosuid", "nodev", "noexec"} <= set(tree[3].split(","))


def _check_device(found, bundle, vcek, report_id):
    lines = found.lines("device")
    rows = {name: tuple(rest) for name, *rest in (line.split(" ") for line in lines)}
    assert rows["mode"] == ("20600",)
    assert rows["report"] == ("ok", "0", "0")
    answer = bytes.fromhex(rows["answer"][0])
    assert answer[:8] == bytes(4) + (1184).to_bytes(4, "little")
    check_report(answer[32:], vcek, report_data=b"\xa5" * 64)
    assert answer[32:][0x140:0x160].hex() == report_id
    # As the driver: presets NO_FW_CALL and copies it back, but for a version of zero.
    assert rows["unknown"] == ("ENOTTY", "ffffffff", "0")
    assert rows["version"] == ("EINVAL", "0", "0")
    assert rows["nowhere"] == ("EINVAL", "ffffffff", "0")
    assert rows["unmapped"][0] == "EFAULT"
    # The firmware's refusal of a level is a success of the ioctl.
    assert rows["level"] == ("ok", "0", "0")
    assert rows["level-answer"] == ("1600000000000000",)
    assert rows["extended"] == ("EIO", "0", "1")
    assert int(rows["needed"][0], 16) % 4096 == 0
    assert rows["extended-again"] == ("ok", "0", "0")
    check_report(bytes.fromhex(rows["extended-answer"][0])[32:], vcek, report_data=b"\xa5" * 64)
    table = bytes.fromhex(rows["certificates"][0])
    for name, guid in (
        ("vcek", "63da758de6644564adc5f4b93be8accd"),
        ("ark", "c0b406a4a803495297433fb6014cd0ae"),
    ):
        assert entry(table, bytes.fromhex(guid)) == der(bundle, name)
    assert rows["unaligned"] == ("EINVAL", "ffffffff", "0")
    assert rows["large"] == ("EINVAL", "ffffffff", "0")
    keys = [line.split(" ")[1] for line in lines if line.startswith("key-answer ")]
    assert len(set(keys)) == 2
    assert all(key[:64] == "00" * 32 and any(bytes.fromhex(key[64:])) for key in keys)
    assert rows["read"] == ("EINVAL",)
    assert rows["other-user"] == ("EACCES",)


def entry(table, guid):
    """The blob of one GUID, by AMD's table: 16 bytes, offset and length."""
    at = next(at for at in range(0, 24 * 16, 24) if table[at : at + 16] == guid)
    offset, size = (int.from_bytes(table[at + by :][:4], "little") for by in (16, 20))
    return table[offset : offset + size]


def _check_tree(found, vcek):
    lines = found.lines("tree")
    base = "/sys/kernel/config"
    assert triples(lines, "make") == [
        (f"{base}/other", "EPERM"),
        (f"{base}/tsm/report/a", "ok"),
        (f"{base}/tsm/report/a", "EEXIST"),
    ]
    assert triples(lines, "mode") == [
        ("auxblob", "100444"), ("generation", "100444"), ("inblob", "100200"),
        ("outblob", "100444"), ("privlevel", "100200"), ("privlevel_floor", "100444"),
        ("provider", "100444"),
    ]  # fmt: skip
    reads = triples(lines, "read")
    texts = [
        (name, bytes.fromhex(rest[0]).decode() if rest else said)
        for name, said, *rest in reads
        if name not in ("a/outblob", "a/auxblob") or said != "ok"
    ]
    assert texts == [
        ("a/provider", "sev_guest\n"),
        ("a/privlevel_floor", "0\n"),
        ("a/generation", "0\n"),
        # Nothing was written yet; what may only be written cannot be read.
        ("a/outblob", "EINVAL"),
        ("a/inblob", "EACCES"),
        # The refused level counts for nothing, the refused blob is an empty one at its close.
        ("a/generation", "1\n"),
        ("a/generation", "2\n"),
        ("a/outblob", "EINVAL"),
        ("a/generation", "4\n"),
        ("a/generation", "4\n"),
    ]
    assert triples(lines, "write") == [
        ("a/privlevel", "1", "EINVAL"),
        ("a/inblob", "65", "EFBIG"),
        ("a/inblob", "63", "ok"),
        ("a/privlevel", "2", "ok"),
        ("a/inblob", "64", "ok"),
        ("a/provider", "1", "EACCES"),
    ]
    blobs = {name: bytes.fromhex(rest[0]) for name, _, *rest in reads if rest}
    check_report(blobs["a/outblob"], vcek, report_data=b"\x5a" * 64)
    assert b"SEV-VCEK" in blobs["a/auxblob"]
    assert found.lines("list /sys/kernel/config/tsm/report") == ["a"]
    assert len(found.lines("list /sys/kernel/config/tsm/report/a")) == 7
    assert found.lines("removed") == ["remove ok", "read a/generation ENOENT"]


def _check_verb(found, vcek):
    # docs/formats.md, troth-report-v1.
    fields = ((2, b"troth-report-v1"), (3, NONCE), (12, b""))
    parts = [bytes([kind]) + len(part).to_bytes(4, "little") + part for kind, part in fields]
    bound = hashlib.sha512(b"".join(parts)).digest()
    for provider in ("configfs-tsm", "sev-guest"):
        assert found.section(f"status {provider}") == "0"
        answer = found.json(f"verb {provider}")
        assert answer["provider"] == provider
        check_report(b64decode(answer["report"]), vcek, report_data=bound)


def test_a_simulated_image_without_its_processor(forge, boot, token):
    found = boot(forge.bundle("simulated"))
    check_refused(found, token, "snp-missing", stage="tee")


def test_a_port_of_another_name_is_no_processor(forge, boot, token, tmp_path):
    found = boot(forge.bundle("simulated"), "--port", f"troth.other={tmp_path / 'other'}")
    check_refused(found, token, "snp-missing", stage="tee")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ({"command": "launch", "policy": DEBUG}, "snp-debug", "the "),
        ({"command": "launch", "policy": MIGRATE_MA}, "snp-migrate", "the "),
        ({"command": "launch", "guest_vmpl": 2}, "snp-vmpl", "the "),
        ({"command": "fault", "kind": "wrong-nonce"}, "snp-report", "provider-mismatch: "),
        ({"command": "fault", "kind": "altered-answer"}, "snp-report", "provider-answer: "),
        ({"command": "fault", "kind": "death"}, "snp-report", "provider-refused: "),
    ],
    ids=["debug", "migrate", "vmpl", "nonce", "altered", "death"],
)
def test_a_hostile_host_at_boot(forge, boot, token, tmp_path, command, code, words):
    """Before any disk is looked at: the guest's own report says it, or does not come."""
    control = tmp_path / "control"
    with commands(control, command):
        found = boot(forge.bundle("simulated"), "--sim-snp", "--sim-control", control)
    check_refused(found, token, code, stage="tee")
    assert f"troth: refused {code}: {words}" in found.console
    assert "devices" not in found.stages


def test_a_busy_host_is_waited_for(forge, boot, token, tmp_path):
    """The same page again after two seconds each, until it is answered."""
    control = tmp_path / "control"
    with commands(control, {"command": "fault", "kind": "vmm-busy", "count": 2}):
        found = boot(forge.bundle("simulated"), "--sim-snp", "--sim-control", control)
    check_good(found, token)
    (duration_ms,) = [row["ms"] for row in found.result["stages"] if row["name"] == "tee"]
    assert duration_ms >= 4000


@pytest.mark.parametrize(
    ("kind", "expected"), [("death", "EIO"), ("stale-answer", "EBADMSG")], ids=str
)
def test_a_host_that_turns_hostile_later(boot, token, tmp_path, variant, kind, expected):
    """The front lives in the runtime, with another root around it, and still says what it lost."""
    bundle = variant("simulated")
    bundle.rebake(lambda tree: tree["handover"].update(argv=["/sbin/init", "hostile"]))
    control = tmp_path / "control"
    begun = threading.Event()

    def watch(console, _process):
        if "@@ hostile" in console:
            begun.set()
        return begun.is_set()

    tree = {"command": "fault", "kind": kind}
    with commands(control, tree, after=begun):
        found = boot(bundle, "--sim-snp", "--sim-control", control, watch=watch)
    check_good(found, token)
    assert found.lines("hostile") == [
        f"first {expected}",
        "then ENOTTY",
        "make /sys/kernel/config/tsm/report/b ok",
        "write b/inblob 64 ok",
        "read b/generation ok 310a",
        "read b/outblob ENOTTY",
    ]
    lost = "troth: the simulated platform is lost: the host has closed the port"
    assert (lost in found.console) == (kind == "death")


def test_without_disks_and_supervised(forge, boot, token):
    """Kernel 6.1, nothing but the initramfs; the front does not put the end off."""
    bundle = forge.bundle("simulated-supervised")
    found = boot(bundle, "--sim-snp")
    check_good(found, token)
    assert "troth: workload exited 0" in found.console
    assert event_names(found)[0] == "policy"
    # The workload's grace is 20 s for whatever does not end by itself.
    ended = found.console.index("troth: workload exited 0")
    assert found.duration_s < 20 + 15, found.console[ended:]
    assert Path(f"{bundle}.sim/root-sha256").exists()

# SPDX-License-Identifier: Apache-2.0
"""Registers of a boot with an instance configuration, by hand and by the verbs."""

import hashlib
import json
from base64 import b64encode

import pytest

from made_policy import INSTANCE, ROOT, policy
from troth.cli.main import main
from troth.documents import event_log, policy_json, reference_values, reference_values_json
from troth.image import compare, reference
from troth.measure.boot_events import boot_events
from troth.measure.boot_registers import boot_registers, claimed_instance
from troth.record import replace

FILE = b'{"schema":"troth-instance-v1","hostname":"one"}'
OTHER = b'{"schema":"troth-instance-v1","hostname":"two"}'
DIGEST = hashlib.sha256(FILE).digest()
WORKLOAD = hashlib.sha256(b"workload").digest()


def taking(need):
    return replace(
        policy(
            snp="simulated",
            workload=("/opt/app",),
            instance=None if need == "refused" else replace(INSTANCE, need=need),
        ),
        cmdline="quiet",
        cmdline_forms=("plain",),
    )


def chain(bank, *contents):
    value = bytes(hashlib.new(bank).digest_size)
    for content in contents:
        value = hashlib.new(bank, value + hashlib.new(bank, content).digest()).digest()
    return value.hex()


def software(*events):
    value = bytes(48)
    for kind, content in events:
        value = hashlib.sha384(value + hashlib.sha384(kind + b"\0" + content).digest()).digest()
    return value.hex()


@pytest.mark.parametrize("bank", ["sha1", "sha256", "sha384", "sha512"])
def test_registers_by_hand(bank):
    made = taking("required")
    data = policy_json.print_(made)
    found = boot_registers(
        made,
        policy_bytes=data,
        cmdline=b"quiet",
        workload=WORKLOAD,
        instance=DIGEST,
        tpm="present",
        point="handover",
    )
    values = {(name, index): value for name, index, value in found.pcrs}
    assert values[bank, 14] == chain(bank, data, b"quiet", DIGEST, WORKLOAD, b"troth:cap")
    assert values[bank, 11] == chain(bank, b"enter-initrd", b"leave-initrd")
    root = f"verity:root:{ROOT.verity.root_hash}:".encode()
    assert values[bank, 15] == chain(bank, root, b"troth:cap")
    assert found.software == software(
        (b"policy", data),
        (b"cmdline", b"quiet"),
        (b"verity", root),
        (b"phase", b"enter-initrd"),
        (b"instance", DIGEST),
        (b"workload", WORKLOAD),
        (b"phase", b"leave-initrd"),
        (b"cap", b"troth:cap"),
        (b"cap", b"troth:cap"),
    )


def events(made, instance):
    return boot_events(
        made,
        policy_bytes=policy_json.print_(made),
        cmdline=b"quiet",
        workload=WORKLOAD,
        instance=instance,
    )


def difference(found, made, **keywords):
    return compare.first_difference(
        found, made, policy_bytes=policy_json.print_(made), workload=WORKLOAD, **keywords
    )


@pytest.mark.parametrize(
    ("need", "instance", "good"),
    [
        ("required", DIGEST, True),
        ("required", None, False),
        ("optional", DIGEST, True),
        ("optional", None, True),
        ("refused", DIGEST, False),
        ("refused", None, True),
    ],
)
def test_a_log_has_a_place_for_one_digest(need, instance, good):
    made = taking(need)
    log = events(made, instance)
    assert claimed_instance(log) == instance
    assert (difference(log, made) == "") == good
    if not good:
        assert "instance" in difference(log, made)


def test_the_place_is_the_one_and_only():
    made = taking("required")
    log = list(events(made, DIGEST))
    at = next(index for index, event in enumerate(log) if event.kind == "instance")
    assert (log[at - 1].kind, log[at].pcr, log[at + 1].kind) == ("phase", 14, "workload")
    twice = [*log[: at + 1], *log[at:]]
    late = [*log[:at], log[at + 1], log[at], *log[at + 2 :]]
    short = [*log[:at], replace(log[at], content=DIGEST[:31]), *log[at + 1 :]]
    zero = [*log[:at], replace(log[at], content=bytes(32)), *log[at + 1 :]]
    other = [*log[:at], replace(log[at], pcr=15), *log[at + 1 :]]
    for bad in (twice, late, short, other):
        assert difference(bad, made) != ""
    # HOST_DATA of zeros names nothing, and PID 1 measures no such event.
    assert claimed_instance(zero) == bytes(32)
    assert difference(log, made, instance=DIGEST) == ""
    assert DIGEST.hex() in difference(log, made, instance=bytes(32))


@pytest.fixture
def bundle(tmp_path):
    def make(need):
        made = taking(need)
        data = policy_json.print_(made)
        values = reference_values.ReferenceValues(
            image_name="demo", svn=1, troth_version="0", platform="simulated", snp="simulated",
            vtpm="required", vtpm_kind="host", policy_sha256=hashlib.sha256(data).hexdigest(),
            root_hashes=(("root", ROOT.verity.root_hash),), workload=WORKLOAD.hex(),
            cases=reference.cases(made, policy_bytes=data, workload=WORKLOAD),
            flags=reference_values.Flags(
                "off", False, False, "none", False, "panic", "none", (), simulated=True
            ),
            instance=reference.instance(made),
        )  # fmt: skip
        (tmp_path / "policy.json").write_bytes(data)
        printed = reference_values_json.print_(values)
        assert reference_values_json.parse(printed) == values
        assert json.loads(printed)["instance"] == need
        (tmp_path / reference_values.FILE_NAME).write_bytes(printed)
        (tmp_path / "one.json").write_bytes(FILE)
        (tmp_path / "two.json").write_bytes(OTHER)
        return made

    return make


def test_predict(bundle, tmp_path, capsys):
    made = bundle("optional")
    words = ["pcr", "predict", str(tmp_path), "--json"]
    assert main(words) == 0
    (without,) = json.loads(capsys.readouterr().out)
    assert without["instance"] is None
    assert main([*words, "--instance", str(tmp_path / "one.json")]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["instance"] == DIGEST.hex()
    data = policy_json.print_(made)
    assert found["pcrs"]["sha256"]["14"] == chain(
        "sha256", data, b"quiet", DIGEST, WORKLOAD, b"troth:cap"
    )
    assert without["pcrs"]["sha256"]["14"] == chain(
        "sha256", data, b"quiet", WORKLOAD, b"troth:cap"
    )
    assert main([*words[:-1], "--instance", str(tmp_path / "one.json")]) == 0
    said = capsys.readouterr().out
    assert f"HOST_DATA: {DIGEST.hex()} ({b64encode(DIGEST).decode()})" in said
    assert found["software"] in said


@pytest.mark.parametrize(
    ("need", "words", "status", "code"),
    [
        ("required", [], 2, "instance-needed"),
        ("refused", ["--instance", "one.json"], 2, "instance-refused"),
        ("required", ["--instance", "absent"], 2, "instance-file"),
        ("required", ["--instance", "policy.json"], 1, "json-type"),
    ],
)
def test_predictions_that_mean_nothing(bundle, tmp_path, capsys, need, words, status, code):
    bundle(need)
    words = [str(tmp_path / word) if not word.startswith("--") else word for word in words]
    assert main(["pcr", "predict", str(tmp_path), *words]) == status
    assert f"[{code}]" in capsys.readouterr().err


def test_replay(bundle, tmp_path, capsys):
    made = bundle("required")
    log = tmp_path / "log"
    log.write_bytes(b"".join(event_log.line(event) for event in events(made, DIGEST)))
    words = ["pcr", "replay", str(log)]
    assert main([*words, "--instance", str(tmp_path / "one.json")]) == 2
    words += ["--against", str(tmp_path)]
    assert main(words) == 0
    assert main([*words, "--instance", str(tmp_path / "one.json")]) == 0
    capsys.readouterr()
    assert main([*words, "--instance", str(tmp_path / "two.json")]) == 1
    assert "expected instance in PCR 14" in capsys.readouterr().out


def test_values_say_whether_it_is_taken(bundle, tmp_path, capsys):
    bundle("optional")
    assert main(["reference", "show", str(tmp_path / reference_values.FILE_NAME)]) == 0
    assert "configuration optional; registers below are of boots without one" in (
        capsys.readouterr().out
    )

# SPDX-License-Identifier: Apache-2.0
"""``troth keybroker``: an operator's way from nothing to a guest with its key, and mistakes."""

import hashlib
import json
import re
import signal
import subprocess
import sys

import pytest

import made_appraisal
import made_broker as made
import made_evidence
from made_broker import Guest
from made_platform import platform
from troth.cli.main import main
from troth.image.inputs import manifest
from troth.keybroker import store
from troth.simulated import pki as pkis

PATH = "default/disk-key/data"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulated = made.values(expires="never")
    (tmp_path / "signed.json").write_bytes(made.document(simulated).data)
    real = made.with_digest(
        made.values(simulated=False, expires="never", image_name="r"), "0b" * 48
    )
    (tmp_path / "real.json").write_bytes(made.document(real).data)
    newer = made.with_digest(made.values(expires="never", svn=4), "0c" * 48)
    (tmp_path / "newer.json").write_bytes(made.document(newer).data)
    spki = made_evidence.signer()[1]
    (tmp_path / "pub.pem").write_text(
        f"-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n"
    )
    (tmp_path / "policy.toml").write_text(made.policy_text())
    (tmp_path / "key").write_bytes(made.KEY)
    return tmp_path


def add(*words):
    return main(["keybroker", "add", "--db", "db", *words])


def add_class(*words):
    assert add("--reference", "signed.json", "--key", "pub.pem", *words) == 0


def add_volume(*words):
    return add("--volume", PATH, "--uuid", made.UUID, "--image", "demo", *words)


def listed(capsys):
    capsys.readouterr()
    assert main(["keybroker", "list", "--db", "db", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_an_operator_adds_is_listed(place, capsys):
    add_class("--pending")
    assert add_volume("--lease", "5", "--format-time", "7") == 0
    (place / "secret").write_bytes(b"a secret of an application")
    assert add("--resource", "default/app/x", "--file", "secret", "--image", "demo") == 0
    found = listed(capsys)
    assert (found["platform"], found["sealed"]) == ("simulated", False)
    (only,) = found["classes"]
    key_id = hashlib.sha256(made.signer().public.spki).hexdigest()
    assert (only["image"], only["svn"], only["state"]) == ("demo", 3, "pending")
    assert only["keys"] == [key_id]
    other, volume = found["resources"]
    assert (other["path"], other["volume"], other["images"]) == ("default/app/x", None, ["demo"])
    assert volume["volume"] == {
        "uuid": made.UUID, "profile": made.PROFILE, "state": "new", "generation": 0, "record": "",
        "holder": "", "held_until": "", "taken_over": 0, "lease_s": 5, "format_s": 7,
        "overdue": False,
    }  # fmt: skip
    assert add("--activate", "demo") == 0
    assert listed(capsys)["classes"][0]["state"] == "active"
    assert main(["keybroker", "list", "--db", "db"]) == 0
    text = capsys.readouterr().out
    assert f"volume {PATH}: new, generation 0, for demo" in text
    assert "a secret" not in text
    assert main(["keybroker", "retire", "demo", "--db", "db"]) == 0
    assert "retired svn 3" in capsys.readouterr().out
    assert listed(capsys)["classes"][0]["state"] == "retired"
    assert add("--reference", "newer.json", "--key", "pub.pem") == 0


def test_further_images(place, capsys):
    add_class()
    assert add_volume() == 0
    other = made.with_digest(made.values(expires="never", image_name="other"), "0d" * 48)
    (place / "other.json").write_bytes(made.document(other).data)
    assert add("--grant", PATH, "--image", "other") == 2
    assert add("--reference", "other.json", "--key", "pub.pem") == 0
    for _ in range(2):
        assert add("--grant", f"kbs:///{PATH}", "--image", "other") == 0
    assert listed(capsys)["resources"][0]["images"] == ["demo", "other"]


def test_volume_that_was_formatted_elsewhere(place, capsys):
    add_class()
    record = "ab" * 32
    assert add_volume("--in-use", "--key-file", "key", "--generation", "2", "--record", record) == 0
    (found,) = listed(capsys)["resources"]
    assert (found["volume"]["state"], found["volume"]["generation"]) == ("in-use", 2)
    assert found["volume"]["record"] == record


def test_sealed(place, capsys):
    (place / "pass").write_text("open sesame\n")
    add_class("--passphrase-file", "pass")
    assert add_volume() == 2
    assert "[broker-passphrase]" in capsys.readouterr().err
    assert add_volume("--passphrase-file", "pass") == 0
    assert listed(capsys)["sealed"] is True
    (place / "empty").touch()
    assert add_volume("--passphrase-file", "empty") == 2


VOLUME = ("--volume", "a/b/c", "--uuid", made.UUID, "--image", "demo")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), "broker-option"),
        (("--volume", "a/b/c", "--resource", "a/b/c"), "broker-option"),
        (("--volume", "a/b/c"), "broker-option"),
        (("--volume", "a/b/c", "--uuid", made.UUID), "broker-option"),
        ((*VOLUME, "--uuid", "X"), "broker-option"),
        ((*VOLUME, "--lease", "-1"), "broker-option"),
        ((*VOLUME, "--pending"), "broker-option"),
        ((*VOLUME, "--file", "key"), "broker-option"),
        ((*VOLUME, "--generation", "1"), "broker-option"),
        ((*VOLUME, "--in-use"), "broker-option"),
        ((*VOLUME, "--in-use", "--key-file", "key", "--generation", "1"), "broker-option"),
        ((*VOLUME, "--key-file", "nothing"), "broker-key-file"),
        ((*VOLUME, "--key-file", "pub.pem"), "broker-key-file"),
        (("--volume", "a/b", *VOLUME[2:]), "broker-resource"),
        ((*VOLUME[:-1], "nobody"), "broker-image"),
        (("--resource", "a/b/c", "--image", "demo"), "broker-option"),
        (("--resource", "a/b/c", "--file", "key"), "broker-option"),
        (("--resource", "a/b/c", "--image", "demo", "--file", "nothing"), "broker-key-file"),
        (("--reference", "newer.json"), "reference-key-missing"),
        (("--reference", "real.json", "--key", "pub.pem"), "broker-kind"),
        (("--reference", "nothing.json", "--key", "pub.pem"), "reference-file"),
        (("--grant", "a/b/c", "--image", "demo"), "broker-resource-absent"),
        (("--grant", "a/b/c"), "broker-option"),
        (("--activate", "demo"), "broker-image"),
        (("--activate", "demo", "--image", "demo"), "broker-option"),
    ],
)
def test_mistakes(place, capsys, words, code):
    add_class()
    capsys.readouterr()
    assert add(*words) == 2
    said = capsys.readouterr().err
    assert f"[{code}]" in said
    if code in ("broker-option", "broker-image", "broker-kind", "reference-key-missing"):
        assert "hint: " in said


def test_database_that_is_not_there(place, capsys):
    assert add_volume() == 2
    assert "[broker-absent]" in capsys.readouterr().err
    assert main(["keybroker", "list", "--db", "db"]) == 2
    assert main(["keybroker", "retire", "demo", "--db", "db"]) == 2


def serve(*words):
    return main(["keybroker", "serve", "--db", "db", *words])


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        ((), 2, "broker-policy"),
        (("--policy", "nothing"), 2, "verify-policy-file"),
        (("--policy", "permissive.toml"), 2, "broker-policy"),
        (("--policy", "real.toml"), 2, "broker-kind"),
        (("--policy", "policy.toml", "--certs", "nothing"), 2, "certs-directory"),
        (("--policy", "policy.toml", "--certs", "real"), 2, "broker-kind"),
        (("--policy", "policy.toml", "--listen", "8443"), 2, "broker-listen"),
        (("--policy", "policy.toml", "--listen", "a:99999"), 2, "broker-listen"),
        (("--policy", "policy.toml", "--listen", "192.0.2.1:1"), 3, "broker-listen"),
        (("--policy", "policy.toml", "--trust-domain", "A/B"), 2, "broker-trust-domain"),
    ],
)
def test_what_is_not_served(place, capsys, words, status, code):
    add_class()
    (place / "real.toml").write_text(made.policy_text(simulated=False))
    permissive = made_appraisal.with_line(made.policy_text(), "permissive = true")
    (place / "permissive.toml").write_text(permissive)
    made.certificates(place / "real", simulated=False)
    assert serve(*words) == status
    assert f"[{code}]" in capsys.readouterr().err


class Serving:
    """``troth keybroker serve`` as a process of its own."""

    def __init__(self, place, *words):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "troth.cli.main", "keybroker", "serve", "--db", "db",
             "--listen", "127.0.0.1:0", *words],
            cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said = []
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("spki = "):
                break
        text = "".join(self.said)
        found = re.search(r"on https://127\.0\.0\.1:(\d+)", text)
        assert found, text + self.process.stderr.read()
        self.port = int(found[1])
        self.pin = re.search(r'spki = \["([0-9a-f]{64})"\]', text)[1]

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        _out, said = self.process.communicate(timeout=20)
        return self.process.returncode, said


MANIFEST = """\
[image]
name = "demo"
kernel = "debian:linux-image-6.12-cloud-amd64"
[root]
source = "rootfs/"
[tee]
snp = "simulated"
[network]
method = "dhcp"
[[volume]]
name = "data"
format = "headerless"
mount = "/var/lib/app"
key = "kbs:///default/disk-key/data"
"""


@pytest.mark.parametrize(
    ("names", "reached"),
    [((), ("10.0.2.2",)), (("b.example", "10.1.2.3"), ("b.example", "10.1.2.3"))],
)
def test_what_it_says_goes_into_a_manifest(place, names, reached):
    add_class()
    words = [word for name in names for word in ("--name", name)]
    serving = Serving(place, "--policy", "policy.toml", "--trust-domain", "example.org", *words)
    said = [*serving.said, next(serving.process.stdout)]
    assert serving.end() == (0, "")
    lines = "".join(said[said.index("[[broker]]\n") :])
    made_of_it = manifest.parse((MANIFEST + lines).encode(), place / "troth.toml")
    (broker,) = made_of_it.brokers
    assert (broker.protocol, broker.spki, broker.trust_domain) == (
        "troth", (serving.pin,), "example.org",
    )  # fmt: skip
    assert broker.addresses == tuple(f"{name}:{serving.port}" for name in reached)


def test_served_by_a_process_and_killed(place, capsys):
    """The whole of it with today's clock: a simulated platform, its certificates, its guest."""
    del capsys
    pki = platform("Genoa")
    pkis.store(pki, place_of(place, "sim"))
    add_class()
    assert add_volume() == 0
    policy = place / "policy.toml"
    policy.write_text(made.platform_policy(pki))
    first = Serving(place, "--policy", "policy.toml", "--certs", "sim/certs")
    with made.Client(first.port) as client:
        guest = attested(client, pki)
        key, report_id = guest.key, guest.report_id
        # The answer is lost: killed between decision and answer is the same to the guest.
        assert guest.get()[0] == 200
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    # The policy was kept, and so were the identity and what was released.
    second = Serving(place, "--certs", "sim/certs")
    assert second.pin == first.pin
    with made.Client(second.port) as client:
        other = attested(client, pki, report_id=report_id)
        assert other.get()[1]["detail"] == "released-already"
        again = attested(client, pki, key=key, report_id=report_id)
        assert json.loads(again.get()[1])["state"] == "formatting"
        assert again.commit(1, "ab" * 32) == (200, {})
    assert second.end() == (0, "")
    kept = store.open_(place / "db")
    lines = (place / "db/audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["code"] for line in lines] == [
        "accepted", "released", "accepted", "released-already", "accepted", "released-again",
        "committed",
    ]  # fmt: skip
    kept.close()


def place_of(place, name):
    (place / name).mkdir()
    return place / name


def attested(client, pki, *, key=None, report_id=b"\x08" * 32):
    guest = Guest(client, key=key, report_id=report_id)
    nonce = guest.auth()
    status, answer = guest.attest(
        nonce, made.platform_evidence(pki, guest.digest(nonce), report_id)
    )
    assert status == 200, answer
    return guest

# SPDX-License-Identifier: Apache-2.0
"""``troth verify evidence`` by its words: files in, exit status and text out."""

from __future__ import annotations

import datetime as dt
import hashlib
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

import made_appraisal
import made_evidence as made
from made_appraisal import with_line
from made_pki import pem
from troth.cli.main import main
from troth.documents import dsse, reference_values_json, result
from troth.errors import FormatError
from troth.record import replace
from troth.signing import channel_keys, keys, reference

AT = "2026-06-01T00:00:00Z"


def spki(key):
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def signed(values=made.VALUES, number=1):
    private = keys.load_private(made.signer(number)[0])
    return dsse.print_(reference.sign(values, [private]))


@pytest.fixture
def place(tmp_path):
    """A directory with everything that passes."""
    pki = made_appraisal.pki()
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/all.pem").write_bytes(pem(pki.ark, pki.ca, pki.vek))
    (tmp_path / "certs/list.der").write_bytes(pki.revoked())
    (tmp_path / "policy.toml").write_text(made.policy_text())
    (tmp_path / "reference.json").write_bytes(signed())
    (tmp_path / "evidence.json").write_bytes(made.document())
    return tmp_path


def words(place, *more, **changed):
    given = {
        "reference": place / "reference.json",
        "policy": place / "policy.toml",
        "nonce": made.NONCE.hex(),
        "user-data": made.USER_DATA.hex(),
        "channel-key": made.CHANNEL.hex(),
        "certs": place / "certs",
        "at": AT,
    } | {name.replace("_", "-"): value for name, value in changed.items()}
    listed = ["verify", "evidence", str(place / "evidence.json")]
    for name, value in given.items():
        if value is not None:
            listed += [f"--{name}", str(value)]
    return [*listed, *more]


def test_pass(place, capsys):
    assert main(words(place)) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("pass: ")
    assert "->" not in out
    assert "warning  software-register: software: trusts guest root for its whole life" in out
    assert main(words(place, "--json")) == 0
    found = result.parse(capsys.readouterr().out.encode())
    assert found.subject.kind == "evidence"
    assert found.overall == "pass"


def test_what_was_not_said_counts(place, capsys):
    assert main(words(place, channel_key=None)) == 1
    (arrow, hint) = [line for line in capsys.readouterr().out.splitlines() if "channel-" in line][
        :2
    ]
    assert arrow.startswith("-> not-checked  channel-binding")
    assert "--channel-key FILE" in hint
    assert main(words(place, user_data=None)) == 1
    assert main(words(place, nonce="00" * 32)) == 1
    assert main(words(place, certs=None)) == 1


def test_a_changed_workload_is_refused_by_its_first_event(place, capsys):
    boot = tuple(
        (kind, pcr, b"\xff" * 32 if kind == "workload" else content)
        for kind, pcr, content in made.BOOT
    )
    (place / "evidence.json").write_bytes(made.document(boot))
    assert main(words(place)) == 1
    (arrow,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("->")]
    assert "record 5, workload" in arrow
    assert f"first difference: workload in PCR 14: {'ff' * 32}" in arrow


def test_explain_reads_the_result(place, capsys):
    boot = (*made.BOOT[:5], *made.BOOT[6:])
    (place / "evidence.json").write_bytes(made.document(boot))
    assert main(words(place, "--json")) == 1
    (place / "result.json").write_text(capsys.readouterr().out)
    assert main(["explain", str(place / "result.json")]) == 0
    said = capsys.readouterr().out
    assert "boot-events" in said
    assert "The first event that differs says what is different" in " ".join(said.split())


def test_simulated(place, capsys):
    pki = made.simulated_pki()
    launch = replace(
        made.LAUNCH, kind="simulated", platform="simulated", file="vmlinuz", memory_bytes=0
    )
    flags = replace(made.VALUES.flags, simulated=True)
    values = replace(made.VALUES, snp="simulated", launch=(launch,), flags=flags)
    (place / "reference.json").write_bytes(signed(values))
    (place / "certs/all.pem").write_bytes(pem(pki.ark, pki.ca, pki.vek))
    (place / "certs/list.der").write_bytes(pki.revoked())
    text = with_line(made.policy_text(pki), 'platform = "simulated"')
    (place / "policy.toml").write_text(text)
    (place / "evidence.json").write_bytes(made.document(made=pki, platform_kind="simulated"))
    assert main(words(place)) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("pass-simulated: ")
    assert main(words(place, "--accept-simulated")) == 0


@pytest.mark.parametrize("values", [
    replace(made.VALUES, expires="2026-05-01T00:00:00Z"),
    replace(made.VALUES, revoked=(made.DIGEST,)),
])  # fmt: skip
def test_expired_and_retired_values(place, values):
    (place / "reference.json").write_bytes(signed(values))
    assert main(words(place)) == 1


def test_unsigned_values_and_keys_beside_the_policy(place, capsys):
    plain = reference_values_json.print_(replace(made.VALUES, issued="", expires="", commit=""))
    (place / "reference.json").write_bytes(plain)
    assert main(words(place)) == 1
    # Without values that count nothing was compared with a prediction.
    (line,) = [text for text in capsys.readouterr().out.splitlines() if " registers " in text]
    assert line.startswith("-> not-checked")
    (place / "policy.toml").write_text(
        with_line(made.policy_text(), "[reference] allow_unsigned = true")
    )
    assert main(words(place)) == 0
    (place / "reference.json").write_bytes(signed())
    public = keys.load_private(made.signer()[0]).public
    text = with_line(made.policy_text(), "[reference] public_keys = []")
    (place / "policy.toml").write_text(with_line(text, f'[reference] keys = ["{public.key_id}"]'))
    assert main(words(place)) == 1
    (place / "key.pem").write_text(
        f"-----BEGIN PUBLIC KEY-----\n{made.signer()[1]}\n-----END PUBLIC KEY-----\n"
    )
    assert main(words(place, key=place / "key.pem")) == 0


def test_guests_are_remembered(place, capsys):
    state = place / "state"
    assert main(words(place, state=state)) == 2
    assert "[state-directory]" in capsys.readouterr().err
    state.mkdir()
    longer = (*made.BOOT, made.APPLICATION)
    (place / "evidence.json").write_bytes(made.document(longer))
    assert main(words(place, state=state)) == 0
    (file,) = state.iterdir()
    assert file.name == f"{made_appraisal.FIELDS['report_id'].hex()}.json"
    assert json.loads(file.read_bytes())["records"] == len(longer)
    (place / "evidence.json").write_bytes(made.document())
    assert main(words(place, state=state)) == 1
    assert "fewer than before" in capsys.readouterr().out
    assert json.loads(file.read_bytes())["records"] == len(longer), "what failed is not remembered"
    (place / "evidence.json").write_bytes(made.document((*longer, made.APPLICATION)))
    assert main(words(place, state=state)) == 0
    assert json.loads(file.read_bytes())["records"] == len(longer) + 1


def test_the_instance_by_its_file(place):
    text = b'{"schema":"troth-instance-v1"}'
    (place / "instance.json").write_bytes(text)
    data = made.document(made.with_instance(), report={"host_data": hashlib.sha256(text).digest()})
    (place / "evidence.json").write_bytes(data)
    # An image that takes none has no such event, whatever its launch names.
    assert main(words(place, instance=place / "instance.json")) == 1
    values = replace(made.VALUES, instance="required")
    (place / "reference.json").write_bytes(signed(values))
    assert main(words(place)) == 1
    assert main(words(place, instance=place / "instance.json")) == 0
    (place / "instance.json").write_bytes(text + b"\n")
    assert main(words(place, instance=place / "instance.json")) == 1


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"nonce": "00" * 15}, 2, "nonce-length"),
        ({"nonce": "zz"}, 2, "verify-option"),
        ({"user_data": "0"}, 2, "verify-option"),
        ({"user_data": "00" * 4097}, 2, "verify-option"),
        ({"at": "now"}, 2, "verify-option"),
        ({"channel_key": "/nowhere"}, 2, "channel-key-file"),
        ({"instance": "/nowhere"}, 2, "instance-file"),
        ({"reference": "/nowhere"}, 2, "reference-file"),
        ({"policy": "/nowhere"}, 2, "verify-policy-file"),
        ({"certs": "/nowhere"}, 2, "certs-directory"),
        ({"state": "/nowhere"}, 2, "state-directory"),
        ({"key": "/nowhere"}, 2, "key-file"),
        ({"format": "other"}, 2, "usage"),
    ],
)
def test_usage(place, capsys, changed, status, code):
    assert main(words(place, **changed)) == status
    assert f"[{code}]" in capsys.readouterr().err


def test_what_is_no_evidence(place, capsys):
    (place / "evidence.json").write_bytes(b"{}")
    assert main(words(place)) == 1
    assert "[json-missing]" in capsys.readouterr().err
    (place / "evidence.json").unlink()
    assert main(words(place)) == 2
    assert "[evidence-file]" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["reference", "policy", "nonce"])
def test_what_must_be_given(place, name):
    assert main(words(place, **{name: None})) == 2


# --- keys of channels -----------------------------------------------------------------------------


def certificate(key):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "service")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made_one = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name)
        .public_key(key.public_key()).serial_number(5)
        .not_valid_before(start).not_valid_after(start + dt.timedelta(days=30))
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )  # fmt: skip
    return made_one.public_bytes(serialization.Encoding.DER)


KEYS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("kind", KEYS)
def test_the_digest_of_a_channels_key(kind):
    key = KEYS[kind]()
    wanted = hashlib.sha256(spki(key)).digest()
    der = certificate(key)
    for data in (
        der,
        pem(der),
        b"text around\n" + pem(der, certificate(KEYS["p256"]())),
        spki(key),
        pem(spki(key), label="PUBLIC KEY"),
        pem(der).replace(b"\n", b"\r\n"),
    ):
        assert channel_keys.spki_sha256(data) == wanted


def test_what_is_no_channel_key():
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    der = certificate(key)
    for data in (
        private, b"", b"-----BEGIN ", b"\x30\x00", der[:-1], der + b"\0", bytes((64 << 10) + 1),
        pem(der).replace(b"M", b"_"), pem(b"\x30\x00"),
    ):  # fmt: skip
        with pytest.raises(FormatError) as caught:
            channel_keys.spki_sha256(data, where="key")
        assert caught.value.code == "channel-key"


def test_a_certificate_binds_the_channel(place):
    key = KEYS["p256"]()
    (place / "tls.pem").write_bytes(pem(certificate(key)))
    digest = hashlib.sha256(spki(key)).hexdigest()
    (place / "evidence.json").write_bytes(made.document(channel_key_sha256=digest))
    assert main(words(place, channel_key=place / "tls.pem")) == 0
    assert main(words(place)) == 1
    (place / "tls.pem").write_bytes(pem(certificate(KEYS["p256"]())))
    assert main(words(place, channel_key=place / "tls.pem")) == 1

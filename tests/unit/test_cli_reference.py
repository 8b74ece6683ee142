# SPDX-License-Identifier: Apache-2.0
"""``troth reference``: signing, checking, showing, exporting; openssl as the other signer."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path

import pytest

import made_bundle
from made_values import IGVM, OVMF, SIGNED_VALUES, VALUES
from troth.cli.main import main
from troth.documents import dsse, reference_values_json
from troth.documents.dsse import Envelope, Signature
from troth.image import rvps
from troth.record import replace
from troth.signing import keys, reference

ISSUED, EXPIRES, BETWEEN = "2026-03-01T00:00:00Z", "2026-06-01T00:00:00Z", "2026-04-01T00:00:00Z"


@pytest.fixture(scope="module")
def signers(tmp_path_factory):
    """Two keys, made by openssl, each with its public half; and one that nobody signs with."""
    folder = tmp_path_factory.mktemp("keys")
    for name, words in {
        "ed": ["genpkey", "-algorithm", "ed25519"],
        "p384": ["ecparam", "-name", "secp384r1", "-genkey", "-noout"],
        "other": ["genpkey", "-algorithm", "ed25519"],
    }.items():
        openssl(*words, "-out", folder / f"{name}.pem")
        openssl("pkey", "-in", folder / f"{name}.pem", "-pubout", "-out", folder / f"{name}.pub")
    return folder


def openssl(*words):
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "reference-values.json"
    path.write_bytes(reference_values_json.print_(VALUES))
    return path


def sign(plain, signers, *more, names=("ed",)):
    out = plain.with_name("signed.json")
    words = ["reference", "sign", str(plain), "-o", str(out), "--issued", ISSUED]
    for name in names:
        words += ["--key", str(signers / f"{name}.pem")]
    if not {"--expires", "--valid-days"} & set(more):
        words += ["--expires", EXPIRES]
    assert main([*words, *more]) == 0
    return out


def check(path, signers, *more, name="ed", at=BETWEEN):
    words = ["reference", "check", str(path), "--at", at, "--json", *more]
    if name:
        words += ["--key", str(signers / f"{name}.pub")]
    return main(words)


def answer(capsys):
    tree = json.loads(capsys.readouterr().out)
    return tree["verdict"], {item["name"]: item for item in tree["checks"]}


def code(capsys, name):
    verdict, checks = answer(capsys)
    assert verdict == "fail"
    assert checks[name]["verdict"] == "fail"
    assert {item["code"] for item in checks.values()} == {"", checks[name]["code"]}
    return checks[name]["code"]


def error(words, capsys, status):
    assert main(words) == status
    said = capsys.readouterr().err
    return said.split("[")[1].split("]")[0]


def envelope(plain, signers, **changes):
    """The envelope of ``sign``, changed, not signed again."""
    made = dsse.parse(sign(plain, signers).read_bytes())
    path = plain.with_name("changed.json")
    path.write_bytes(dsse.print_(replace(made, **changes)))
    return path


def resigned(plain, signers, payload, kind=dsse.IN_TOTO):
    """``payload`` signed properly by the key, whatever it is."""
    key = keys.load_private((signers / "ed.pem").read_bytes())
    made = Envelope(
        kind, payload, (Signature(key.public.key_id, key.sign(dsse.pae(kind, payload))),)
    )
    path = plain.with_name("resigned.json")
    path.write_bytes(dsse.print_(made))
    return path


# --- sign -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ed", "p384"])
def test_openssl_verifies_what_troth_signs(plain, signers, name, tmp_path):
    made = json.loads(sign(plain, signers, names=(name,)).read_bytes())
    assert made["payloadType"] == "application/vnd.in-toto+json"
    payload = base64.b64decode(made["payload"])
    # The encoding by hand, from the DSSE document.
    data = b"DSSEv1 28 application/vnd.in-toto+json " + str(len(payload)).encode() + b" " + payload
    (tmp_path / "data").write_bytes(data)
    (signature,) = made["signatures"]
    (tmp_path / "sig").write_bytes(base64.b64decode(signature["sig"]))
    verify(signers, name, tmp_path / "data", tmp_path / "sig")
    spki = openssl("pkey", "-pubin", "-in", signers / f"{name}.pub", "-outform", "DER")
    (tmp_path / "spki").write_bytes(spki)
    found = openssl("dgst", "-sha256", "-r", tmp_path / "spki").split()[0].decode()
    assert signature["keyid"] == found


def verify(signers, name, data, signature):
    words = ["-pubin", "-inkey", signers / f"{name}.pub", "-sigfile", signature]
    if name == "ed":
        openssl("pkeyutl", "-verify", "-rawin", "-in", data, *words)
    else:
        openssl(
            "dgst", "-sha384", "-verify", signers / f"{name}.pub", "-signature", signature, data
        )


def test_what_is_signed_says_when_and_of_what(plain, signers):
    out = sign(plain, signers, "--commit", "AB" * 20, "--revoke", "1" * 96, "--revoke", "1" * 96)
    tree = json.loads(base64.b64decode(json.loads(out.read_bytes())["payload"]))
    predicate = tree["predicate"]
    assert (predicate["issued"], predicate["expires"]) == (ISSUED, EXPIRES)
    assert predicate["commit"] == "ab" * 20
    assert predicate["revoked"] == ["1" * 96]
    assert [item["name"] for item in tree["subject"]] == ["vmlinuz", "initramfs"]
    assert predicate["launch"] == json.loads(plain.read_bytes())["launch"]


def test_signing_is_deterministic_and_days_are_days(plain, signers):
    one = sign(plain, signers, "--valid-days", "92", names=("ed", "p384")).read_bytes()
    assert one == sign(plain, signers, names=("ed", "p384")).read_bytes()
    assert len(dsse.parse(one).signatures) == 2


def test_signing_again_renews_and_keeps_what_was_revoked(plain, signers, capsys):
    first = sign(plain, signers, "--revoke", "1" * 96, "--commit", "a" * 40)
    second = first.with_name("second.json")
    words = ["reference", "sign", str(first), "-o", str(second), "--key", str(signers / "p384.pem")]
    assert main([*words, "--issued", BETWEEN, "--expires", "never", "--revoke", "2" * 96]) == 0
    assert "dropped" in capsys.readouterr().err
    made = dsse.parse(second.read_bytes())
    values = reference_values_json.from_statement(made.payload)
    assert values.revoked == ("1" * 96, "2" * 96)
    assert (values.issued, values.expires, values.commit) == (BETWEEN, "never", "a" * 40)
    assert len(made.signatures) == 1


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], "reference-expiry"),
        (["--expires", EXPIRES, "--valid-days", "3"], "reference-expiry"),
        (["--expires", ISSUED], "reference-expiry"),
        (["--expires", "2026-02-01T00:00:00Z"], "reference-expiry"),
        (["--valid-days", "0"], "reference-expiry"),
        (["--valid-days", "-1"], "reference-expiry"),
        (["--valid-days", "99999999999"], "reference-expiry"),
        (["--expires", "soon"], "time-form"),
        (["--expires", "2026-06-01"], "time-form"),
        (["--valid-days", "3", "--revoke", "12"], "reference-revoke"),
        (["--valid-days", "3", "--commit", "HEAD"], "reference-commit"),
        (["--valid-days", "3", "--key", "same"], "reference-key-twice"),
        (["--valid-days", "3", "--signature", "x", "--signature", "y"], "usage"),
        (["--valid-days", "3", "--detached"], "usage"),
    ],
)
def test_signing_refused(plain, signers, capsys, more, expected):
    more = [str(signers / "ed.pem") if word == "same" else word for word in more]
    words = ["reference", "sign", str(plain), "-o", str(plain.with_name("o")), "--issued", ISSUED]
    assert error([*words, "--key", str(signers / "ed.pem"), *more], capsys, 2) == expected
    assert not plain.with_name("o").exists()


def test_signing_without_a_key_or_with_a_public_one(plain, signers, capsys):
    words = ["reference", "sign", str(plain), "-o", str(plain.with_name("o")), "--valid-days", "3"]
    assert error(words, capsys, 2) == "reference-key-missing"
    assert error([*words, "--key", str(signers / "ed.pub")], capsys, 1) == "key-kind"
    assert error([*words, "--key", "nowhere"], capsys, 2) == "key-file"


@pytest.mark.parametrize("name", ["ed", "p384"])
def test_a_key_that_lives_elsewhere(plain, signers, name, tmp_path, capsys):
    common = ["reference", "sign", str(plain), "--issued", ISSUED, "--expires", EXPIRES]
    assert main([*common, "--detached", "-o", str(tmp_path / "to-sign")]) == 0
    if name == "ed":
        openssl("pkeyutl", "-sign", "-inkey", signers / "ed.pem", "-rawin",
                "-in", tmp_path / "to-sign", "-out", tmp_path / "sig")  # fmt: skip
    else:
        openssl("dgst", "-sha384", "-sign", signers / "p384.pem", "-out", tmp_path / "sig",
                tmp_path / "to-sign")  # fmt: skip
    public = ["--key", str(signers / f"{name}.pub"), "--signature", str(tmp_path / "sig")]
    out = tmp_path / "out.json"
    assert main([*common, *public, "-o", str(out)]) == 0
    capsys.readouterr()
    assert check(out, signers, "--min-svn", "3", name=name) == 0
    # Another date is other bytes: the signature is not of them.
    common[common.index(EXPIRES)] = "2026-07-01T00:00:00Z"
    capsys.readouterr()
    words = [*common, *public, "-o", str(tmp_path / "o")]
    assert error(words, capsys, 2) == "reference-signature-foreign"


def test_a_key_elsewhere_needs_the_time_said(plain, capsys):
    words = ["reference", "sign", str(plain), "--expires", EXPIRES, "--detached", "-o", "x"]
    assert error(words, capsys, 2) == "reference-issued-missing"


# --- check ----------------------------------------------------------------------------------


def test_good_values_pass(plain, signers, capsys):
    out = sign(plain, signers, names=("p384", "ed"))
    capsys.readouterr()
    for name in ("ed", "p384"):
        assert check(out, signers, "--min-svn", "3", name=name) == 0
        verdict, checks = answer(capsys)
        assert verdict == "partial"  # no bundle was given
        assert {item["verdict"] for item in checks.values()} == {"pass", "not-checked"}
        assert checks["bundle"]["verdict"] == "not-checked"


@pytest.mark.parametrize(
    ("at", "name", "expected"),
    [
        ("2026-02-28T23:59:59Z", "issued", "reference-issued"),
        (ISSUED, "", ""),
        ("2026-05-31T23:59:59Z", "", ""),
        (EXPIRES, "expires", "reference-expired"),
        ("2030-01-01T00:00:00Z", "expires", "reference-expired"),
    ],
)
def test_dates(plain, signers, capsys, at, name, expected):
    out = sign(plain, signers)
    capsys.readouterr()
    assert check(out, signers, at=at) == (1 if name else 0)
    if name:
        assert code(capsys, name) == expected


def test_values_without_end(plain, signers, capsys):
    out = sign(plain, signers, "--expires", "never")
    capsys.readouterr()
    assert check(out, signers, at="2999-01-01T00:00:00Z") == 0
    assert "never" in answer(capsys)[1]["expires"]["detail"]


@pytest.mark.parametrize(("svn", "status"), [("2", 0), ("3", 0), ("4", 1)])
def test_svn(plain, signers, capsys, svn, status):
    out = sign(plain, signers)
    capsys.readouterr()
    assert check(out, signers, "--min-svn", svn) == status
    if status:
        assert code(capsys, "svn") == "reference-svn"


def test_revoked(plain, signers, capsys):
    out = sign(plain, signers, "--revoke", IGVM.digest.upper())
    capsys.readouterr()
    assert check(out, signers) == 0
    assert answer(capsys)[1]["revoked"]["detail"] == "1 of 2 launch digests are in force"
    out = sign(plain, signers, "--revoke", IGVM.digest, "--revoke", OVMF.digest)
    capsys.readouterr()
    assert check(out, signers) == 1
    assert code(capsys, "revoked") == "reference-revoked"


def test_nobody_has_signed(plain, signers, capsys):
    assert check(plain, signers) == 1
    assert code(capsys, "signature") == "reference-unsigned"


def test_somebody_else_has_signed(plain, signers, capsys):
    out = sign(plain, signers)
    capsys.readouterr()
    assert check(out, signers, name="other") == 1
    assert code(capsys, "signature") == "reference-key"


def test_an_altered_payload(plain, signers, capsys):
    payload = reference_values_json.to_statement(replace(SIGNED_VALUES, svn=9))
    path = envelope(plain, signers, payload=payload)
    capsys.readouterr()
    assert check(path, signers) == 1
    assert code(capsys, "signature") == "reference-signature"


def test_a_payload_that_nobody_vouches_for_is_not_read(plain, signers, capsys):
    """Were it read, this would be a FormatError instead of a finding."""
    path = envelope(plain, signers, payload=b"\xff no JSON")
    capsys.readouterr()
    assert check(path, signers) == 1
    assert code(capsys, "signature") == "reference-signature"


def test_a_keyid_decides_nothing(plain, signers, capsys):
    made = dsse.parse(sign(plain, signers).read_bytes())
    other = keys.load_public((signers / "other.pub").read_bytes()).key_id
    value = made.signatures[0].value
    path = envelope(plain, signers, signatures=(Signature(other, value),))
    capsys.readouterr()
    assert check(path, signers) == 0  # named wrongly, signed rightly
    capsys.readouterr()
    assert check(path, signers, name="other") == 1
    assert code(capsys, "signature") == "reference-signature"
    path = envelope(plain, signers, signatures=(Signature("", b"x"), Signature("", value)))
    capsys.readouterr()
    assert check(path, signers) == 0


def test_a_signature_over_another_type_is_none(plain, signers, capsys):
    """The type is part of what is signed: values signed as something else are not these."""
    key = keys.load_private((signers / "ed.pem").read_bytes())
    payload = reference_values_json.to_statement(SIGNED_VALUES)
    signature = Signature(key.public.key_id, key.sign(dsse.pae("text/plain", payload)))
    path = envelope(plain, signers, payload=payload, signatures=(signature,))
    capsys.readouterr()
    assert check(path, signers) == 1
    assert code(capsys, "signature") == "reference-signature"


@pytest.mark.parametrize(
    ("payload", "kind", "expected"),
    [
        (b"{}", "text/plain", "dsse-payload-type"),
        (b"{}", dsse.IN_TOTO, "json-missing"),
        (b"", dsse.IN_TOTO, "json-syntax"),
        (reference_values_json.print_(SIGNED_VALUES), dsse.IN_TOTO, "json-missing"),
        (reference_values_json.to_statement(VALUES), dsse.IN_TOTO, "reference-dates"),
        (
            reference_values_json.to_statement(SIGNED_VALUES).replace(b"urn:troth", b"urn:other"),
            dsse.IN_TOTO,
            "statement-predicate",
        ),
        (
            reference_values_json.to_statement(SIGNED_VALUES).replace(
                b'"predicate":', b'"predicate":{},"predicate":'
            ),
            dsse.IN_TOTO,
            "json-duplicate",
        ),
        (
            reference_values_json.to_statement(SIGNED_VALUES).replace(b"Statement/v1", b"Link/v1"),
            dsse.IN_TOTO,
            "statement-type",
        ),
        (
            reference_values_json.to_statement(SIGNED_VALUES).replace(
                b'"subject":[{"digest":{"sha256":"1', b'"subject":[{"digest":{"sha256":"0'
            ),
            dsse.IN_TOTO,
            "statement-subject",
        ),
    ],
)
def test_odd_things_signed_by_the_right_key(plain, signers, capsys, payload, kind, expected):
    path = resigned(plain, signers, payload, kind)
    words = ["reference", "check", str(path), "--key", str(signers / "ed.pub"), "--at", BETWEEN]
    assert error(words, capsys, 1) == expected


def test_whom_to_believe_must_be_said(plain, signers, capsys):
    out = sign(plain, signers)
    for verb in ("check", "export"):
        capsys.readouterr()
        assert error(["reference", verb, str(out)], capsys, 2) == "reference-key-missing"
    assert error(["reference", "check", "x", "--allow-unsigned"], capsys, 2) == "reference-file"
    words = ["reference", "check", str(out), "--key", str(signers / "ed.pem")]
    assert error(words, capsys, 1) == "key-kind"
    words = ["reference", "check", str(out), "--key", str(signers / "ed.pub"), "--at", "now"]
    assert error(words, capsys, 2) == "time-form"


def test_unsigned_values_allowed_by_name_are_never_a_pass(plain, signers, capsys):
    assert check(plain, signers, "--allow-unsigned", "--min-svn", "3", name="") == 0
    verdict, checks = answer(capsys)
    assert verdict == "partial"
    assert checks["signature"]["verdict"] == "not-checked"
    out = sign(plain, signers)
    capsys.readouterr()
    # A key that is given counts, whatever else is allowed.
    assert check(out, signers, "--allow-unsigned", name="other") == 1
    assert code(capsys, "signature") == "reference-key"


def test_the_page_describes_the_answer(plain, signers, capsys):
    out = sign(plain, signers)
    capsys.readouterr()
    assert check(out, signers) == 0
    tree = json.loads(capsys.readouterr().out)
    page = (Path(__file__).parents[2] / "docs/formats.md").read_text("utf-8")
    section = page.split("## troth reference check --json\n")[1].split("\n## ")[0]
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    described = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert described == {*tree, *(f"checks[].{name}" for name in tree["checks"][0])} - {"checks"}
    assert f"`{tree['schema']}`" in section


def test_lines_for_people(plain, signers, capsys):
    out = sign(plain, signers)
    capsys.readouterr()
    words = ["reference", "check", str(out), "--key", str(signers / "other.pub"), "--at", BETWEEN]
    assert main(words) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "fail        signature [reference-key]: none of the given keys has signed this"
    )
    assert lines[-1] == "verdict: fail"


def test_a_minimum_below_all_numbers_is_a_mistake(plain, signers, capsys):
    assert check(sign(plain, signers), signers, "--min-svn", "-1") == 2
    assert "--min-svn -1" in capsys.readouterr().err


def test_everything_passes(tmp_path, signers, capsys):
    """A verdict of pass needs every check, the bundle and all."""
    folder = tmp_path / "out"
    launch = 'memory = "128M"'
    values = replace(made_bundle.make(folder, image="igvm = true", launch=launch), inputs=())
    (folder / "reference-values.json").write_bytes(reference_values_json.print_(values))
    out = sign(folder / "reference-values.json", signers)
    capsys.readouterr()
    assert check(out, signers, "--bundle", str(folder), "--min-svn", "1") == 0
    assert answer(capsys)[0] == "pass"
    (folder / "vmlinuz").write_bytes(b"")
    assert check(out, signers, "--bundle", str(folder), "--min-svn", "1") == 1
    assert answer(capsys)[1]["file vmlinuz"]["code"] == "reference-differs"


def test_a_bundle_directory_stands_for_its_file(tmp_path, capsys):
    made_bundle.make(tmp_path / "out")
    assert main(["reference", "show", str(tmp_path / "out")]) == 0
    assert "launch digests: none" in capsys.readouterr().out


# --- show and export ------------------------------------------------------------------------


def test_show(plain, signers, capsys):
    out = sign(plain, signers, "--revoke", OVMF.digest, "--revoke", "1" * 96)
    capsys.readouterr()
    assert main(["reference", "show", str(out)]) == 0
    text = capsys.readouterr().out
    for words in (
        "demo, svn 3",
        "not verified here",
        f"from {ISSUED}, expires {EXPIRES}",
        f"{IGVM.digest}\n",
        f"{OVMF.digest}  REVOKED",
        "revoked     " + "1" * 96,
        "EPYC-v4/EPYC (0x800f12)",
        "roots the boot chain",
        "experimental: never launched",
        "cryptomgr.notests",
        "acpi_aml = unprotected",
    ):
        assert words in text, words


def test_show_names_what_takes_protection_away(tmp_path, capsys):
    open_ = replace(IGVM, policy=0xB0000, covers=("kernel",))
    flags = replace(
        VALUES.flags, cryptomgr_notests=False, acpi_aml="off", modules_disabled=True,
        overlay="none", overlay_paths=(), unauthenticated_volumes=("data",), io_error="survivable",
        unsigned_modules=True, untracked_volumes=("old",),
    )  # fmt: skip
    path = tmp_path / "x"
    path.write_bytes(reference_values_json.print_(replace(VALUES, launch=(open_,), flags=flags)))
    assert main(["reference", "show", str(path)]) == 0
    text = capsys.readouterr().out
    for words in ("DEBUG", "does NOT root", "volume data is not authenticated", "survivable",
                  "volume old is not counted",
                  "unsigned_modules", "nobody vouches"):  # fmt: skip
        assert words in text, words
    assert "notests" not in text


def test_show_lets_no_control_character_out(tmp_path, capsys):
    path = tmp_path / "x"
    path.write_bytes(reference_values_json.print_(replace(VALUES, image_name="a\x1b[2Jb\n")))
    assert main(["reference", "show", str(path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_show_json(plain, signers, capsys):
    out = sign(plain, signers)
    capsys.readouterr()
    assert main(["reference", "show", str(out), "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["verified"] is False
    assert len(tree["signatures"]) == 1
    assert tree["values"]["image_name"] == "demo"


def test_export(plain, signers, capsys, tmp_path):
    out = sign(plain, signers, "--revoke", OVMF.digest)
    capsys.readouterr()
    words = ["reference", "export", str(out), "--key", str(signers / "ed.pub"), "--at", BETWEEN]
    assert main(words) == 0
    said = capsys.readouterr()
    tree = json.loads(said.out)
    assert (tree["version"], tree["type"]) == ("0.1.0", "sample")
    payload = json.loads(base64.b64decode(tree["payload"], validate=True))
    raw = bytes.fromhex(IGVM.digest)
    assert payload == {"snp_launch_measurement": [IGVM.digest, base64.b64encode(raw).decode()]}
    for word in ("svn 3", EXPIRES, "flags", "0x30000", "revoked", "Genoa", "never launched"):
        assert word in said.err, word
    assert main([*words, "-o", str(tmp_path / "message")]) == 0
    assert (tmp_path / "message").read_text() == said.out
    before = out.read_bytes()
    (tmp_path / "link").symlink_to(out)
    for name in (out, tmp_path / "link", signers / "ed.pub"):
        assert main([*words, "-o", str(name)]) == 2
        assert "[output-file]" in capsys.readouterr().err
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--at", "2030-01-01T00:00:00Z"], "reference-expired"),
        (["--at", "2020-01-01T00:00:00Z"], "reference-issued"),
    ],
)
def test_nothing_out_of_force_is_exported(plain, signers, capsys, more, expected):
    out = sign(plain, signers)
    capsys.readouterr()
    words = ["reference", "export", str(out), "--key", str(signers / "ed.pub"), *more]
    assert main(words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert expected in said.err
    words[words.index(str(signers / "ed.pub"))] = str(signers / "other.pub")
    assert main(words) == 1
    assert "reference-key" in capsys.readouterr().err


def test_export_without_signature_says_so(plain, capsys):
    assert main(["reference", "export", str(plain), "--allow-unsigned"]) == 0
    assert "without a verified signature" in capsys.readouterr().err


def test_nothing_to_export(plain, signers, capsys):
    plain.write_bytes(reference_values_json.print_(replace(VALUES, launch=())))
    words = ["reference", "export", str(plain), "--allow-unsigned"]
    assert error(words, capsys, 2) == "reference-empty"


def test_losses_name_digests_that_do_not_root_the_boot_chain():
    bare = replace(VALUES, launch=(replace(IGVM, covers=()),))
    assert any("do not cover" in text for text in rvps.losses(bare))
    assert not any("do not cover" in text for text in rvps.losses(VALUES))


def test_one_key_counts_once(signers):
    key = keys.load_private((signers / "ed.pem").read_bytes())
    made = reference.sign(SIGNED_VALUES, [key])
    twice = replace(made, signatures=made.signatures * 2)
    assert reference.signers(twice, [key.public]) == (key.public,)

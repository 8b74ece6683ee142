# SPDX-License-Identifier: Apache-2.0
"""The keys and certificates of a simulated platform, against AMD's tables and openssl."""

import json
import os
import re
import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

import made_pki
from made_platform import issuer_keys, platform
from troth.abi import cert_table, vek_extensions
from troth.errors import FormatError, HostError
from troth.record import replace
from troth.signing import certificates, keys, revocation_lists
from troth.signing.issuing import IssuerKey
from troth.simulated import chip as chips
from troth.simulated import pki as pkis
from troth.verify.endorsing.roots import AMD_ROOTS

LINES = ("Milan", "Genoa", "Turin")


def chain(pki, signer):
    return tuple(certificates.load(der) for der in (signer.certificate, signer.issuer, pki.root))


@pytest.fixture
def kept(tmp_path):
    folder = tmp_path / "b.sim"
    pkis.kept_in(folder, lambda: platform("Turin", vlek=True))
    return folder


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("vlek", [False, True])
def test_the_chain_is_linked_named_and_marked(line, vlek):
    pki = platform(line, vlek=True)
    signer = pki.vlek if vlek else pki.vcek
    key, middle, root = chain(pki, signer)
    assert certificates.issued_by(key, middle)
    assert certificates.issued_by(middle, root)
    assert certificates.issued_by(root, root)
    names = ("SEV-VLEK", f"SEV-VLEK-{line}") if vlek else ("SEV-VCEK", f"SEV-{line}")
    assert (key.subject_cn, middle.subject_cn, root.subject_cn) == (*names, f"ARK-{line}")
    assert key.serial == 0
    assert (key.is_ca, key.key, middle.key, root.key) == (False, "ec-p384", "rsa-4096", "rsa-4096")
    assert (middle.path_length, root.path_length) == (0, None)
    assert (middle.may_sign_lists, root.may_sign_lists) == (False, True)
    for item in (key, middle, root):
        assert item.simulated
        assert b"SIMULATED" in item.subject
        assert b"SIMULATED" in item.issuer
        assert b"Advanced Micro" not in item.der
        assert item.critical == ()
        assert item.signed_with_pss
    assert pki.root_sha256 == root.sha256 not in AMD_ROOTS.values()
    revoked = revocation_lists.load(pki.revocation_list)
    assert revocation_lists.list_problem(revoked, root) == ""
    assert revoked.serials == frozenset()


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("vlek", [False, True])
def test_extensions_are_amds(line, vlek):
    pki = platform(line, vlek=True)
    found = chain(pki, pki.vlek if vlek else pki.vcek)[0].extensions
    raw = pki.chip.tcb
    places = (1, 2, 3, 7) if line == "Turin" else (0, 1, 6, 7)
    levels = dict(zip(("1", "2", "3", "8"), (raw[at] for at in places), strict=True))
    if line == "Turin":
        levels["9"] = raw[0]
    chip = pki.chip.chip_id[:8] if line == "Turin" else pki.chip.chip_id
    csp = {"5": made_pki.ia5(pkis.CSP_ID)} if vlek else {}
    if line == "Genoa":
        csp["2"] = made_pki.ia5("Genoa")  # as AMD writes it: without a stepping
    wanted = made_pki.vek_extensions(line, vlek=vlek, levels=levels, chip=chip, change=csp)
    mark = {made_pki.SIMULATED: b"\x0c\x09SIMULATED"}
    assert dict(found) == {oid: value for oid, value, _ in wanted} | mark
    said = vek_extensions.parse(found)
    assert said.hwid == (None if vlek else chip)


def test_each_platform_is_of_its_own():
    one, two = (pkis.make(chips.new("Genoa"), issuer_key=issuer_keys()) for _ in range(2))
    assert one.root_sha256 == two.root_sha256 or one.root != two.root
    assert one.chip.chip_id != two.chip.chip_id
    assert one.chip.secret != two.chip.secret
    assert one.vcek.key_pem != two.vcek.key_pem
    assert one.vcek.key().public == keys.load_public(chain(one, one.vcek)[0].spki)


def test_real_keys_of_issuers_are_new_each_time():
    first = IssuerKey.generate()
    made = pkis.make(chips.new("Genoa"), issuer_key=lambda: first)
    key, middle, root = chain(made, made.vcek)
    assert certificates.issued_by(key, middle)
    other = chain(platform(), platform().vcek)[2]
    assert root.spki != other.spki
    assert root.key == "rsa-4096"
    assert middle.spki == root.spki


def test_validity():
    at = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    pki = pkis.make(chips.new("Genoa"), at=at, issuer_key=issuer_keys())
    key, middle, root = chain(pki, pki.vcek)
    for item in (key, middle, root):
        assert not item.valid_at(at - timedelta(days=2))
        assert item.valid_at(at)
    assert not key.valid_at(at + timedelta(days=8 * 365))
    assert root.valid_at(at + timedelta(days=24 * 365))


@pytest.mark.tool
def test_openssl_reads_it_and_refuses_its_critical_extension(kept):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    certs = kept / "certs"

    def verify(*words):
        command = ["openssl", "verify", "-CAfile", certs / "ark.pem", "-untrusted"]
        done = subprocess.run(
            [*command, certs / "ask.pem", *words, certs / "vcek.pem"],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    status, text = verify()
    assert status != 0
    assert "unhandled critical extension" in text
    # Told to look away from that one, it has nothing to say against the signatures.
    assert verify("-ignore_critical") == (0, f"{certs}/vcek.pem: OK\n")
    words = ["openssl", "crl", "-inform", "der", "-noout", "-in", certs / "crl.der"]
    listed = subprocess.run(
        [*words, "-CAfile", certs / "ark.pem"], capture_output=True, text=True, check=True
    )
    assert "verify OK" in listed.stdout + listed.stderr


def test_what_is_kept(kept):
    names = sorted(str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file())
    certs = ("ark.pem", "ask.pem", "asvk.pem", "crl.der", "vcek.pem", "vlek.pem")
    own = ("chip.json", "root-sha256", "vcek.key", "vlek.key")
    assert names == sorted([*(f"certs/{name}" for name in certs), *own])
    for name in ("chip.json", "vcek.key", "vlek.key"):
        assert stat.S_IMODE((kept / name).stat().st_mode) == 0o600
    everything = b"".join(path.read_bytes() for path in kept.rglob("*") if path.is_file())
    assert everything.count(b"PRIVATE KEY-----\n") == 4  # begin and end of two P-384 keys
    assert platform("Turin", vlek=True).root_sha256 == (kept / "root-sha256").read_text().strip()
    assert pkis.kept_in(kept, lambda: pytest.fail("made again")) == platform("Turin", vlek=True)
    assert not [path for path in kept.parent.iterdir() if path != kept]


def test_nothing_secret_is_shown():
    pki = platform("Turin", vlek=True)
    text = repr(pki)
    assert pki.chip.secret.hex() not in text
    assert "PRIVATE" not in text
    assert re.search(r"secret|key_pem", text) is None


def change_json(**fields):
    def change(folder):
        tree = json.loads((folder / "chip.json").read_text())
        tree.update(fields)
        (folder / "chip.json").write_text(json.dumps(tree))

    return change


def swap(name, other):
    return lambda folder: (folder / name).write_bytes((folder / other).read_bytes())


def amd_like(folder):
    made = made_pki.Pki("Turin")
    (folder / "certs/ark.pem").write_bytes(made.ark)


@pytest.mark.parametrize(
    "change",
    [
        change_json(product="Venice"),
        change_json(product="Milan"),
        change_json(stepping=16),
        change_json(chip_id="00" * 63),
        change_json(chip_id="01" * 64),
        change_json(tcb="ff" * 8),
        change_json(secret="00"),
        change_json(more=1),
        change_json(schema="troth-simulated-chip-v2"),
        lambda folder: (folder / "chip.json").write_bytes(b"\xff"),
        lambda folder: (folder / "vcek.key").write_bytes(b"no key"),
        swap("vcek.key", "vlek.key"),
        swap("certs/vcek.pem", "certs/ask.pem"),
        lambda folder: (folder / "certs/ark.pem").write_bytes(b""),
        lambda folder: (folder / "certs/ask.pem").write_bytes(
            2 * (folder / "certs/ask.pem").read_bytes()
        ),
        amd_like,
    ],
)
def test_what_is_not_a_simulated_platforms_is_refused(kept, change):
    change(kept)
    with pytest.raises(FormatError) as caught:
        pkis.load(kept)
    assert caught.value.code == "sim-pki"
    assert caught.value.hint


@pytest.mark.parametrize("name", ["chip.json", "vcek.key", "certs/ask.pem", "certs/crl.der"])
def test_what_is_missing_is_named(kept, name):
    (kept / name).unlink()
    with pytest.raises(HostError) as caught:
        pkis.load(kept)
    assert caught.value.code == "sim-pki-directory"
    assert caught.value.where.endswith(name)


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(HostError) as caught:
        pkis.kept_in(tmp_path / "none" / "b.sim", platform)
    assert caught.value.code == "sim-pki-directory"


def test_two_first_runs_at_once_agree(tmp_path):
    """The one that is second finds what the first has put there meanwhile."""
    folder = tmp_path / "b.sim"
    made = pkis.make(chips.new("Genoa"), issuer_key=issuer_keys())

    def slow():
        pkis.kept_in(folder, lambda: made)
        return platform()

    assert pkis.kept_in(folder, slow) == made
    assert os.listdir(tmp_path) == ["b.sim"]


def test_chips():
    with pytest.raises(FormatError) as caught:
        chips.new("Venice")
    assert caught.value.code == "sim-chip"
    for line, eax in (("Milan", 0x00A00F11), ("Genoa", 0x00A10F11), ("Turin", 0x00B00F21)):
        assert chips.new(line).cpuid_eax == eax
    with pytest.raises(FormatError):
        replace(platform().chip, model=0x01)
    with pytest.raises(FormatError):
        replace(platform().chip, stepping=16)


def test_the_hosts_table():
    pki = platform("Genoa", vlek=True)
    entries = cert_table.parse(pki.table())
    assert [item.name for item in entries] == ["vcek", "ask", "ark"]
    assert [item.blob for item in entries] == [pki.vcek.certificate, pki.vcek.issuer, pki.root]
    assert [item.name for item in cert_table.parse(pki.table(vlek=True))] == ["vlek", "ask", "ark"]
    with pytest.raises(FormatError):
        platform("Milan").table(vlek=True)

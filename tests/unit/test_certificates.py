# SPDX-License-Identifier: Apache-2.0
"""Certificates and revocation lists: AMD's own, and ones made wrong on purpose."""

import subprocess
import warnings
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

import made_rsa
from fuzz import certificates as fuzzed
from made_pki import AMD, NOW, PSS, Pki, certificate, made, pem, vek_extensions, vek_key
from made_report import VECTORS, vectors
from troth.abi import vek_extensions as vek
from troth.errors import FormatError
from troth.signing import certificate_files, certificates, revocation_lists

PINS = {
    "milan": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    "genoa": "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    "turin": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
}
SERIALS = {"milan": 0x10000, "genoa": 0x20000, "turin": 0x30000}
PKI = Pki("Genoa")


def refused(data, code, read=certificate_files.load_any):
    with pytest.raises(FormatError) as caught:
        read(data, where="f")
    assert caught.value.code == code
    assert caught.value.where == "f"


def loaded(pki=PKI):
    return tuple(certificates.load(der) for der in (pki.ark, pki.ca, pki.vek))


# --- AMD's own ----------------------------------------------------------------------------


@pytest.mark.vectors
@pytest.mark.parametrize("line", sorted(PINS))
def test_amd_chains(line):
    vectors()
    folder = VECTORS / "certs" / line
    ask, ark = certificate_files.load_many((folder / "ask_ark.pem").read_bytes())
    asvk, again = certificate_files.load_many((folder / "asvk_ark.pem").read_bytes())
    assert ark == again == certificate_files.load_many((folder / "ark.pem").read_bytes())[0]
    assert ark.sha256 == PINS[line]
    name = line.capitalize()
    assert ark.subject_cn == ark.issuer_cn == f"ARK-{name}"
    assert (ask.subject_cn, asvk.subject_cn) == (f"SEV-{name}", f"SEV-VLEK-{name}")
    assert ark.self_issued
    assert not ask.self_issued
    assert ark.serial == SERIALS[line]
    assert {item.key for item in (ark, ask, asvk)} == {"rsa-4096"}
    assert ark.may_sign_lists
    assert not ask.may_sign_lists
    assert ask.path_length == asvk.path_length == 0
    for child in (ark, ask, asvk):
        assert certificates.issue_problem(child, ark) == ""
        assert certificates.issued_by(child, ark)
        assert not certificates.issued_by(child, ask)
        assert not child.simulated


@pytest.mark.vectors
def test_amd_report_keys():
    for entry in vectors()["vectors"]:
        data = (VECTORS / f"{entry['id']}.vek.der").read_bytes()
        (read,) = certificate_files.load_many(data)
        folder = VECTORS / "certs" / entry["product"]
        issuer = certificate_files.load_many(
            (folder / f"{entry['intermediate']}_ark.pem").read_bytes()
        )[0]
        assert certificates.issue_problem(read, issuer) == ""
        assert read.key == "ec-p384"
        assert read.serial == entry["cert_serial"]
        assert str(read.not_before) == entry["cert_not_before"]
        assert str(read.not_after) == entry["cert_not_after"]
        said = vek.parse(read.extensions)
        assert said.product_name == entry["cert_product_name"]
        assert said.struct_version == entry["cert_struct_version"]
        assert said.csp_id == entry["cert_csp_id"]
        assert (said.hwid and len(said.hwid)) == entry["cert_hwid_len"]
        assert not read.is_ca
        assert read.critical == ()


# --- what is read -------------------------------------------------------------------------


def test_fields():
    ark, ca, key = loaded()
    assert (ark.subject_cn, ca.subject_cn, key.subject_cn) == (
        "ARK-Genoa",
        "SEV-Genoa",
        "SEV-VCEK",
    )
    assert key.issuer == ca.subject
    assert key.serial == 0
    assert ca.not_after == NOW + timedelta(days=365 * 7)
    assert key.extensions == {oid: raw for oid, raw, _ in vek_extensions("Genoa")}
    assert "SEV-VCEK" in repr(key)


def test_times_include_both_ends():
    _, _, key = loaded()
    second = timedelta(seconds=1)
    assert key.valid_at(key.not_before)
    assert key.valid_at(key.not_after)
    assert not key.valid_at(key.not_before - second)
    assert not key.valid_at(key.not_after + second)


def test_a_zero_serial_warns_nobody_and_other_filters_stay():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        certificates.load(PKI.vek)
        assert caught == []
        warnings.warn("still heard", stacklevel=1)
        assert len(caught) == 1


def test_hostile_names_say_nothing_on_the_terminal():
    country, locality = b"\x55\x04\x06", b"\x55\x04\x07"
    for der, read in ((PKI.vek, certificates.load), (PKI.revoked(7), revocation_lists.load)):
        assert locality in der
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read(der.replace(locality, country))
        assert caught == []


def test_long_and_unprintable_names_are_no_names():
    for subject in ("x" * 65, "a\x1b[2Jb"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attribute = x509.NameAttribute(NameOID.COMMON_NAME, subject, _validate=False)
        assert certificates.common_name(x509.Name([attribute])) == ""
    twice = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in "ab"])
    assert certificates.common_name(twice) == ""


def test_pem_with_text_around():
    text = b"Certificate:\n    Data: - -- ---\n\n" + pem(PKI.ca) + b"\nnext\n" + pem(PKI.ark)
    for data in (text, text.replace(b"\n", b"\r\n"), text.rstrip(b"\n")):
        found = certificate_files.load_any(data)
        assert [item.der for item in found.certificates] == [PKI.ca, PKI.ark]
        assert found.lists == ()


def test_lists_beside_certificates():
    der = PKI.revoked(5, 7)
    found = certificate_files.load_any(pem(PKI.ark) + pem(der, label="X509 CRL"))
    assert [item.der for item in found.lists] == [der]
    assert certificate_files.load_any(der) == certificate_files.Found((), found.lists)
    assert found.lists[0].serials == {5, 7}
    assert found.lists[0].this_update == NOW - timedelta(days=1)
    assert found.lists[0].next_update == NOW + timedelta(days=30)
    refused(der, "cert-format", certificate_files.load_many)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "cert-format"),
        (b"hello", "cert-format"),
        (PKI.vek + b"\0", "cert-format"),
        (PKI.vek + PKI.ca, "cert-format"),
        (PKI.vek[:-1], "cert-format"),
        (bytes((1 << 20) + 1), "cert-size"),
        (pem(PKI.vek)[:-30], "cert-pem"),
        (pem(PKI.vek).replace(b"END CERT", b"END SERT"), "cert-pem"),
        (pem(PKI.vek).replace(b"\nMII", b"\n!II"), "cert-pem"),
        (pem(PKI.vek).replace(b"\nMII", b"\nMI"), "cert-pem"),
        (pem(PKI.vek, label="PRIVATE KEY"), "cert-pem"),
        (pem(PKI.vek, label="X509 CRL"), "cert-format"),
        (pem(*[PKI.vek] * 65), "cert-pem"),
        (pem(b""), "cert-format"),
        (b"-----BEGIN " * 50000, "cert-pem"),
    ],
)
def test_refused_files(data, code):
    refused(data, code)


def test_sizes_of_single_ones():
    big = bytes((1 << 20) + 1)
    refused(big, "cert-size", certificates.load)
    refused(big, "cert-size", revocation_lists.load)


def test_a_key_that_is_no_point():
    der = PKI.vek
    numbers = vek_key().public_key().public_numbers()
    at = der.index(numbers.y.to_bytes(48, "big"))
    broken = der[: at + 47] + bytes([der[at + 47] ^ 1]) + der[at + 48 :]
    refused(broken, "cert-key")


def test_extensions_twice():
    more = (*vek_extensions("Genoa"), (AMD + "9", b"\x05\x00", False))
    der = certificate(
        "SEV-VCEK", "SEV-Genoa", vek_key(), made_rsa.intermediate(), ca=False, extensions=more
    )
    oid = bytes.fromhex("06092b060104019c780109")
    assert der.count(oid) == 1
    assert certificates.load(der).extensions[AMD + "9"] == b"\x05\x00"
    refused(der.replace(oid, oid[:-1] + b"\x02"), "cert-format")


@pytest.mark.tool
def test_openssl_agrees_about_the_made_chain(tmp_path):
    """The made hierarchy is genuine X.509, so what fails above fails for what was made wrong."""
    (tmp_path / "ark.pem").write_bytes(pem(PKI.ark))
    (tmp_path / "ca.pem").write_bytes(pem(PKI.ca))
    (tmp_path / "vek.pem").write_bytes(pem(PKI.vek))
    command = ["openssl", "verify", "-attime", str(int(NOW.timestamp())), "-CAfile", "ark.pem"]
    done = subprocess.run(
        [*command, "-untrusted", "ca.pem", "vek.pem"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "vek.pem: OK\n", done.stderr


# --- one link -----------------------------------------------------------------------------


def test_a_made_chain_holds():
    ark, ca, key = loaded()
    assert [certificates.issue_problem(*pair) for pair in ((ark, ark), (ca, ark), (key, ca))] == [
        "",
        "",
        "",
    ]


def mgf(digest):
    return padding.MGF1(digest)


LINKS = [
    ("ca", {"pad": padding.PSS(mgf(hashes.SHA384()), 32)}, "RSASSA-PSS"),
    ("ca", {"pad": padding.PSS(mgf(hashes.SHA256()), 48)}, "RSASSA-PSS"),
    ("ca", {"pad": PSS, "digest": hashes.SHA256()}, "RSASSA-PSS"),
    ("ca", {"pad": PSS, "digest": hashes.SHA512()}, "RSASSA-PSS"),
    ("ca", {"pad": padding.PKCS1v15()}, "RSASSA-PSS"),
    ("ca", {"signer": made_rsa.intermediate()}, "signature is not that"),
    ("ca", {"issuer": "ARK-Milan"}, "issuer is 'ARK-Milan'"),
    ("ark", {"ca": False}, "may not issue"),
    ("ark", {"usage": False}, "may not issue"),
    ("ca", {"extensions": (("1.2.3.4", b"\x05\x00", True),)}, "critical extension"),
    ("ark", {"path_length": 0}, "other issuers"),
]


@pytest.mark.parametrize(("which", "changes", "said"), LINKS)
def test_links_that_do_not_hold(which, changes, said):
    ark, ca, _ = loaded(Pki("Genoa", **{which: changes}))
    problem = certificates.issue_problem(ca, ark)
    assert said in problem
    assert not certificates.issued_by(ca, ark)


def test_the_public_exponent_and_size_do_not_make_a_root():
    small = rsa.generate_private_key(65537, 2048)
    ark = certificates.load(made("ARK-Genoa", "ARK-Genoa", small, small, {"sign_lists": True}))
    assert ark.key == "rsa-2048"
    assert "rsa-2048" in certificates.issue_problem(ark, ark)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (ec.derive_private_key(7, ec.SECP256R1()), "ec-secp256r1"),
        (ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)), "Ed25519PublicKey"),
    ],
)
def test_other_keys_have_names(key, name):
    der = certificate("SEV-VCEK", "SEV-Genoa", key, made_rsa.intermediate(), ca=False)
    assert certificates.load(der).key == name


def test_each_flipped_byte_of_the_signed_part_is_seen():
    ark, ca, _ = loaded()
    start = ca.der.index(ca.tbs)
    for at in range(start, start + len(ca.tbs), 7):
        broken = ca.der[:at] + bytes([ca.der[at] ^ 0x10]) + ca.der[at + 1 :]
        try:
            changed = certificates.load(broken)
        except FormatError:
            continue
        assert not certificates.issued_by(changed, ark), at


def test_the_mark_of_a_simulated_platform():
    for item in loaded(Pki("Genoa", simulated=True)):
        assert item.simulated
        assert item.critical == ()
    assert not any(item.simulated for item in loaded())


# --- lists --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"signer": made_rsa.intermediate()}, "signature is not that"),
        ({"issuer": "ARK-Milan"}, "issuer is 'ARK-Milan'"),
        ({"pad": padding.PSS(mgf(hashes.SHA384()), 20)}, "RSASSA-PSS"),
        ({"critical": ("1.2.3.4",)}, "critical extensions"),
    ],
)
def test_who_signed_a_list(changes, said):
    ark, _, _ = loaded()
    problem = revocation_lists.list_problem(revocation_lists.load(PKI.revoked(9, **changes)), ark)
    assert (said in problem) if said else problem == ""


def test_only_keys_that_may_sign_lists():
    ark, _, _ = loaded(Pki("Genoa", ark={"sign_lists": False}))
    assert "may not sign" in revocation_lists.list_problem(
        revocation_lists.load(PKI.revoked(9)), ark
    )


# --- arbitrary bytes ----------------------------------------------------------------------


@given(st.binary(max_size=400))
def test_arbitrary_bytes(data):
    fuzzed.fuzz(data)


@settings(max_examples=60)
@given(st.sampled_from(fuzzed.SEEDS), st.integers(0, 1900), st.binary(min_size=1, max_size=4))
def test_mutants(seed, at, change):
    fuzzed.fuzz(seed[:at] + change + seed[at + len(change) :])

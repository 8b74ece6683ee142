# SPDX-License-Identifier: Apache-2.0
"""A key hierarchy in AMD's form, made by tests: ARK, ASK and ASVK, VCEK and VLEK, lists.

Every part can be made wrong on purpose. Written after the tables of AMD 57230,
not after the reader under test; DER values of extensions are spelled out here.
"""

import base64
import contextlib
import textwrap
import warnings
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.x509.oid import NameOID

import made_report
import made_rsa

NOW = datetime(2026, 6, 1, tzinfo=UTC)
AMD = "1.3.6.1.4.1.3704.1."
SIMULATED = "2.25.232939156098789833683138068389111997011"
PSS = padding.PSS(padding.MGF1(hashes.SHA384()), salt_length=48)
CHIP = bytes(range(1, 65))
TURIN_CHIP = bytes(range(1, 9))

#: line -> (family, model), reported TCB, levels of the certificate
LINES = {
    "Milan": ((0x19, 0x01), "04000000000018db", {"1": 4, "2": 0, "3": 0x18, "8": 0xDB}),
    "Genoa": ((0x19, 0x11), "0a00000000001b54", {"1": 10, "2": 0, "3": 0x1B, "8": 0x54}),
    "Turin": ((0x1A, 0x02), "0102030400000051", {"9": 1, "1": 2, "2": 3, "3": 4, "8": 0x51}),
}


@cache
def vek_key(number=1):
    """A P-384 key that is the same in every run."""
    return ec.derive_private_key(0x5EED0000 + number, ec.SECP384R1())


def name(common_name, organization="Advanced Micro Devices"):
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def certificate(
    subject,
    issuer,
    key,
    signer,
    *,
    serial=0x20000,
    ca=True,
    path_length=None,
    sign_lists=False,
    usage=True,
    days=(-100, 365 * 7),
    extensions=(),
    simulated=False,
    pad=PSS,
    digest=None,
):
    """DER of a certificate; ``extensions``: (oid, raw value, critical)."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(serial or 1)
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
    )
    if ca:
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=path_length), critical=True
        )
        if usage:
            flags = dict.fromkeys(
                (
                    "digital_signature",
                    "content_commitment",
                    "key_encipherment",
                    "data_encipherment",
                    "key_agreement",
                    "encipher_only",
                    "decipher_only",
                ),
                False,
            )
            builder = builder.add_extension(
                x509.KeyUsage(**flags, key_cert_sign=True, crl_sign=sign_lists), critical=True
            )
    if simulated:
        extensions = (*extensions, (SIMULATED, b"\x0c\x09SIMULATED", True))
    for oid, raw, critical in extensions:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), raw), critical=critical
        )
    made = builder.sign(signer, digest or hashes.SHA384(), rsa_padding=pad)
    if serial:
        return made.public_bytes(serialization.Encoding.DER)
    return _with_serial_zero(made, signer, pad)


def _with_serial_zero(made, signer, pad):
    """The same certificate with the serial number 0, which the builder refuses and AMD uses."""
    tbs = made.tbs_certificate_bytes
    at = tbs.index(b"\xa0\x03\x02\x01\x02") + 5
    assert tbs[at : at + 3] == b"\x02\x01\x01"
    tbs = tbs[: at + 2] + b"\x00" + tbs[at + 3 :]
    signature = signer.sign(tbs, pad, hashes.SHA384())
    der = made.public_bytes(serialization.Encoding.DER)
    start = der.index(made.tbs_certificate_bytes)
    middle = der[start + len(tbs) : -len(signature)]
    return der[:start] + tbs + middle + signature


def integer(value):
    """DER of a small INTEGER, as AMD writes it: 02 02 00 db above 0x7f."""
    return b"\x02\x01" + bytes([value]) if value < 0x80 else b"\x02\x02\x00" + bytes([value])


def ia5(text):
    return b"\x16" + bytes([len(text)]) + text.encode()


def vek_extensions(line, *, vlek=False, levels=None, chip=None, change=None):
    """(oid, raw, critical) of a VEK; ``change``: oid below AMD's -> raw, None leaves it out."""
    turin = line == "Turin"
    found = {"1": integer(1 if turin else 0), "2": ia5(line if vlek or turin else f"{line}-B0")}
    for number, level in (LINES[line][2] | (levels or {})).items():
        found[f"3.{number}"] = integer(level)
    for number in ("5", "6", "7") if turin else ("4", "5", "6", "7"):
        found[f"3.{number}"] = integer(0)
    if vlek:
        found["5"] = ia5("CN=cloud.example")
    else:
        found["4"] = chip if chip is not None else TURIN_CHIP if turin else CHIP
    found.update(change or {})
    return tuple((AMD + oid, raw, False) for oid, raw in found.items() if raw is not None)


class Pki:
    """The chain of one line: ``ark``, ``ca`` (ASK or ASVK), ``vek`` as DER; ``key`` of the VEK."""

    def __init__(self, line="Genoa", *, vlek=False, simulated=False, number=1, **changes):
        """``changes``: ``ark``, ``ca``, ``vek``: keywords for ``certificate``; ``extensions``:
        keywords for ``vek_extensions``."""
        self.line, self.vlek = line, vlek
        root, middle = made_rsa.root(), made_rsa.intermediate()
        self.key = vek_key(number)
        ark, ca = f"ARK-{line}", f"SEV-VLEK-{line}" if vlek else f"SEV-{line}"
        of_ark = {"serial": 0x20000, "sign_lists": True, "simulated": simulated}
        of_ca = {"serial": 0x20002, "path_length": 0, "simulated": simulated}
        of_vek = {"serial": 0, "ca": False, "simulated": simulated}
        of_vek["extensions"] = vek_extensions(line, vlek=vlek, **changes.get("extensions", {}))
        subject = "SEV-VLEK" if vlek else "SEV-VCEK"
        self.ark = made(ark, ark, root, root, of_ark | changes.get("ark", {}))
        self.ca = made(ca, ark, middle, root, of_ca | changes.get("ca", {}))
        self.vek = made(subject, ca, self.key, middle, of_vek | changes.get("vek", {}))

    @property
    def root_sha256(self):
        return sha256(self.ark).hexdigest()

    def report(self, **fields):
        """A report of this chain's line, signed by its VEK."""
        (family, model), tcb, _ = LINES[self.line]
        values = {"cpuid_family": family, "cpuid_model": model, "cpuid_stepping": 1}
        for field in ("reported_tcb", "current_tcb", "committed_tcb", "launch_tcb"):
            values[field] = bytes.fromhex(tcb)
        values["chip_id"] = CHIP
        if self.line == "Turin":
            values["chip_id"] = TURIN_CHIP.ljust(64, b"\0")
        if self.vlek:
            values |= {"chip_id": bytes(64), "key_info": 4}
        if fields.get("version") == 2:
            values |= {"cpuid_family": 0, "cpuid_model": 0, "cpuid_stepping": 0}
        return signed(made_report.report(**(values | fields)), self.key)

    def revoked(self, *serials, days=(-1, 30), signer=None, issuer=None, pad=PSS, critical=()):
        """DER of a list by the ARK."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name(issuer or f"ARK-{self.line}"))
            .last_update(NOW + timedelta(days=days[0]))
            .next_update(NOW + timedelta(days=days[1]))
        )
        for oid in critical:
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), b"\x05\x00"), critical=True
            )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW)
            builder = builder.add_revoked_certificate(entry.build())
        made_list = builder.sign(signer or made_rsa.root(), hashes.SHA384(), rsa_padding=pad)
        return made_list.public_bytes(serialization.Encoding.DER)


def made(subject, issuer, key, signer, changes):
    """``certificate`` of the given, as ``changes`` have it."""
    changes = dict(changes)
    subject = changes.pop("subject", subject)
    issuer = changes.pop("issuer", issuer)
    key = changes.pop("key", key)
    signer = changes.pop("signer", signer)
    with no_warning_about_serials():
        return certificate(subject, issuer, key, signer, **changes)


@contextlib.contextmanager
def no_warning_about_serials():
    """AMD's keys have the serial number zero, which ``cryptography`` warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def signed(report, key):
    """``report`` with the signature of the P-384 ``key``, numbers in little-endian."""
    r, s = utils.decode_dss_signature(key.sign(report[:672], ec.ECDSA(hashes.SHA384())))
    return report[:672] + r.to_bytes(72, "little") + s.to_bytes(72, "little") + report[816:]


def pem(*ders, label="CERTIFICATE"):
    """PEM blocks of ``ders``."""
    blocks = []
    for der in ders:
        body = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
        blocks.append(f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    return "".join(blocks).encode()


def holds(result):
    """Whether every step of a chain passed, but for those that need not: no list, no chip id."""
    optional = ("certificate-revocation", "certificate-chip")
    return all(
        step.verdict == "pass" or (step.verdict == "not-checked" and step.code in optional)
        for step in result.steps
    )

# SPDX-License-Identifier: Apache-2.0
"""The certificates and keys of one simulated platform, made new and kept in a directory.

Serves ``simulated.processor`` and the verifier, who is given ``certs/`` and the
digest of the root. Each platform has a root of its own, made where it is used:
must never come with a release, be shared, or be put into an image. The keys of
root and intermediate are not kept, so that nobody can issue more under them.

Source: AMD 57230 (chain, names, serial numbers, validity); SECURITY S23.

The directory::

    chip.json      who the chip is, with its secret; mode 0600
    vcek.key       PKCS#8 in PEM, mode 0600; vlek.key where there is a VLEK
    root-sha256    digest of the root, for ``trusted_roots`` of a policy
    certs/         ark, ask, vcek in PEM and crl in DER; asvk and vlek where there is a VLEK
"""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from troth.abi import cert_table, snp_tcb
from troth.abi.cert_table import Entry
from troth.documents import strict
from troth.errors import FormatError, HostError, TrothError
from troth.record import record
from troth.signing import certificate_files, certificates, issuing, keys
from troth.signing.issuing import IssuerKey, Subject
from troth.simulated import chip as chips
from troth.simulated.chip import Chip

if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.signing.certificates import Certificate
    from troth.signing.keys import PrivateKey

SCHEMA = "troth-simulated-chip-v1"
CHIP_FILE = "chip.json"
ROOT_FILE = "root-sha256"
CERTIFICATES = "certs"
CSP_ID = "CN=simulated.invalid"
"""The provider that a simulated VLEK names; no such name can be registered (RFC 2606)."""

#: line -> serial numbers of root, ASK and ASVK, as AMD's
_SERIALS = {
    snp_tcb.MILAN: (0x10000, 0x10001, 0x10101),
    snp_tcb.GENOA: (0x20000, 0x20002, 0x20101),
    snp_tcb.TURIN: (0x30000, 0x30001, 0x30101),
}
_AUTHORITY_DAYS = 25 * 365
_KEY_DAYS = 7 * 365
_MAX_FILE_BYTES = 64 << 10


@record
class ReportSigner:
    """A key that signs reports.

    ``kind``: "vcek" or "vlek"; ``key_pem``: the private key, secret;
    ``certificate`` and its ``issuer``'s: DER.
    """

    kind: str
    key_pem: bytes
    certificate: bytes
    issuer: bytes

    def __repr__(self) -> str:
        return f"ReportSigner({self.kind!r})"

    def key(self) -> PrivateKey:
        """The key, read anew. Raises as ``keys.load_private`` does."""
        return keys.load_private(self.key_pem)


@record
class Pki:
    """One platform: its ``chip``, ``root`` and revocation list (DER), and who signs.

    ``vlek``: None where the host has loaded none.
    """

    chip: Chip
    root: bytes
    revocation_list: bytes
    vcek: ReportSigner
    vlek: ReportSigner | None = None

    @property
    def root_sha256(self) -> str:
        """What a verification policy names in ``trusted_roots``."""
        return certificates.load(self.root).sha256

    def table(self, *, vlek: bool = False) -> bytes:
        """The host's certificate table, not padded: the signing key's chain."""
        signer = self.vlek if vlek else self.vcek
        if signer is None:
            raise FormatError("sim-pki", "this platform has no VLEK")
        guid = cert_table.VLEK if vlek else cert_table.VCEK
        return cert_table.build(
            (
                Entry(guid, signer.certificate),
                Entry(cert_table.ASK, signer.issuer),
                Entry(cert_table.ARK, self.root),
            )
        )


def make(
    chip: Chip,
    *,
    at: datetime | None = None,
    vlek: bool = False,
    issuer_key: Callable[[], IssuerKey] = IssuerKey.generate,
) -> Pki:
    """A new platform around ``chip``, valid from a day before the aware time ``at`` (now).

    ``issuer_key`` gives the keys of root, ASK and, with ``vlek``, ASVK. Made new
    they take seconds each.
    """
    now = (at or datetime.now(UTC)).replace(microsecond=0)
    line, start = chip.product, now - timedelta(days=1)
    root_serial, ask_serial, asvk_serial = _SERIALS[line]
    authority_end = start + timedelta(days=_AUTHORITY_DAYS)
    key_end = start + timedelta(days=_KEY_DAYS)
    root_key = issuer_key()
    ark = f"ARK-{line}"
    root = root_key.authority(
        Subject(ark, ark, start, authority_end), root_key, serial=root_serial, path_length=None
    )

    def signer(kind: str, *, issuer: str, serial: int, csp_id: str | None) -> ReportSigner:
        middle_key = issuer_key()
        middle = root_key.authority(
            Subject(issuer, ark, start, authority_end), middle_key, serial=serial, path_length=0
        )
        key_pem = issuing.new_report_key()
        spki = keys.load_private(key_pem).public.spki
        subject = Subject(f"SEV-{kind.upper()}", issuer, start, key_end)
        extensions = chips.extensions(chip, csp_id=csp_id)
        return ReportSigner(kind, key_pem, middle_key.report_key(subject, spki, extensions), middle)

    return Pki(
        chip=chip,
        root=root,
        revocation_list=root_key.empty_list(ark, this_update=start, next_update=key_end),
        vcek=signer("vcek", issuer=f"SEV-{line}", serial=ask_serial, csp_id=None),
        vlek=signer("vlek", issuer=f"SEV-VLEK-{line}", serial=asvk_serial, csp_id=CSP_ID)
        if vlek
        else None,
    )


def kept_in(folder: Path, new: Callable[[], Pki]) -> Pki:
    """The platform kept in ``folder``; where there is none, ``new()`` is put there.

    Raises ``HostError`` ``sim-pki-directory`` where it cannot be written or
    read, ``FormatError`` ``sim-pki`` where it holds something else.
    """
    if folder.is_dir():
        return load(folder)
    made = new()
    try:
        # Whole or not at all: another run may look at the same moment.
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            store(made, beside)
            beside.rename(folder)
        except OSError:
            shutil.rmtree(beside, ignore_errors=True)
            if not folder.is_dir():
                raise
            return load(folder)
    except OSError as error:
        raise HostError(
            "sim-pki-directory",
            f"the keys of the simulated platform cannot be kept: {error.strerror}",
            where=str(folder),
            hint="make its parent directory writable",
        ) from None
    return made


def store(pki: Pki, folder: Path) -> None:
    """Write ``pki`` into the existing, empty ``folder``. Raises ``OSError``."""
    chip = pki.chip
    tree = {
        "schema": SCHEMA,
        "product": chip.product,
        "family": chip.family,
        "model": chip.model,
        "stepping": chip.stepping,
        "chip_id": chip.chip_id.hex(),
        "tcb": chip.tcb.hex(),
        "secret": chip.secret.hex(),
    }
    _write(folder / CHIP_FILE, strict.pretty(tree), secret=True)
    _write(folder / ROOT_FILE, pki.root_sha256.encode() + b"\n")
    certs = folder / CERTIFICATES
    certs.mkdir()
    _write(certs / "ark.pem", issuing.certificate_pem(pki.root))
    _write(certs / "crl.der", pki.revocation_list)
    for signer, issuer in ((pki.vcek, "ask"), (pki.vlek, "asvk")):
        if signer is not None:
            _write(certs / f"{issuer}.pem", issuing.certificate_pem(signer.issuer))
            _write(certs / f"{signer.kind}.pem", issuing.certificate_pem(signer.certificate))
            _write(folder / f"{signer.kind}.key", signer.key_pem, secret=True)
    folder.chmod(0o755)


def load(folder: Path) -> Pki:
    """The platform in ``folder``, as ``store`` wrote it.

    Raises ``HostError`` ``sim-pki-directory``; ``FormatError`` ``sim-pki``.
    """
    certs = folder / CERTIFICATES

    def signer(kind: str, issuer: str) -> ReportSigner:
        return ReportSigner(
            kind,
            _read(folder / f"{kind}.key"),
            _certificate(certs / f"{kind}.pem").der,
            _certificate(certs / f"{issuer}.pem").der,
        )

    try:
        found = Pki(
            chip=_chip(_read(folder / CHIP_FILE), str(folder / CHIP_FILE)),
            root=_certificate(certs / "ark.pem").der,
            revocation_list=_read(certs / "crl.der"),
            vcek=signer("vcek", "ask"),
            vlek=signer("vlek", "asvk") if (folder / "vlek.key").exists() else None,
        )
        _check(found)
    except OSError as error:
        raise HostError(
            "sim-pki-directory", f"cannot be read: {error.strerror}", where=error.filename or ""
        ) from None
    except TrothError as error:
        raise _wrong(error.message, error.where or str(folder)) from None
    return found


def _check(pki: Pki) -> None:
    for signer in (pki.vcek, pki.vlek):
        if signer is None:
            continue
        if certificates.load(signer.certificate).spki != signer.key().public.spki:
            raise FormatError("sim-pki", f"{signer.kind}.key is not its certificate's")
        # A key that AMD vouches for has no business here, nor has anybody else's.
        for der in (signer.certificate, signer.issuer, pki.root):
            if not certificates.load(der).simulated:
                raise FormatError("sim-pki", "a certificate without the mark SIMULATED")


def _chip(data: bytes, where: str) -> Chip:
    top = strict.Reader(strict.parse(data, where=where), where=where)
    top.text("schema", allowed=(SCHEMA,))
    chip = Chip(
        product=top.text("product"),
        family=top.integer("family", maximum=0xFF),
        model=top.integer("model", maximum=0xFF),
        stepping=top.integer("stepping", maximum=0xF),
        chip_id=bytes.fromhex(top.digest("chip_id", size_bytes=chips.CHIP_ID_BYTES)),
        tcb=bytes.fromhex(top.digest("tcb", size_bytes=snp_tcb.TCB_BYTES)),
        secret=bytes.fromhex(top.digest("secret", size_bytes=chips.SECRET_BYTES)),
    )
    top.close()
    return chip


def _certificate(path: Path) -> Certificate:
    found = certificate_files.load_many(_read(path), where=str(path))
    if len(found) != 1:
        raise FormatError("sim-pki", f"{len(found)} certificates in {path.name}, not one")
    return found[0]


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES)


def _write(path: Path, data: bytes, *, secret: bool = False) -> None:
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if secret else 0o644
    )
    with open(descriptor, "wb") as file:
        file.write(data)


def _wrong(message: str, where: str) -> FormatError:
    return FormatError(
        "sim-pki",
        f"not the keys of a simulated platform: {message}",
        where=where,
        hint="remove the directory; the next run makes another",
    )

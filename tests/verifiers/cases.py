# SPDX-License-Identifier: Apache-2.0
"""Reports with their certificates, good ones and one of each kind of bad, for every verifier.

Made reports and chains come from ``made_pki`` and ``made_report``, which are written after
AMD's tables and apart from the readers under test. The chains bear no mark SIMULATED:
the peers refuse any critical extension that they do not know, as they should.
"""

import base64
from datetime import datetime

from cryptography.hazmat.primitives.serialization import load_pem_private_key

import made_pki
import made_report
import made_rsa
from made_front import opened, report_request, sealed
from made_platform import platform
from troth.record import record
from troth.simulated.launch import Launch
from troth.simulated.processor import Processor

REPORT_DATA = bytes(range(64))
CHAIN = {
    False: ("ark.der", "ask.der", "vcek.der"),
    True: ("ark.der", "asvk.der", "vlek.der"),
}
#: (line, versions): version 2 has no CPUID, and Turin no version 2.
GOOD = {"Milan": (2, 3, 5), "Genoa": (2, 3, 4, 5), "Turin": (3, 5)}
#: Ranges that are reserved in every version up to 5, by offset.
RESERVED = {
    "reserved-4c": 0x4C,
    "reserved-18b": 0x18B,
    "reserved-19f": 0x19F,
    "reserved-1eb": 0x1EB,
    "reserved-1ef": 0x1EF,
    "reserved-208": 0x208,
    "reserved-29f": 0x29F,
}
TAIL = {"reserved-330": 0x330, "reserved-49f": 0x49F}


@record
class Case:
    """``chain``: ARK, ASK or ASVK, VCEK or VLEK as DER; ``root``: the trusted ARK."""

    name: str
    line: str
    vlek: bool
    report: bytes
    chain: tuple[bytes, bytes, bytes]
    root: bytes
    report_data: bytes = REPORT_DATA
    good: bool = False
    at: int = round(made_pki.NOW.timestamp())

    def write(self, folder) -> None:
        """All files that a verifier reads."""
        folder.mkdir()
        for name, der in zip(CHAIN[self.vlek], self.chain, strict=True):
            (folder / name).write_bytes(der)
        (folder / "root.der").write_bytes(self.root)
        (folder / "report.bin").write_bytes(self.report)
        (folder / "report_data").write_bytes(self.report_data)
        (folder / "line").write_text(self.line)
        (folder / "at").write_text(str(self.at))


def case(name, pki, *, report=None, chain=None, good=False, root=None, **changes):
    """A case of ``pki``: its own report and chain but for what is given."""
    fields = {"version": 5, "report_data": REPORT_DATA} | changes
    return Case(
        name=f"{pki.line}-{'vlek' if pki.vlek else 'vcek'}-{name}",
        line=pki.line,
        vlek=pki.vlek,
        report=report or pki.report(**fields),
        chain=chain or (pki.ark, pki.ca, pki.vek),
        root=root or pki.ark,
        good=good,
    )


def good():
    """Every line, version and kind of key that can be made."""
    for line, versions in GOOD.items():
        for vlek in (False, True):
            pki = made_pki.Pki(line, vlek=vlek)
            for version in versions:
                yield case(f"good-v{version}", pki, version=version, good=True)
    # What clouds do: SMT permitted, a level other than 0, firmware ahead of what is reported.
    genoa = made_pki.Pki("Genoa")
    ahead = bytes.fromhex("0b00000000001c60")
    yield case("good-ahead", genoa, current_tcb=ahead, launch_tcb=ahead, good=True)
    yield case("good-vmpl-2", genoa, vmpl=2, good=True)
    yield case("good-host-data", genoa, host_data=b"h" * 32, guest_svn=9, good=True)
    yield case("good-id-block", genoa, id_key_digest=b"i" * 48, author_key_digest=b"a" * 48,
               key_info=1, family_id=b"f" * 16, good=True)  # fmt: skip


def flipped():
    """Each field with one bit turned after it was signed, and each reserved range."""
    for line, version in (("Milan", 3), ("Genoa", 5), ("Turin", 5)):
        pki = made_pki.Pki(line)
        whole = pki.report(version=version, report_data=REPORT_DATA)
        places = {name: offset for name, (offset, _size) in made_report.FIELDS.items()}
        for name, offset in (places | RESERVED | TAIL).items():
            report = bytearray(whole)
            report[offset] ^= 0x01 if name != "policy" else 0x80
            yield case(f"flipped-{name}", pki, report=bytes(report))


def resigned():
    """Reports that the key signed, but which do not go with its certificate or say too much."""
    for line, level in (("Milan", 0x1D), ("Genoa", 0x21), ("Turin", 9)):
        for number in made_pki.LINES[line][2]:
            other = made_pki.Pki(line, extensions={"levels": {number: level}})
            yield case(f"other-level-{number}", other)
    for line in ("Milan", "Genoa", "Turin"):
        pki = made_pki.Pki(line)
        chip = bytes(reversed(made_pki.TURIN_CHIP)) if line == "Turin" else b"\x01" * 64
        yield case("other-chip", pki, chip_id=chip.ljust(64, b"\0"))
        yield case("other-answer", pki, report_data=b"\x55" * 64, report=pki.report(version=5))
    pki = made_pki.Pki("Genoa")
    for version in (0, 1, 6, 0xFFFFFFFF):
        yield case(f"version-{version}", pki, version=version)
    yield case("debug", pki, policy=0xB0000)
    yield case("policy-without-bit-17", pki, policy=0x10000)
    yield case("algorithm-0", pki, signature_algo=0)
    yield case("algorithm-2", pki, signature_algo=2)
    yield case("key-vlek-claimed", pki, key_info=4)
    yield case("key-reserved", pki, key_info=8)
    yield case("key-none", pki, key_info=7 << 2)
    yield case("key-masked", pki, key_info=2)
    whole = pki.report(version=5, report_data=REPORT_DATA)
    yield case("signature-zero", pki, report=whole[:0x2A0] + bytes(512))
    swapped = whole[:0x2A0] + whole[0x2E8:0x330] + whole[0x2A0:0x2E8] + whole[0x330:]
    yield case("signature-swapped", pki, report=swapped)
    yield case("short", pki, report=whole[:-1])
    for name, offset in RESERVED.items():
        report = bytearray(whole)
        report[offset] = 1
        yield case(f"set-{name}", pki, report=made_pki.signed(bytes(report), pki.key))


def chained():
    """Chains that do not hold."""
    for vlek in (False, True):
        pki = made_pki.Pki("Genoa", vlek=vlek)
        stranger = made_pki.Pki("Genoa", vlek=vlek, number=2)
        yield case("other-key", pki, chain=(pki.ark, pki.ca, stranger.vek))
        broken = bytearray(pki.vek)
        broken[-1] ^= 1
        yield case("vek-signature", pki, chain=(pki.ark, pki.ca, bytes(broken)))
        broken = bytearray(pki.ca)
        broken[-1] ^= 1
        yield case("ca-signature", pki, chain=(pki.ark, bytes(broken), pki.vek))
        broken = bytearray(pki.ark)
        broken[-1] ^= 1
        broken = bytes(broken)
        yield case("ark-signature", pki, chain=(broken, pki.ca, pki.vek), root=broken)
        other = made_pki.Pki("Milan", vlek=vlek)
        yield case("other-line", pki, chain=(other.ark, other.ca, other.vek), root=other.ark)
        # Keys change places: a whole chain, but not under the root that is trusted.
        root, middle = made_rsa.intermediate(), made_rsa.root()
        planted = made_pki.Pki(
            "Genoa", vlek=vlek, ark={"key": root, "signer": root},
            ca={"key": middle, "signer": root}, vek={"signer": middle},
        )  # fmt: skip
        yield case("planted-root", planted, root=pki.ark)
        skipped = made_pki.Pki("Genoa", vlek=vlek, vek={"signer": made_rsa.root()})
        yield case("signed-by-the-root", skipped)
        for name, days in (("not-yet", (1, 400)), ("expired", (-400, -1))):
            for place in ("ark", "ca", "vek"):
                late = made_pki.Pki("Genoa", vlek=vlek, **{place: {"days": days}})
                yield case(f"{place}-{name}", late)
        yield case("ca-not-a-ca", made_pki.Pki("Genoa", vlek=vlek, ca={"ca": False}))
        yield case("vek-critical", made_pki.Pki(
            "Genoa", vlek=vlek,
            vek={"extensions": (*made_pki.vek_extensions("Genoa", vlek=vlek),
                                ("1.2.3.4", b"\x05\x00", True))},
        ))  # fmt: skip
        for part in ("1", "2", "3.1", "3.3", "3.8", "5" if vlek else "4"):
            without = {"change": {part: None}}
            yield case(f"without-{part}", made_pki.Pki("Genoa", vlek=vlek, extensions=without))


def simulated():
    """Reports of the simulated processor: under a chain without the mark, and under its own."""
    for line in made_pki.LINES:
        for vlek in (False, True):
            for version in GOOD[line]:
                own = platform(line, vlek=True)
                launch = Launch(measurement=b"m" * 48, report_version=version, vlek=vlek)
                report = _by_processor(launch, own)
                signer = own.vlek if vlek else own.vcek
                tcb = own.chip.tcb
                chip = own.chip.chip_id[: own.chip.hwid_bytes]
                levels = (
                    {"9": tcb[0], "1": tcb[1], "2": tcb[2], "3": tcb[3], "8": tcb[7]}
                    if line == "Turin"
                    else {"1": tcb[0], "2": tcb[1], "3": tcb[6], "8": tcb[7]}
                )
                words = {"levels": levels} if vlek else {"levels": levels, "chip": chip}
                unmarked = made_pki.Pki(
                    line,
                    vlek=vlek,
                    vek={"key": load_pem_private_key(signer.key_pem, None)},
                    extensions=words,
                )
                yield case(f"processor-v{version}", unmarked, report=report, good=True)
                yield Case(
                    name=f"{line}-{'vlek' if vlek else 'vcek'}-marked-v{version}",
                    line=line, vlek=vlek, report=report, good=True,
                    chain=(own.root, signer.issuer, signer.certificate), root=own.root,
                    at=round(datetime.now(tz=made_pki.NOW.tzinfo).timestamp()),
                )  # fmt: skip


def _by_processor(launch, own):
    processor = Processor(launch, own)
    key = processor.secrets_page()[0x20:0x40]
    answer = processor.request(sealed(key, 1, 5, report_request(REPORT_DATA)))
    return opened(key, answer.page, sequence=2, kind=6)[32:]


def vectors():
    """Genuine reports, and those damaged on purpose; AMD's own roots."""
    manifest = made_report.vectors()
    entries = {entry["id"]: entry for entry in manifest["vectors"]}
    for name, entry in entries.items():
        report = (made_report.VECTORS / f"{name}.report.bin").read_bytes()
        yield _vector(name, entry, report, good=not entry["debug"])
    for entry in manifest["derived_negative"]:
        report = (made_report.VECTORS / "negative" / entry["file"]).read_bytes()
        about = entries[entry["use_with"]]
        yield _vector(entry["file"].removesuffix(".bin"), about, report, good=False)


def _vector(name, entry, report, *, good):
    folder = made_report.VECTORS / "certs" / entry["product"]
    vlek = entry["signer"] == "VLEK"
    intermediate, ark = _blocks(folder / ("asvk_ark.pem" if vlek else "ask_ark.pem"))
    return Case(
        name=f"vector-{name}", line=entry["product"].capitalize(), vlek=vlek, report=report,
        chain=(ark, intermediate, (made_report.VECTORS / f"{entry['id']}.vek.der").read_bytes()),
        root=ark, good=good, report_data=bytes.fromhex(entry["report_data"]),
        at=round(datetime.fromisoformat(entry["cert_not_before"]).timestamp()) + 30 * 86400,
    )  # fmt: skip


def _blocks(path):
    """DER of the two certificates of a PEM file."""
    found = path.read_text().split("-----BEGIN CERTIFICATE-----")[1:]
    return tuple(base64.b64decode("".join(part.split("-----END")[0].split())) for part in found)

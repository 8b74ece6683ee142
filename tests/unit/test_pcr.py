# SPDX-License-Identifier: Apache-2.0
"""PCR arithmetic against what systemd-measure 252 predicts for PCR 11 of a unified kernel image."""

import json
import os
from pathlib import Path

import pytest

from troth.abi.hashes import zero
from troth.documents.event_log import Event
from troth.measure import pcr

VECTORS = Path(
    os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors")
).joinpath("measure/pcr11")
#: systemd 252, src/boot/measure.c: in this order, each by its name with NUL and by its data.
SECTIONS = {".linux": "linux.bin", ".osrel": "os-release", ".cmdline": "cmdline",
            ".initrd": "initrd.bin", ".pcrpkey": "pcrpkey.pem"}  # fmt: skip
BANKS = ("sha1", "sha256", "sha384", "sha512")

pytestmark = pytest.mark.skipif(
    not VECTORS.is_dir(), reason=f"no vectors at {VECTORS} (set TROTH_VECTORS)"
)


def contents(names, phases=()):
    for name in names:
        data = (VECTORS / SECTIONS[name]).read_bytes()
        if data:
            yield from (name.encode() + b"\0", data)
    yield from (word.encode() for word in phases)


def predicted(items, bank):
    value = zero(bank)
    for item in items:
        ((_bank, digest),) = pcr.event_digests((bank,), item)
        value = pcr.extend(bank, value, digest)
    return value.hex()


@pytest.mark.parametrize("bank", BANKS)
def test_all_sections_and_phases(bank):
    rows = json.loads((VECTORS / "calc_all.json").read_text())[bank]
    assert len(rows) == 4
    for row in rows:
        assert predicted(contents(SECTIONS, row["phase"].split(":")), bank) == row["hash"]


def test_two_sections_and_no_phase():
    (line,) = (VECTORS / "calc_linux_initrd_nophase.txt").read_text().split()
    assert line == "11:sha256=" + predicted(contents([".linux", ".initrd"]), "sha256")


def test_a_bank_that_one_event_lacks_is_no_answer():
    items = list(contents(SECTIONS, ["enter-initrd"]))
    events = [
        Event(number, 11, "boot", item, pcr.event_digests(BANKS if number else BANKS[1:], item))
        for number, item in enumerate(items)
    ]
    wanted = json.loads((VECTORS / "calc_all.json").read_text())
    assert {key: value.hex() for key, value in pcr.replay(events).items()} == {
        (bank, 11): wanted[bank][0]["hash"] for bank in BANKS[1:]
    }

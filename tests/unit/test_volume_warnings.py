# SPDX-License-Identifier: Apache-2.0
"""What a build says of encrypted volumes that keep less than one may think."""

import pytest

from made_policy import policy
from made_volumes import BROKER, VOLUME
from troth.image import reference, volume_warnings
from troth.record import replace

TRUSTEE = replace(BROKER, name="trustee", protocol="trustee", trust_domain="example.org")
ROOT = replace(VOLUME, name="root", mount="", file_system="", integrity="none")


def made(*volumes, brokers=(BROKER,), **changes):
    return replace(policy(snp="simulated"), encrypted=volumes, brokers=brokers, **changes)


def codes(found):
    return [line.split(": ")[1] for line in volume_warnings.warnings(found)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"key": "kbs://keys/default/disk-key/data"}, []),
        ({"key": "kbs://trustee/default/disk-key/data"}, ["key-reobtainable", "untracked"]),
        ({"key": "spiffe://example.org/vm/demo"}, ["key-reobtainable", "untracked"]),
        ({"key": "snp:"}, ["chip-bound", "untracked"]),
        ({"key": "snp:measurement"}, ["chip-bound", "untracked"]),
        ({"key": "file:data"}, ["untracked"]),
        ({"key": "random:"}, []),
        ({"format": "luks2", "key": "kbs://keys/default/disk-key/data"}, ["untracked"]),
        ({"integrity": "aes-gcm", "key": "random:"}, []),
        ({"integrity": "none", "key": "random:"}, ["unauthenticated"]),
        ({"integrity": "none", "key": "snp:"}, ["chip-bound", "unauthenticated", "untracked"]),
    ],
)
def test_what_each_source_lacks(change, expected):
    brokers = (BROKER, TRUSTEE) if "//" in change.get("key", "") else (BROKER,)
    assert codes(made(replace(VOLUME, **change), brokers=brokers)) == expected


def test_the_only_broker_counts_where_none_is_named():
    assert codes(made(VOLUME, brokers=(TRUSTEE,))) == ["key-reobtainable", "untracked"]
    assert volume_warnings.untracked(made(VOLUME)) == ()


@pytest.mark.parametrize(
    ("vtpm", "kind", "bare"),
    [("none", "svsm", True), ("required", "host", True), ("required", "svsm", False),
     ("optional", "paravisor", False)],
)  # fmt: skip
def test_a_guest_with_a_tpm_of_its_own_is_not_bare(vtpm, kind, bare):
    found = codes(made(VOLUME, brokers=(TRUSTEE,), vtpm=vtpm, vtpm_kind=kind))
    assert ("key-reobtainable" in found) is bare


def test_what_a_verified_root_lies_in_is_verified_there():
    assert codes(made(ROOT)) == []
    # Its key can be had again all the same, or lost with the chip.
    assert codes(made(ROOT, brokers=(TRUSTEE,))) == ["key-reobtainable"]
    assert codes(made(replace(ROOT, key="snp:"))) == ["chip-bound"]


def test_sentences_and_flags_name_the_volumes():
    loose = replace(VOLUME, name="loose", integrity="none", key="snp:")
    found = made(VOLUME, loose)
    lines = volume_warnings.warnings(found)
    assert len(lines) == 3
    assert all(line.startswith("volume loose: ") for line in lines)
    flags = reference.flags(found, unsigned_modules=False)
    assert flags.unauthenticated_volumes == flags.untracked_volumes == ("loose",)


def test_nothing_to_say_without_volumes():
    assert volume_warnings.warnings(policy()) == ()
    assert reference.flags(policy(), unsigned_modules=False).untracked_volumes == ()

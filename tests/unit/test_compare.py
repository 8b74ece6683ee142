# SPDX-License-Identifier: Apache-2.0
"""`troth pcr replay --against`: which logs are those of an accepted boot."""

from __future__ import annotations

import json

import pytest

from made_policy import policy
from made_volumes import SECRET, VOLUME
from troth.cli.main import main
from troth.documents import event_log, policy_json, reference_values, reference_values_json
from troth.documents.event_log import Event
from troth.image import compare, reference
from troth.measure.boot_events import boot_events
from troth.record import replace
from troth.volumes import opening

POLICY = replace(policy(vtpm="optional"), cmdline="quiet", cmdline_forms=("plain", "ovmf-direct"))
DATA = policy_json.print_(POLICY)
GOOD = boot_events(POLICY, policy_bytes=DATA, cmdline=b"quiet initrd=initrd", workload=None)


def difference(events):
    return compare.first_difference(events, POLICY, policy_bytes=DATA, workload=None)


def test_only_a_whole_boot_has_no_difference():
    assert difference(GOOD) == ""
    assert difference(GOOD[:-1]) == f"the log ends after record {len(GOOD) - 2}, before cap"
    assert difference(GOOD[:1]) == "the log ends after record 0, before cmdline"
    assert difference(()).startswith("the log is empty: it ends, before ")
    for count in range(len(GOOD)):
        assert "before" in difference(GOOD[:count])
    extra = Event(len(GOOD), 11, "phase", b"more", {})
    assert "comes after the last expected one" in difference((*GOOD, extra))
    other = replace(GOOD[0], content=b"x")
    assert difference((other, *GOOD[1:])).startswith("record 0: found ")


@pytest.mark.parametrize(("count", "status"), [(len(GOOD), 0), (len(GOOD) - 1, 1), (0, 1)])
def test_the_exit_status_says_it(tmp_path, capsys, count, status):
    (tmp_path / "policy.json").write_bytes(DATA)
    values = reference_values.ReferenceValues(
        image_name="demo", svn=1, troth_version="0", platform="none", snp="none",
        vtpm="optional", vtpm_kind="host", policy_sha256="00" * 32, root_hashes=(), workload="",
        cases=reference.cases(POLICY, policy_bytes=DATA, workload=None),
        flags=reference_values.Flags("off", False, False, "none", False, "panic", "none", ()),
    )  # fmt: skip
    (tmp_path / reference_values.FILE_NAME).write_bytes(reference_values_json.print_(values))
    log = tmp_path / "log"
    log.write_bytes(b"".join(event_log.line(event) for event in GOOD[:count]))
    words = ["pcr", "replay", str(log)]
    assert main(words) == 0
    assert main([*words, "--against", str(tmp_path)]) == status
    assert ("first difference: the log" in capsys.readouterr().out) == bool(status)
    assert main([*words, "--against", str(tmp_path), "--json"]) == status
    assert bool(json.loads(capsys.readouterr().out)["first_difference"]) == bool(status)


def with_keys(*changes):
    """A whole boot with the events of one encrypted volume; ``changes`` to those two."""
    sealed = replace(POLICY, encrypted=(VOLUME,))
    data = policy_json.print_(sealed)
    boot = list(boot_events(sealed, policy_bytes=data, cmdline=b"quiet", workload=None))
    content, digests = opening.key_event(VOLUME, SECRET, ("sha256",))
    keyed = [
        Event(0, 15, "key-release", f"spki {VOLUME.key} {VOLUME.name}".encode(), digests),
        Event(0, 15, "volume-key", content, digests),
    ]
    if changes:
        keyed = [replace(event, **change) for event, change in zip(keyed, changes, strict=False)]
    at = next(n for n, event in enumerate(boot) if event.content == b"enter-initrd") + 1
    events = [*boot[:at], *keyed, *boot[at:]]
    events = [replace(event, number=number) for number, event in enumerate(events)]
    return compare.first_difference(events, sealed, policy_bytes=data, workload=None)


def test_events_of_keys_have_their_place():
    assert with_keys() == ""
    assert with_keys({}, {}) == ""
    assert "expected key-release of" in with_keys({"content": b"spki kbs:///a/b/c data"}, {})
    assert "expected key-release of" in with_keys({"pcr": 14}, {})
    assert "expected volume-key of" in with_keys({}, {"content": b"cryptsetup:troth-data:x"})
    assert "expected volume-key of" in with_keys({}, {"kind": "key-release"})
    # One is missing, and the boot went on.
    assert "expected volume-key of" in with_keys({})


def test_events_of_keys_in_an_image_without_any():
    content, digests = opening.key_event(VOLUME, SECRET, ("sha256",))
    events = (*GOOD, Event(len(GOOD), 15, "volume-key", content, digests))
    assert difference(events) == f"record {len(GOOD)}: found volume-key, where no key belongs"

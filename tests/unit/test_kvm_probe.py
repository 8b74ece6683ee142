# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess

import pytest

from troth.machine import kvm_probe
from troth.machine.kvm_probe import Host, Trial

REAL = Host(device=True, extension=True, software=False)
FAST = Trial(exit_reason=5, elapsed_ms=0.2, problem="")


def test_fast_kvm_is_usable():
    assert kvm_probe.decide(REAL, FAST).usable


@pytest.mark.parametrize(
    ("host", "trial", "word"),
    [
        (Host(device=False, extension=True, software=False), FAST, "absent"),
        (Host(device=True, extension=False, software=False), FAST, "vmx"),
        (Host(device=True, extension=True, software=True), FAST, "software"),
        (REAL, None, "not tried"),
        (REAL, Trial(5, 10.0, ""), "emulated"),
        (REAL, Trial(5, 948.0, ""), "emulated"),
        (REAL, Trial(17, 0.2, ""), "exit 17"),
        (REAL, Trial(0, 0.0, "the trial hung"), "hung"),
    ],
)
def test_any_doubt_means_tcg(host, trial, word):
    verdict = kvm_probe.decide(host, trial)
    assert not verdict.usable
    assert word in verdict.reason


def test_looking_reads_processor_and_modules(tmp_path):
    (tmp_path / "cpuinfo").write_text("flags : fpu svm lm\n")
    (tmp_path / "module" / "kvm_pvm").mkdir(parents=True)
    host = kvm_probe.look(proc=tmp_path, sys_=tmp_path)
    assert host.extension
    assert host.software
    empty = kvm_probe.look(proc=tmp_path / "none", sys_=tmp_path / "none")
    assert not empty.extension
    assert not empty.software


def test_no_trial_where_the_cheap_facts_decide(monkeypatch):
    monkeypatch.setattr(kvm_probe, "look", lambda: Host(True, True, True))
    monkeypatch.setattr(kvm_probe, "_try_apart", lambda: pytest.fail("tried"))
    assert not kvm_probe.probe().usable


@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        (subprocess.TimeoutExpired("x", 3), "the trial hung"),
        (subprocess.CalledProcessError(-11, "x"), "the trial crashed"),
        (subprocess.CompletedProcess("x", 0, stdout=b"no json"), "the trial crashed"),
        (subprocess.CompletedProcess("x", 0, stdout=b"{}"), "the trial crashed"),
    ],
)
def test_a_trial_that_breaks_is_a_no(monkeypatch, outcome, problem):
    def run(*_arguments, **_options):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(subprocess, "run", run)
    verdict = kvm_probe.decide(REAL, kvm_probe._try_apart())
    assert not verdict.usable
    assert problem in verdict.reason


def test_the_trial_itself_answers_on_this_host():
    """In its own process: whatever /dev/kvm is here, there is an answer and no crash."""
    trial = kvm_probe._try_apart()
    assert "crashed" not in trial.problem
    assert trial.problem or trial.exit_reason

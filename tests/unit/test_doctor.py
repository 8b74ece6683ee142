# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from troth.cli import doctor
from troth.cli.main import main


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A host on which only stand-ins for the tools exist; returns their folder."""

    def which(name, *, path=None):
        assert path is None or path.endswith("/sbin")
        return str(tmp_path / name) if (tmp_path / name).exists() else None

    monkeypatch.setattr(doctor.shutil, "which", which)
    for tool in doctor.TOOLS:
        program = tmp_path / tool.name
        program.write_text(f"#!/bin/sh\n[ x$1 = x{tool.version} ] && echo {tool.name} v1.2.3 >&2\n")
        program.chmod(0o755)
    return tmp_path


def test_all_there(bare, capsys):
    assert main(["doctor", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    found = {finding["name"]: finding for finding in tree["findings"]}
    assert all(found[tool.name]["version"] == "1.2.3" for tool in doctor.TOOLS)
    assert tree["accelerator"] in ("tcg", "kvm")


def test_one_line_for_all_that_is_missing(bare, capsys):
    for name in ("swtpm", "as", "strip", "mkfs.erofs"):
        (bare / name).unlink()
    assert main(["doctor"]) == 3
    said = capsys.readouterr().out
    line = said.splitlines()[-1]
    assert line.startswith("  sudo apt-get install ")
    assert {"swtpm", "binutils", "erofs-utils"} <= set(line.split())
    assert line.count("binutils") == 1
    assert said.count("MISSING") == 4


def test_what_is_optional_does_not_fail(bare, capsys):
    (bare / "mksquashfs").unlink()
    assert main(["doctor"]) == 0
    assert "squashfs-tools" in capsys.readouterr().out


def test_a_program_that_breaks_has_no_version(bare, capsys):
    (bare / "zstd").write_text("not a program")
    assert main(["doctor", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    (zstd,) = [finding for finding in tree["findings"] if finding["name"] == "zstd"]
    assert (zstd["found"], zstd["version"]) == (True, "")


def test_an_old_interpreter_is_not_enough(bare, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda _words: "3.9.2")
    assert not doctor._python().found
    monkeypatch.setattr(doctor, "_version", lambda _words: "3.12.0")
    assert doctor._python().found

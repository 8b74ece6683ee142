# SPDX-License-Identifier: Apache-2.0
"""Workloads that stay in the initramfs: what their paths must be, and their digest."""

from __future__ import annotations

import pytest

from made_policy import policy
from troth.errors import BuildError
from troth.image import build, reference, workload_entries
from troth.image.inputs import manifest
from troth.image.packing import entry
from troth.linux import tree
from troth.measure.workload import tree_digest
from troth.record import replace

ENTRIES = entry.arrange(
    (
        entry.file("app/run", b"#!/bin/sh\n", "t", mode=0o755),
        entry.file("app/data", b"x", "t"),
        entry.link("app/\u00e9t\u00e9", "r\u00e9sum\u00e9", "t"),
        entry.link("current", "app", "t"),
    )
)


def test_the_program_must_be_a_packed_executable():
    workload_entries.check_program(ENTRIES, "/app/run")
    for path, words in {
        "/app/absent": "is not packed",
        "/app": "is a directory",
        "/app/data": "is not executable",
        "/current": "is a link",
        "/current/run": "is not packed",
    }.items():
        with pytest.raises(BuildError, match=words) as caught:
            workload_entries.check_program(ENTRIES, path)
        assert caught.value.code == "init-missing"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/ap", "workload-missing"),
        ("/app/runs", "workload-missing"),
        ("/current", "workload-link"),
        ("/current/run", "workload-link"),
        ("/app/\u00e9t\u00e9", "workload-link"),
    ],
)
def test_workload_paths_must_be_entries(path, code):
    with pytest.raises(BuildError) as caught:
        workload_entries.of_initramfs(ENTRIES, ("/app", path), where="troth.toml:9")
    assert (caught.value.code, caught.value.where) == (code, "troth.toml:9")


def test_the_digest_is_what_a_guest_computes(tmp_path):
    """Owners aside, which only root could make: a link target counts in bytes."""
    for item in ENTRIES:
        path = tmp_path / item.path
        if item.kind == "directory":
            path.mkdir()
        elif item.kind == "link":
            path.symlink_to(item.target)
        else:
            path.write_bytes(item.data)
    for item in ENTRIES:
        if item.kind != "link":
            (tmp_path / item.path).chmod(item.mode)
    found = (replace(item, uid=0, gid=0) for item in tree.entries(str(tmp_path), "/app"))
    assert workload_entries.of_initramfs(ENTRIES, ("/app",)) == tree_digest(found)


BASE = """[image]
name = "demo"
kernel = "debian:linux-image-cloud-amd64"
[handover]
supervise = ["/app/run"]
[tee]
snp = "none"
"""


def test_a_command_line_that_the_kernel_would_cut(tmp_path):
    loaded = manifest.parse(BASE.encode(), tmp_path / "troth.toml")
    values = {"app.mode": ("a", "long"), "app.other": ("b" * 9, "c")}
    made = replace(
        policy(), cmdline="app.mode=a app.other=c", cmdline_forms=("plain", "ovmf-direct"),
        cmdline_variable=values,
    )  # fmt: skip
    longest = max(len(text) for _form, text in reference.cmdlines(made))
    assert reference.longest_cmdline_bytes(made) == longest
    fill = 2047 - longest - 1
    build._check_cmdline(loaded, replace(made, cmdline=made.cmdline + " " + "x" * fill))
    with pytest.raises(BuildError) as caught:
        build._check_cmdline(loaded, replace(made, cmdline=made.cmdline + " " + "x" * (fill + 1)))
    assert caught.value.code == "cmdline-length"
    many = {f"app.k{n}": ("a", "bb", "c") for n in range(60)}
    text = " ".join(f"{key}=a" for key in many)
    wide = replace(made, cmdline=text, cmdline_variable=many)
    assert reference.longest_cmdline_bytes(wide) == len(text) + 60 + len(" initrd=initrd")

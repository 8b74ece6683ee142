# SPDX-License-Identifier: Apache-2.0
"""The lint of roots."""

from __future__ import annotations

import pytest

from troth.errors import BuildError
from troth.image.roots.root_lint import lint
from troth.image.roots.root_tree import DIRECTORY, FILE, LINK, Entry, RootTree


@pytest.fixture
def tree(tmp_path):
    with RootTree(tmp_path / "tree") as made:
        put(made, "usr/lib/systemd/systemd", "elf", 0o755)
        link(made, "lib", "usr/lib")
        link(made, "sbin", "usr/sbin")
        link(made, "usr/sbin/init", "../lib/systemd/systemd")
        made.add_directory("etc/systemd/system", Entry(DIRECTORY))
        put(made, "opt/app/run", "x", 0o755)
        yield made


def put(tree, path, text="", mode=0o644):
    tree.add_file(path, Entry(FILE, mode, size_bytes=len(text)), (text.encode(),))


def link(tree, path, target):
    tree.add_link(path, Entry(LINK, 0o777, target=target))


def test_manager_is_where_init_leads(tree):
    assert lint(tree, init="/sbin/init", workload=("/opt/app",)).manager == "systemd"
    assert lint(tree, init="/opt/app/run", workload=()).manager == "none"
    assert lint(tree, init="/opt/app/run", workload=(), manager="systemd").manager == "systemd"
    assert lint(tree, init="/lib/systemd/systemd", workload=()).warnings == ()


def test_a_hostname_that_systemd_would_not_keep(tree):
    put(tree, "etc/hostname", "fixed\n")
    assert lint(tree, init="/sbin/init", workload=()).warnings == ()
    assert lint(tree, init="/opt/app/run", workload=(), hostname=True).warnings == ()
    (said,) = lint(tree, init="/sbin/init", workload=(), hostname=True).warnings
    assert "/etc/hostname" in said


@pytest.mark.parametrize("init", ["/absent", "/opt/app", "/etc/passwd", "/sbin/init/x"])
def test_missing_init(tree, init):
    put(tree, "etc/passwd", "x")
    with pytest.raises(BuildError) as caught:
        lint(tree, init=init, workload=())
    assert caught.value.code == "init-missing"


def test_missing_workload(tree):
    with pytest.raises(BuildError) as caught:
        lint(tree, init="/sbin/init", workload=("/opt/app", "/opt/other"))
    assert caught.value.code == "workload-missing"


@pytest.mark.parametrize(
    "path",
    [
        "etc/systemd/system/troth-agent.service",
        "etc/systemd/system/troth-agent.socket",
        "usr/lib/systemd/system/troth-agent@x.service",
        "etc/systemd/system/troth-agent.service.d/x.conf",
        "etc/systemd/system/service.d/x.conf",
        "usr/lib/systemd/system/service.d/10-all.conf",
        "etc/systemd/system/troth-.service.d/x.conf",
        "etc/systemd/system.control/troth-agent.service.d/50.conf",
    ],
)
def test_units_over_the_agent(tree, path):
    put(tree, path)
    with pytest.raises(BuildError) as caught:
        lint(tree, init="/sbin/init", workload=())
    assert caught.value.code == "root-unit-shadowed"
    assert path.startswith(caught.value.message.split()[0].strip("/"))


@pytest.mark.parametrize("name", ["service.d", "troth-agent.service.d"])
def test_linked_drop_in_directories(tree, name):
    link(tree, f"etc/systemd/system/{name}", "/opt")
    with pytest.raises(BuildError) as caught:
        lint(tree, init="/sbin/init", workload=())
    assert caught.value.code == "root-unit-shadowed"


def test_a_mask_of_the_agent_and_a_linked_unit_directory(tree):
    tree.add_directory("opt/units", Entry(DIRECTORY))
    link(tree, "usr/local/lib/systemd/system", "/opt/units")
    link(tree, "opt/units/troth-agent.service", "/dev/null")
    with pytest.raises(BuildError) as caught:
        lint(tree, init="/sbin/init", workload=())
    assert caught.value.code == "root-unit-shadowed"


def test_other_drop_ins_are_nobodys_business(tree):
    put(tree, "etc/systemd/system/ssh.service.d/x.conf")
    put(tree, "etc/systemd/user/service.d/x.conf")
    assert lint(tree, init="/sbin/init", workload=()).warnings == ()


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("etc/cloud/cloud.cfg", "", "cloud-init"),
        ("etc/systemd/system/sysinit.target.wants/debug-shell.service", "", "root shell"),
        (
            "etc/systemd/system/serial-getty@ttyS0.service.d/a.conf",
            "ExecStart=\nExecStart=-/sbin/agetty --autologin root %I",
            "without password",
        ),
    ],
)
def test_warnings(tree, path, text, words):
    put(tree, path, text)
    (warning,) = lint(tree, init="/sbin/init", workload=()).warnings
    assert words in warning


def test_what_is_not_enabled_is_not_warned_of(tree):
    put(tree, "usr/lib/systemd/system/debug-shell.service")
    put(tree, "usr/lib/systemd/system/getty@.service", "ExecStart=-/sbin/agetty %I")
    put(tree, "etc/cloud/cloud.cfg")
    put(tree, "etc/cloud/cloud-init.disabled")
    assert lint(tree, init="/sbin/init", workload=()).warnings == ()

# SPDX-License-Identifier: Apache-2.0
"""The whole of `troth run` against a stand-in for QEMU, and its judgement."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import made_bundle_dir
from troth.cli.main import main
from troth.errors import HostError
from troth.machine import bundle_dir, host_memory, monitor, qemu, runner
from troth.machine.chart import bars, draw
from troth.machine.console import Handover, Panic, Refused, Stage
from troth.machine.outcome import Ending, Record

FAKE = Path(__file__).parent / "data" / "fake-qemu"


#: The name has what charts must escape.
make_bundle = functools.partial(made_bundle_dir.make_bundle, name="demo <&>")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose command line asks the stand-in for a clean handover."""
    return make_bundle(tmp_path / "bundle", scene="clean")


@pytest.fixture
def fake_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in is found as qemu-system-x86_64."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "qemu-system-x86_64").symlink_to(FAKE)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return folder


@pytest.mark.parametrize(
    ("scene", "outcome", "code"),
    [
        ("clean", "handover", None),
        ("look-alike", "handover", None),
        ("forged-panic", "handover", None),
        ("late-panic", "panic", "verity-panic"),
        ("panic", "panic", "kernel-panic"),
        ("refused", "refused", "verity-tree"),
        ("silent", "no-handover", "no-handover"),
        ("failed-stage", "refused", "tpm-absent"),
        ("reboot", "reboot", "guest-reboot"),
        ("workload", "handover", None),
        ("exec-fails", "refused", "init-refused"),
        ("killed", "machine", "qemu-stopped"),
        ("unheard", "machine", "machine-end"),
        ("complains", "machine", "qemu-failed"),
        ("flood", "handover", None),
    ],
)
@pytest.mark.usefixtures("fake_path")
def test_each_end_has_its_verdict(tmp_path, capfd, scene, outcome, code):
    folder = make_bundle(tmp_path / "b", scene=scene)
    status = main(["run", str(folder), "--json", "--timeout", "20"])
    found = json.loads(capfd.readouterr().out)
    assert (found["outcome"], found["code"]) == (outcome, code)
    assert status == (0 if code is None else 1)
    assert not list(tmp_path.glob("troth-run-*"))


@pytest.mark.parametrize(
    ("scene", "outcome", "code"),
    [
        ("workload", "workload", "workload-exited"),
        ("workload-well", "handover", None),
        ("clean", "workload", "workload-lost"),
    ],
)
@pytest.mark.usefixtures("fake_path")
def test_a_supervised_workload_must_end_well(tmp_path, capfd, scene, outcome, code):
    folder = make_bundle(tmp_path / "b", scene=scene, handover="supervise")
    assert main(["run", str(folder), "--json"]) == (0 if code is None else 1)
    found = json.loads(capfd.readouterr().out)
    assert (found["outcome"], found["code"]) == (outcome, code)


@pytest.mark.usefixtures("fake_path")
def test_text_outcomes(tmp_path, capfd, bundle):
    assert main(["run", str(bundle)]) == 0
    shown = capfd.readouterr()
    assert "\x1b" not in shown.out
    assert "troth: stage policy ok 8\n" in shown.out
    assert "handed over to /sbin/init" in shown.err
    refused = make_bundle(tmp_path / "refused", scene="refused")
    assert main(["run", str(refused), "--console", str(tmp_path / "raw")]) == 1
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err == "troth: error [verity-tree]: The tree differs.\n"
    assert b"\x1b[2J" in (tmp_path / "raw").read_bytes()


@pytest.mark.usefixtures("fake_path")
def test_time_out_ends_the_guest(tmp_path, capfd):
    folder = make_bundle(tmp_path / "b", scene="hang")
    began = time.monotonic()
    assert main(["run", str(folder), "--timeout", "0.5", "--json"]) == 1
    assert time.monotonic() - began < 5
    assert json.loads(capfd.readouterr().out)["code"] == "timeout"
    assert not psutil.Process().children(recursive=True)


@pytest.mark.usefixtures("fake_path")
def test_a_refused_guest_that_halts_is_ended(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(runner, "LINGER_S", 0.2)
    folder = make_bundle(tmp_path / "b", scene="halted")
    assert main(["run", str(folder), "--json"]) == 1
    assert json.loads(capfd.readouterr().out)["code"] == "verity-tree"


@pytest.mark.usefixtures("fake_path")
def test_a_terminal_that_lacks_a_character_is_no_reason_to_stop(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    folder = make_bundle(tmp_path / "b", scene="systemd")
    words = [sys.executable, "-m", "troth.cli.main", "run", str(folder)]
    done = subprocess.run(words, capture_output=True, check=True)
    assert b"\\u25cf sshd gr\xfcn\n" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("fake_path")
def test_interrupts_leave_nothing(tmp_path, number):
    folder = make_bundle(tmp_path / "b", scene="hang")
    running = start_run(folder)
    children = psutil.Process(running.pid).children(recursive=True)
    assert children
    running.send_signal(number)
    assert running.wait(timeout=10) == 130
    assert not [child for child in children if child.is_running()]
    assert not list(tmp_path.glob("troth-run-*"))


@pytest.mark.tool
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")
@pytest.mark.usefixtures("fake_path")
def test_a_killed_run_takes_its_guest_along(tmp_path):
    running = start_run(make_bundle(tmp_path / "b", scene="hang"))
    children = psutil.Process(running.pid).children(recursive=True)
    running.kill()
    running.wait()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


def start_run(folder: Path) -> subprocess.Popen[str]:
    """`troth run` in a process of its own, at the point where the guest has spoken."""
    # A shell starts what it puts into the background with this signal ignored, and that is
    # inherited; a handler of ours is not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    running = subprocess.Popen(
        [sys.executable, "-m", "troth.cli.main", "run", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert running.stdout is not None
    with running.stdout as console:
        assert any("handover" in line for line in iter(console.readline, ""))
    return running


@pytest.mark.tool
@pytest.mark.skipif(shutil.which("swtpm") is None, reason="needs swtpm")
@pytest.mark.usefixtures("fake_path")
def test_the_tpm_ends_with_the_guest_and_keeps_its_state(tmp_path, capfd):
    folder = make_bundle(tmp_path / "b", scene="clean", vtpm="required")
    state = tmp_path / "state"
    assert main(["run", str(folder), "--tpm-state", str(state)]) == 0
    assert list(state.iterdir())
    assert not psutil.Process().children(recursive=True)
    capfd.readouterr()


def test_programs_that_are_missing(tmp_path, bundle, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["run", str(bundle)]) == 3
    assert "[qemu-missing]" in capsys.readouterr().err
    folder = make_bundle(tmp_path / "b", scene="clean", vtpm="optional")
    assert main(["run", str(folder)]) == 3
    assert "apt-get install swtpm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("vmlinuz", b"K", "bundle-digest"),
        ("cmdline", b"fake=cleaN\n", "bundle-digest"),
        ("root.img", bytes(512), "bundle-size"),
        ("initramfs", None, "bundle-file"),
        ("policy.json", b'{"handover": {"kind": "Switch"}, "instance": null}', "bundle-digest"),
        ("manifest.json", b"{}", "json-missing"),
        ("manifest.json", None, "bundle-missing"),
    ],
)
def test_a_changed_bundle_is_refused(bundle, capsys, name, change, code):
    if change is None:
        (bundle / name).unlink()
    else:
        (bundle / name).write_bytes(change)
    assert main(["run", str(bundle), "--dry-run"]) in (1, 2)
    assert f"[{code}]" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "", "..", "a\0b"])
def test_artefact_names_stay_in_the_bundle(bundle, capsys, name):
    path = bundle / "manifest.json"
    tree = json.loads(path.read_bytes())
    tree["artefacts"][0]["name"] = name
    path.write_text(json.dumps(tree))
    assert main(["run", str(bundle), "--dry-run"]) == 1
    assert "[bundle-file]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--sim-snp"], "sim-snp"),
        (["--instance", "x"], "sim-snp"),
        (["--sim-control", "x"], "sim-snp"),
        (["--disk", "UPPER=/dev/null"], "usage"),
        (["--disk", "data=/nonexistent"], "disk-file"),
        (["--forward", "1:2", "--no-network"], "usage"),
        (["--forward", "80"], "usage"),
        (["--forward", "0:80"], "usage"),
        (["--forward", "80:65536"], "usage"),
        (["--port", "agent"], "usage"),
        (["--port", "agent=/etc/hostname"], "port-socket"),
        (["--port", "a,b=/tmp/x"], "usage"),
        (["--memory", "1T"], "usage"),
        (["--cpus", "0"], "usage"),
        (["--timeout", "-1"], "usage"),
        (["--timeout", "nan"], "usage"),
        (["--cmdline", "/nonexistent"], "cmdline-file"),
        (["--tpm-state", "x"], "usage"),
        (["--memory", "9999999G"], "usage"),
        (["--memory", "9999999M"], "usage"),
        (["--firmware", "coreboot"], "usage"),
    ],
)
def test_usage_errors(bundle, capsys, options, code):
    assert main(["run", str(bundle), "--dry-run", *options]) == 2
    assert f"[{code}]" in capsys.readouterr().err


def test_the_command_line_of_qemu(tmp_path, bundle, capsys):
    image = tmp_path / "a,b.img"
    image.write_bytes(bytes(512))
    words = ["run", str(bundle), "--dry-run", "--disk", f"data={image},ro", "--memory", "512M"]
    words += ["--forward", "8080:80", "--port", f"agent={tmp_path}/s", "--qemu-arg=-S"]
    assert main([*words, "--firmware", "ovmf"] if Path(OVMF).is_file() else words) == 0
    line = capsys.readouterr().out
    assert f"file.filename={str(image).replace(',', ',,')},readonly=on" in line
    assert "serial=root" in line
    assert "hostfwd=tcp:127.0.0.1:8080-:80" in line
    assert "restrict=on" in line
    assert "name=agent" in line
    assert "-append fake=clean " in line
    assert "-m 512 " in line
    assert line.endswith(" -S\n")
    assert "swtpm" not in line


NETWORK = {"method": "dhcp"}


@pytest.mark.parametrize(
    ("network", "words", "nic"),
    [
        (None, [], "-nic none"),
        (None, ["--forward", "8080:80"], "restrict=on,hostfwd=tcp:127.0.0.1:8080-:80"),
        (NETWORK, [], "-nic user,model=virtio-net-pci -"),
        (NETWORK, ["--forward", "8080:80"],
         "-nic user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:8080-:80"),
        (NETWORK, ["--no-network"], "-nic none"),
        (None, ["--no-network"], "-nic none"),
    ],
)  # fmt: skip
def test_only_a_bundle_with_a_network_reaches_out(tmp_path, capsys, network, words, nic):
    folder = make_bundle(tmp_path / "b", network=network)
    assert main(["run", str(folder), "--dry-run", "--qemu-arg=-S", *words]) == 0
    line = capsys.readouterr().out
    assert nic in line
    assert ("restrict=on" in line) == (network is None and "--forward" in words)


OVMF = qemu.load_description().ovmf


def test_the_command_line_is_taken_byte_for_byte(tmp_path):
    path = tmp_path / "cmdline"
    path.write_bytes(b" a  b=\xff\n\n")
    assert os.fsencode(bundle_dir.read_cmdline(path)) == b" a  b=\xff\n"


def test_machine_descriptions_are_strict(tmp_path):
    text = (qemu.MACHINES / "q35.toml").read_text()
    for broken in (text + "x = 1\n", text.replace('cpu = "max"', ""), "[", text + "cpu = 3"):
        (tmp_path / "m.toml").write_text(broken)
        with pytest.raises(qemu.FormatError, match=r"\w"):
            qemu.load_description("m", folder=tmp_path)


def record(*events, reason="guest-shutdown", timed_out_s=None, status=0) -> Record:
    made = Record("tcg", supervised=False)
    for event in events:
        made.take(event)
    made.ending = Ending(timed_out_s, status, reason, "")
    return made


def test_a_missing_reason_never_makes_a_panic_good():
    late = record(Handover("/sbin/init", 1.0), Panic("verity-panic", "x"), reason="")
    assert late.outcome().code == "verity-panic"


def test_an_unheard_end_is_not_a_good_one():
    ended = record(Handover("/sbin/init", 1.0), reason="").outcome()
    assert (ended.kind, ended.code, ended.good) == ("machine", "machine-end", False)
    assert record(Handover("/sbin/init", 1.0)).outcome().good


def test_the_monitor_is_read_to_its_end(tmp_path):
    """The event that says why is the last thing in the socket when QEMU ends."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "monitor"))
        listener.listen(1)
        heard = monitor.Monitor(tmp_path / "monitor")
        assert heard.connect()
        end, _ = listener.accept()
    with end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        end.sendall(b'{"event": "RESUME"}\n' * 8000)
        end.sendall(b'{"event": "SHUTDOWN", "data": {"reason": "guest-shutdown"}}\n')
    assert heard.reason == ""
    heard.drain()
    heard.close()
    assert heard.reason == "guest-shutdown"


def test_memory_of_this_machine(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  2097152 kB\nMemFree: 1 kB\nSwapTotal:  1048576 kB\n")
    assert host_memory.most_mib(meminfo) == 3072
    meminfo.write_text(f"MemTotal: {1 << 40} kB\n")
    assert host_memory.most_mib(meminfo) == 1000 << 10
    meminfo.write_text("MemTotal: much\n")
    with pytest.raises(HostError) as caught:
        host_memory.most_mib(meminfo)
    assert caught.value.code == "host-memory"
    assert 64 < host_memory.most_mib() <= 1000 << 10


def test_a_refusal_outlives_the_time_limit():
    ended = record(Refused("a", "b"), reason="", timed_out_s=1.0, status=-9)
    assert ended.outcome().code == "a"


def test_the_chart_places_and_escapes():
    run = record(
        Stage("mounts", 100.0, "", 1.5),
        Stage("tee", None, "tpm-absent", 1.75),
        Refused("x", "<script>"),
    )
    kernel, mounts, tee = bars(run)
    assert (kernel.start_s, kernel.end_s) == (0.0, 1.4)
    assert (mounts.start_s, mounts.end_s) == (1.4, 1.5)
    assert (tee.start_s, tee.end_s, tee.kind) == (1.5, 1.75, "failed")
    from xml.etree import ElementTree as ET

    text = draw(run, title="<a&b>")
    assert "<script>" not in text
    assert ET.fromstring(text).tag.endswith("svg")
    assert ET.fromstring(draw(Record("tcg", supervised=False), title="")).tag.endswith("svg")

# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a socket, from the kernel and from a model of an older one."""

import errno
import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_policy import policy
from troth.attest import peers, rights
from troth.attest.peers import Peer
from troth.attest.rights import ATTEST, CONTROL, Rights
from troth.documents import policy_json
from troth.documents.policy import Attest, ExtendRule
from troth.errors import UsageError
from troth.linux import peer as kernel
from troth.record import replace

LIMIT_S = 20


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(str(tmp_path / "socket"))
        found.listen()
        found.settimeout(LIMIT_S)
        yield found


class Old:
    """A kernel before 6.5: no pidfd of the peer. Facts of the process can be changed."""

    def __init__(self, **facts):
        self._facts = facts

    def __getattr__(self, name):
        return getattr(kernel, name)

    def peer_pidfd(self, _connection):
        return None

    def start_time(self, pid):
        times = self._facts.get("start_times")
        return times.pop(0) if times else kernel.start_time(pid)

    def uid_map(self, pid="self"):
        if pid != "self" and "uid_map" in self._facts:
            return self._facts["uid_map"]
        return kernel.uid_map(pid)

    def alive(self, pidfd):
        return self._facts.get("alive", True) and kernel.alive(pidfd)


@pytest.mark.parametrize("system", [kernel, Old()], ids=["peerpidfd", "peercred"])
def test_this_process(listener, system):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            before = len(os.listdir("/proc/self/fd"))
            found = peers.identify(server, system=system)
            assert len(os.listdir("/proc/self/fd")) == before
    assert (found.uid, found.gid, found.pid) == (os.getuid(), os.getgid(), os.getpid())


GONE = """
import socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
peer.sendall(b"GET / HTTP/1.0")
"""


@pytest.mark.parametrize("system", [kernel, Old()], ids=["peerpidfd", "peercred"])
def test_a_process_that_has_ended(listener, system):
    subprocess.run(
        [sys.executable, "-ISB", "-c", GONE, listener.getsockname()], check=True, timeout=LIMIT_S
    )
    server, _ = listener.accept()
    with server, pytest.raises(UsageError) as caught:
        peers.identify(server, system=system)
    assert caught.value.code == "caller-gone"


@pytest.mark.parametrize(
    ("system", "code"),
    [
        (Old(start_times=[1, 2]), "caller-gone"),
        (Old(alive=False), "caller-gone"),
        (Old(uid_map=b"         0       1000          1\n"), "caller-namespace"),
        (Old(uid_map=b""), "caller-namespace"),
    ],
)
def test_processes_that_are_not_who_connected(listener, system, code):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server, pytest.raises(UsageError) as caught:
            peers.identify(server, system=system)
    assert caught.value.code == code


NAMESPACE = """
import ctypes, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000):
    print("no", flush=True); raise SystemExit
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
print("yes", flush=True)
sys.stdin.read()
"""


def test_another_user_namespace(listener):
    child = subprocess.Popen(
        [sys.executable, "-ISB", "-c", NAMESPACE, listener.getsockname()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        if child.stdout.readline() != "yes\n":
            pytest.skip("this kernel makes no user namespaces here")
        server, _ = listener.accept()
        with server, pytest.raises(UsageError) as caught:
            peers.identify(server)
        assert caught.value.code == "caller-namespace"
    finally:
        child.communicate(timeout=LIMIT_S)


def test_old_kernels_have_no_peerpidfd():
    class Connection:
        def __init__(self, number):
            self._number = number

        def getsockopt(self, *_):
            raise OSError(self._number, "x")

    assert kernel.peer_pidfd(Connection(errno.ENOPROTOOPT)) is None
    with pytest.raises(ProcessLookupError):
        kernel.peer_pidfd(Connection(errno.ESRCH))


def test_a_process_with_an_odd_name(tmp_path):
    """The name in /proc/PID/stat is the process's own: here it looks like more fields."""
    code = (
        "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'x) R 1 1 1 ', 0, 0, 0);"
        "print('up', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-ISB", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout.readline() == b"up\n"
        found = kernel.start_time(child.pid)
        assert kernel.start_time(os.getpid()) <= found <= kernel.start_time(os.getpid()) + 10**6
    finally:
        child.communicate(timeout=LIMIT_S)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/", ""),
        ("", ""),
        ("/init.scope", "init.scope"),
        ("/system.slice/app.service", "app.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/system.slice/app.service/other.service", "app.service"),
        ("/system.slice/app.service/a.slice/b.service", "app.service"),
        # What a user's own systemd calls its parts is the user's word.
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app.service",
         "user@1000.service"),
        ("/user.slice/user-1000.slice/session-2.scope", "session-2.scope"),
        ("/docker/0123/app.service", ""),
        ("/../../app.service", ""),
        ("/system.slice/_cgroup.service", "cgroup.service"),
        ("/system.slice/app.service (deleted)", ""),
        ("/system.slice/a b.service", ""),
        ("/system.slice/a\nuid=0.service", ""),
        ("/system.slice/" + "a" * 300 + ".service", ""),
    ],
)  # fmt: skip
def test_units_of_cgroups(path, unit):
    assert peers.unit_of(path) == unit


@given(st.text(max_size=60))
def test_units_are_one_plain_word(path):
    unit = peers.unit_of(path)
    assert unit == "" or (unit.isascii() and unit.isprintable() and " " not in unit)


def peer(uid=1000, unit="app.service"):
    return Peer(uid, uid, 1, unit)


@pytest.mark.parametrize(
    ("attest", "who", "door", "expected"),
    [
        (Attest(), peer(), ATTEST, Rights(False, False, False)),
        (Attest(), peer(0), ATTEST, Rights(False, False, False)),
        (Attest(), peer(0), CONTROL, Rights(False, False, True)),
        (Attest(), peer(), CONTROL, Rights(False, False, False)),
        (Attest(0, "root"), peer(0), CONTROL, Rights(False, True, True)),
        (Attest(0, "root"), peer(0), ATTEST, Rights(False, False, False)),
        (Attest(0, "root"), peer(), CONTROL, Rights(False, False, False)),
        (Attest(0, "group"), peer(), ATTEST, Rights(False, True, False)),
        (Attest(extend=(ExtendRule(1000, ""),)), peer(), ATTEST, Rights(True, False, False)),
        (Attest(extend=(ExtendRule(1000, "app.service"),)), peer(), ATTEST,
         Rights(True, False, False)),
        (Attest(extend=(ExtendRule(1000, "app.service"),)), peer(unit=""), ATTEST,
         Rights(False, False, False)),
        (Attest(extend=(ExtendRule(1000, ""),)), peer(1001), ATTEST, Rights(False, False, False)),
        # Root has no rights of others: it would only have to become them.
        (Attest(extend=(ExtendRule(1000, ""),)), peer(0), CONTROL, Rights(False, False, True)),
    ],
)  # fmt: skip
def test_rights(attest, who, door, expected):
    assert rights.rights(attest, who, door=door) == expected


def test_rules_survive_the_policys_json():
    attest = Attest(900, "group", (ExtendRule(1000, "app@1.service"), ExtendRule(7, "")))
    made = replace(policy(), attest=attest)
    assert policy_json.parse(policy_json.print_(made)) == made

# SPDX-License-Identifier: Apache-2.0
"""Stages keys and volumes outside a guest: the conversation with the process that holds keys.

The worker here is a program of a few lines in the real one's place, on the same
pipes, started by the same code: honest, silent, talkative, or dead.
"""

import os
import time
from types import SimpleNamespace

import pytest

from made_policy import policy
from made_volumes import OTHER_UUID, UUID, VOLUME
from troth.boot import keys, volumes
from troth.boot.state import State
from troth.documents import event_log, event_log_json
from troth.errors import VeiledRefusal
from troth.linux.dm import Map
from troth.measure import pcr
from troth.record import replace
from troth.registers.log import EventLog

LOGS = replace(VOLUME, name="logs", uuid=OTHER_UUID, integrity="aes-gcm", mount="/var/log")
#: Reads orders; ``answer(order)`` says what to write for each.
PROGRAM = """
import os, sys
heard = []
def say(text): os.write(1, text.encode() if isinstance(text, str) else text)
for line in os.fdopen(0, "rb"):
    heard.append(line.decode().rstrip())
    if line.split()[0] in (b"release", b"open"):
        order = line.decode().strip()
        {body}
"""
HONEST = "say('released data ' + b'broker keys'.hex() + '\\ndone\\n')"


@pytest.fixture
def boot(tmp_path, monkeypatch):
    """A boot of one volume up to stage keys; ``worker(body)`` is what it starts."""

    def worker(body):
        monkeypatch.setattr(keys, "_PROGRAM", PROGRAM.format(body=body))
        return made

    made = state(tmp_path)
    yield worker
    for pid in list(made.workers):
        made.key_worker.end(made)
        assert pid not in made.workers


def state(tmp_path, encrypted=(VOLUME,)):
    made = State({}, [], time.monotonic_ns())
    made.policy = replace(policy(snp="simulated"), encrypted=encrypted)
    made.deadline_ns = time.monotonic_ns() + 20 * 10**9
    made.log = EventLog(str(tmp_path / "log"), tpm=None, banks=("sha256", "sha384"))
    for number, volume in enumerate(encrypted):
        made.disks[volume.name] = SimpleNamespace(
            name=f"vd{'bc'[number]}", sectors=4096, number=f"254:{16 * (number + 1)}"
        )
    return made


def events(tmp_path):
    # Not "parse": keyed digests are nothing that a reader could recompute.
    return [item.event for item in event_log_json.read((tmp_path / "log").read_bytes())]


def refused(call, *words):
    with pytest.raises(VeiledRefusal) as caught:
        call(*words)
    return caught.value


def test_what_it_is_told_and_what_is_measured(boot, tmp_path):
    made = boot(f"open({str(tmp_path / 'heard')!r}, 'w').write('|'.join(heard)); {HONEST}")
    keys.run(made)
    *told, deadline, last = (tmp_path / "heard").read_text().split("|")
    assert told == ["disk data vdb 4096 254:16", "bank sha256", "bank sha384"]
    # A worker that waits for somebody ends first, and says for whom.
    assert deadline == f"deadline {made.deadline_ns - 2 * 10**9}"
    assert last == "release"
    (event,) = events(tmp_path)
    assert (event.kind, event.pcr, event.content) == ("key-release", 15, b"broker keys")
    assert made.workers == [made.key_worker.pid]


def test_the_process_is_one_of_its_own(boot, tmp_path):
    """No environment, no ignored or blocked signal, nothing open but the two pipes."""
    path = str(tmp_path / "facts")
    body = (
        f"found = os.listdir('/proc/self/fd'); file = open({path!r}, 'w'); "
        "print(sorted(map(int, found))[:4], dict(os.environ), os.getsid(0) == os.getpid(), "
        f"os.readlink('/proc/self/fd/2'), file=file); file.close(); {HONEST}"
    )
    keys.run(boot(body))
    words = (tmp_path / "facts").read_text()
    # 3 is the directory that is being listed.
    assert words == "[0, 1, 2, 3] {'LC_CTYPE': 'C.UTF-8'} True /dev/null\n" or words == (
        "[0, 1, 2, 3] {} True /dev/null\n"
    )


def test_a_refusal_has_a_public_and_an_exact_code(boot, tmp_path):
    sentence = b"the broker says no".hex()
    made = boot(f"say('refused key-refused kbs-denied {sentence}\\ndone\\n')")
    error = refused(keys.run, made)
    assert (error.code, error.exact) == ("key-refused", "kbs-denied")
    assert str(error) == "the broker says no"
    assert not events(tmp_path)


def test_a_refusal_of_a_worker_that_then_dies(boot):
    made = boot("say('refused header-refused record-mac 2e\\n'); sys.exit(1)")
    error = refused(keys.run, made)
    assert (error.code, error.exact) == ("header-refused", "record-mac")


def test_silence_until_the_deadline(boot):
    made = boot("import time; time.sleep(60)")
    made.deadline_ns = time.monotonic_ns() + 50_000_000
    begun = time.monotonic()
    error = refused(keys.run, made)
    assert (error.code, error.exact) == ("key-refused", "key-worker")
    assert str(error) == "the key worker does not answer"
    assert time.monotonic() - begun < 10


def test_a_deadline_that_has_passed(boot):
    made = boot(HONEST)
    made.deadline_ns = time.monotonic_ns() - 1
    assert refused(keys.run, made).exact == "key-worker"


def test_of_little_time_a_worker_gets_most(boot, tmp_path):
    made = boot(f"open({str(tmp_path / 'heard')!r}, 'w').write('|'.join(heard)); {HONEST}")
    made.deadline_ns = time.monotonic_ns() + 4 * 10**9
    keys.run(made)
    told_ns = int((tmp_path / "heard").read_text().split("|")[-2].removeprefix("deadline "))
    assert 0 <= made.deadline_ns - told_ns <= 10**9


def test_one_byte_at_a_time_is_silence_too(boot):
    made = boot("import time\n        while True: say('x'); time.sleep(0.01)")
    made.deadline_ns = time.monotonic_ns() + 300_000_000
    assert str(refused(keys.run, made)) == "the key worker does not answer"


@pytest.mark.parametrize(
    "body",
    [
        "sys.exit(0)",
        "os.kill(os.getpid(), 9)",
        "say('released data 2e\\n'); sys.exit(0)",
        "say('released data 2e\\ndon'); sys.exit(0)",
        "say('refused key-refused\\n'); sys.exit(0)",
        "undefined",
    ],
    ids=["exit", "killed", "before done", "within done", "within a refusal", "exception"],
)
def test_death(boot, body):
    error = refused(keys.run, boot(body))
    assert (error.code, error.exact) == ("key-refused", "key-worker")


@pytest.mark.parametrize(
    "answer",
    [
        b"done\n",
        b"released other 2e\ndone\n",
        b"released data\ndone\n",
        b"released data 2e 2e\ndone\n",
        b"released data 2e\nreleased data 2e\ndone\n",
        b"released data 2e\nmore\ndone\n",
        b"released data 2\ndone\n",
        b"released data zz\ndone\n",
        b"released data \xc3\xa9\ndone\n",
        b"\0\xff\xfe\ndone\n",
        b"\n\ndone\n",
        b"opened data x 1 2e sha256=00\ndone\n",
        b"undone\n",
        b"released data 2edone\n",
        b"refused whatever key-refused 2e\ndone\n",
        b"refused key-refused a b c\ndone\n",
    ],
)
def test_garbage(boot, answer, tmp_path):
    error = refused(keys.run, boot(f"say({answer!r})"))
    assert (error.code, error.exact) == ("key-refused", "key-worker")
    assert (tmp_path / "log").read_bytes() == b""


def test_a_refusal_whose_sentence_is_no_hex(boot):
    error = refused(keys.run, boot("say('refused key-refused kbs-denied zz\\ndone\\n')"))
    assert (error.exact, str(error)) == ("kbs-denied", "its answer is none")


def test_too_much(boot):
    body = "say('released data 2e\\n' * 4000 + 'done\\n')"
    error = refused(keys.run, boot(body))
    assert str(error) == "the key worker says too much"


def test_too_much_without_an_end(boot):
    # The worker blocks in its write once the pipe is full and nobody reads on.
    error = refused(keys.run, boot("while True: say('x' * 4096)"))
    assert str(error) == "the key worker says too much"


def test_the_end_of_a_worker_that_does_not_listen(boot):
    made = boot(f"{HONEST}; import time; time.sleep(60)")
    keys.run(made)
    pid = made.key_worker.pid
    made.key_worker.end(made)
    assert made.workers == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_no_descriptor_is_left(boot):
    before = os.listdir("/proc/self/fd")
    made = boot(HONEST)
    keys.run(made)
    made.key_worker.end(made)
    assert os.listdir("/proc/self/fd") == before


# --- stage volumes ---------------------------------------------------------------------------


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """What sysfs says of maps: ``put(minor, name, ro)``."""
    base = tmp_path / "block"

    def put(minor, name, ro):
        place = base / f"dm-{minor}"
        (place / "dm").mkdir(parents=True)
        (place / "dm/name").write_text(f"{name}\n")
        (place / "ro").write_text(f"{ro}\n")

    monkeypatch.setattr(volumes, "BASE", str(base))
    return put


def opened_line(volume=VOLUME, *, minor="3", name="", content=None, digests=None):
    content = f"cryptsetup:{volume.map_name}:{volume.uuid}".encode() if content is None else content
    digests = f"sha256={'11' * 32},sha384={'22' * 48}" if digests is None else digests
    return f"opened {volume.name} {name or volume.map_name} {minor} {content.hex()} {digests}\n"


def ready(boot, answer):
    """A boot whose keys are there and whose worker will say ``answer`` to ``open``."""
    made = boot(f"if order == 'open': say({answer!r})\n        else: {HONEST}")
    keys.run(made)
    return made


def test_volumes_are_measured_before_anything_is_read(boot, shown, tmp_path):
    shown(3, "troth-data", 0)
    made = ready(boot, opened_line() + "done\n")
    pid = made.key_worker.pid
    volumes.run(made)
    assert made.opened == {"data": Map("troth-data", 3)}
    assert made.key_worker is None
    assert made.workers == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    event = events(tmp_path)[1]
    assert (event.kind, event.pcr) == ("volume-key", 15)
    assert event.content == f"cryptsetup:troth-data:{UUID}".encode()
    assert event.digests == (("sha256", b"\x11" * 32), ("sha384", b"\x22" * 48))


def test_two_volumes_in_the_order_of_the_policy(boot, shown, tmp_path):
    shown(3, "troth-data", 0)
    shown(5, "troth-logs", 0)
    released = "say('released data 61\\nreleased logs 62\\ndone\\n')"
    answer = opened_line() + opened_line(LOGS, minor="5")
    made = boot(f"if order == 'open': say({answer + 'done' + chr(10)!r})\n        else: {released}")
    made.policy = replace(made.policy, encrypted=(VOLUME, LOGS))
    made.disks["logs"] = made.disks["data"]
    keys.run(made)
    volumes.run(made)
    assert list(made.opened) == ["data", "logs"]
    kinds = [event.kind for event in events(tmp_path)]
    assert kinds == ["key-release", "key-release", "volume-key", "volume-key"]


def test_what_lies_below_a_verified_volume_must_be_readonly(boot, shown):
    root = replace(VOLUME, name="root", mount="", file_system="", integrity="none")
    shown(3, "troth-root-clear", 1)
    made = boot(
        f"if order == 'open': say({opened_line(root) + 'done' + chr(10)!r})\n"
        "        else: say('released root 61\\ndone\\n')"
    )
    made.policy = replace(made.policy, encrypted=(root,))
    made.disks["root"] = made.disks["data"]
    keys.run(made)
    volumes.run(made)
    assert made.opened == {"root": Map("troth-root-clear", 3)}


@pytest.mark.parametrize(
    ("name", "ro"), [("troth-logs", 0), ("troth-data", 1), ("", 0)],
    ids=["another name", "not writable", "no name"],
)  # fmt: skip
def test_a_map_that_the_kernel_shows_otherwise(boot, shown, name, ro, tmp_path):
    shown(3, name, ro)
    made = ready(boot, opened_line() + "done\n")
    error = refused(volumes.run, made)
    assert (error.code, error.exact) == ("volume-refused", "volume-map")
    assert [event.kind for event in events(tmp_path)] == ["key-release"]
    assert made.workers == []


def test_a_writable_map_where_it_must_not_be(shown):
    shown(3, "troth-root-clear", 0)
    with pytest.raises(VeiledRefusal):
        volumes._check(Map("troth-root-clear", 3), readonly=True)


def test_a_map_that_is_not_there(boot, shown):
    error = refused(volumes.run, ready(boot, opened_line() + "done\n"))
    assert (error.code, error.exact) == ("volume-refused", "volume-map")


SHORT = f"sha256={'11' * 31},sha384={'22' * 48}"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        opened_line() + opened_line(),
        opened_line(LOGS),
        opened_line(name="troth-root"),
        opened_line(minor="-3"),
        opened_line(minor="x"),
        opened_line(minor="9" * 5000),
        opened_line(content=b"cryptsetup:troth-data:other"),
        opened_line(content=b""),
        opened_line(digests="zz"),
        opened_line(digests=SHORT),
        opened_line(digests=f"sha256={'11' * 32}"),
        opened_line(digests=f"sha384={'22' * 48},sha256={'11' * 32}"),
        opened_line(digests=f"sha256={'11' * 32},sha384={'22' * 48},sha512={'33' * 64}"),
        opened_line(digests=f"md5={'11' * 16},sha384={'22' * 48}"),
        opened_line().replace(" ", "  "),
        opened_line() + "released data 2e\n",
    ],
)
def test_an_answer_that_cannot_be(boot, shown, answer, tmp_path):
    shown(3, "troth-data", 0)
    made = ready(boot, answer + "done\n")
    error = refused(volumes.run, made)
    assert (error.code, error.exact) == ("volume-refused", "key-worker")
    assert [event.kind for event in events(tmp_path)] == ["key-release"]
    assert made.opened == {}


def test_a_header_that_is_refused(boot, shown):
    made = ready(boot, "refused header-refused record-rolled-back 6f6c64\ndone\n")
    error = refused(volumes.run, made)
    assert (error.code, error.exact, str(error)) == ("header-refused", "record-rolled-back", "old")


def test_volumes_without_keys(boot):
    made = boot(HONEST)
    with pytest.raises(RuntimeError, match="left no worker"):
        volumes.run(made)


# --- the log ---------------------------------------------------------------------------------


def test_a_keyed_event_extends_what_it_is_given(tmp_path):
    log = EventLog(str(tmp_path / "log"), tpm=None, banks=("sha256",))
    log.measure_keyed(event_log.VOLUME_KEY, b"cryptsetup:x:y", (("sha256", b"\x11" * 32),))
    (event,) = events(tmp_path)
    assert event.digests == (("sha256", b"\x11" * 32),)
    assert pcr.replay([event])["sha256", 15] == pcr.extend("sha256", bytes(32), b"\x11" * 32)


@pytest.mark.parametrize(
    "digests",
    [
        (),
        (("sha384", bytes(48)),),
        (("sha384", bytes(48)), ("sha256", bytes(32))),
        (("sha256", bytes(32)), ("sha384", bytes(48)), ("sha512", bytes(64))),
    ],
)
def test_a_keyed_event_has_the_banks_of_the_log(tmp_path, digests):
    log = EventLog(str(tmp_path / "log"), tpm=None, banks=("sha256", "sha384"))
    assert log.banks == ("sha256", "sha384")
    with pytest.raises(ValueError, match="other banks"):
        log.measure_keyed(event_log.VOLUME_KEY, b"x", digests)
    assert (tmp_path / "log").read_bytes() == b""
    assert log.count == 0

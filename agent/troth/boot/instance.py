# SPDX-License-Identifier: Apache-2.0
"""Stage 5, second part: the instance configuration, if it is the one the launch names.

HOST_DATA of the guest's own report, which stage tee has kept, is the SHA-256 of
the file. It reached the guest under a key that the host does not have, so a
host that swaps the file after the launch is refused; what it chose at the
launch stands in every report for a verifier to judge (SECURITY V-j, S20). The
disk is read once. The file is parsed in a worker that ends at once: it needs
what PID 1 must not carry, and a host wrote it.
"""

from __future__ import annotations

import os

from troth.abi.hashes import sha256
from troth.documents import event_log, instance_disk
from troth.documents.policy import INSTANCE_SERIAL, REQUIRED
from troth.errors import FormatError, Refusal
from troth.linux import block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from troth.boot.state import State
    from troth.documents.policy import InstanceRules

_HOSTNAME = "/proc/sys/kernel/hostname"
_ANSWER_BYTES = 4096
#: First byte of the worker's answer; the hostname or a sentence follows.
_GOOD, _NOT_ALLOWED, _BAD = b"+", b"p", b"f"


def run(state: State) -> None:
    """Measure the configuration, leave it at ``instance_disk.PATH``, set the hostname.

    Raises ``Refusal``: ``instance-missing``, ``instance-digest``, ``instance-size``,
    ``instance-read``, ``instance-format``, ``instance-policy``.
    """
    rules, own = state.policy.instance, state.own_report
    if rules is None or own is None:
        raise RuntimeError("no rules, or no report of stage tee")
    if not any(own.host_data):
        _check_none(rules)
        return
    content = _read(state.disks[INSTANCE_SERIAL].node)
    digest = sha256(content).digest()
    if digest != own.host_data:
        raise Refusal(
            "instance-digest",
            f"SHA-256 of the {len(content)} bytes on disk serial:{INSTANCE_SERIAL} is"
            f" {digest.hex()}, HOST_DATA of this launch is {own.host_data.hex()}",
        )
    state.events.measure(event_log.INSTANCE, digest)
    state.events.confirm()
    hostname = _judged(content, rules)
    _write(content)
    if hostname:
        with open(_HOSTNAME, "wb", buffering=0) as file:
            file.write(hostname)


def _check_none(rules: InstanceRules) -> None:
    """The launch names none: right only where none is needed, and none was forgotten."""
    if rules.need == REQUIRED:
        raise Refusal(
            "instance-missing",
            "the policy requires an instance configuration, and HOST_DATA of this launch is zero",
        )
    if any(disk.serial == INSTANCE_SERIAL for disk in block.disks()):
        raise Refusal(
            "instance-digest",
            f"there is a disk serial:{INSTANCE_SERIAL}, and HOST_DATA of this launch is zero",
        )


def _read(node: str) -> bytes:
    try:
        fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = os.pread(fd, instance_disk.READ_BYTES, 0)
        finally:
            os.close(fd)
    except OSError as error:
        raise Refusal("instance-read", f"{node}: {error.strerror}") from error
    try:
        return instance_disk.content(head)
    except FormatError as error:
        raise Refusal("instance-size", error.message) from error


def _judged(content: bytes, rules: InstanceRules) -> bytes:
    """The hostname that ``content`` sets, b"" for none; ``Refusal`` as the worker says."""
    said, says = os.pipe()
    child = os.fork()
    if not child:
        _work(content, rules, says)
    os.close(says)
    answer = b""
    while part := os.read(said, _ANSWER_BYTES):
        answer += part
    os.close(said)
    os.waitpid(child, 0)
    if answer[:1] == _GOOD:
        return answer[1:]
    sentence = answer[1:].decode("ascii", "replace")
    if answer[:1] == _NOT_ALLOWED:
        raise Refusal("instance-policy", sentence)
    # A worker that said nothing has not accepted anything.
    raise Refusal("instance-format", sentence or "its reader ended without a word")


def _work(content: bytes, rules: InstanceRules, answers: int) -> NoReturn:
    """The worker: one answer, then the end, whatever happens."""
    try:
        from troth.documents import instance

        try:
            found = instance.parse(content)
            instance.judge(found, rules)
            answer = _GOOD + found.hostname.encode()
        except FormatError as error:
            mark, said = _BAD, f"{error.code}: {error.message}"
            if error.code == "instance-policy":
                mark, said = _NOT_ALLOWED, error.message
            # Keys of the file may stand in the sentence: nothing of them may end its line.
            answer = mark + ascii(said)[1:-1].encode("ascii")[: _ANSWER_BYTES - 1]
        os.write(answers, answer)
    finally:
        os._exit(0)


def _write(content: bytes) -> None:
    """As it was given, so that its digest can be taken again; the host knows it: no secret."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(instance_disk.PATH, flags, 0o644)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)

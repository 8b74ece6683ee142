# SPDX-License-Identifier: Apache-2.0
"""The configfs-tsm tree as a file system in user space: names, descriptors, reads and writes.

Serves ``main``. What a report directory does is ``tsm_tree``'s; here is what
configfs does around it: which file may be opened how, binary values that are
judged when the file is closed and then tell nobody, a blob that one open file
keeps. Must never wait: reading a blob is work for the one queue that ``main`` has.

Source: Linux, include/uapi/linux/fuse.h, protocol 7.31; fs/configfs/file.c.
"""

from __future__ import annotations

import errno
import stat
import struct

from troth.errors import FormatError
from troth.simulated.front import messages, tsm_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from troth.simulated.front.driver import Ask, Outcome
    from troth.simulated.front.messages import Message
    from troth.simulated.front.tsm_tree import Attribute, Report, Reports

    Work = Generator[Ask, Outcome, bytes]

NODE = "/dev/fuse"
MOUNT_POINT = "/sys/kernel/config"
SOURCE = "simulated-configfs"

_ROOT, _TSM, _REPORT = 1, 2, 3
_FIRST_DIRECTORY = 16
_PER_DIRECTORY = 16
_ROOT_MODE = stat.S_IFDIR | 0o755
_TEXT_BYTES = 4096
_NAME_BYTES = 255
_ACCESS = 3
_WRITE_ONLY, _READ_ONLY = 1, 0
_DIRECT_IO = 1
_MAX_OPEN = 4096
_BLOCK_BYTES = 4096

_INIT_IN = struct.Struct("<IIII")
_INIT_OUT = struct.Struct("<IIIIHHIIHH32s")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_ENTRY_HEAD = struct.Struct("<QQQQII")
_ATTR_HEAD = struct.Struct("<QII")
_OPEN_IN = struct.Struct("<II")
_OPEN_OUT = struct.Struct("<QII")
_READ_IN = struct.Struct("<QQIIQII")
_WRITE_IN = struct.Struct("<QQIIQII")
_WRITE_OUT = struct.Struct("<II")
_MKDIR_IN = struct.Struct("<II")
_HANDLE_IN = struct.Struct("<Q")
_DIRENT = struct.Struct("<QQII")
_STATFS = struct.Struct("<QQQQQIIII24s")


class _Open:
    """An open attribute: what was read at first stays, what is written is kept until the close."""

    def __init__(self, report: Report, attribute: Attribute) -> None:
        self.report = report
        self.attribute = attribute
        self.content: bytes | None = None
        self.written = b""
        self.is_dirty = False


class _Node:
    """One inode: its ``mode``, and the report directory and attribute that it is."""

    def __init__(self, mode: int, name: str = "", attribute: Attribute | None = None) -> None:
        self.mode = mode
        self.name = name
        self.attribute = attribute


class FileSystem:
    """The tree over ``reports``."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._next = _FIRST_DIRECTORY
        self._open: dict[int, _Open] = {}
        self._handles = 0
        self._does: dict[int, Callable[[Message], bytes | Work]] = {
            messages.INIT: _initialise,
            messages.LOOKUP: self._lookup,
            messages.GETATTR: self._getattr,
            messages.SETATTR: self._getattr,
            messages.MKDIR: self._mkdir,
            messages.RMDIR: self._rmdir,
            messages.OPEN: self._open_file,
            messages.READ: self._read,
            messages.WRITE: self._write,
            messages.FLUSH: self._flush,
            messages.RELEASE: self._release,
            messages.OPENDIR: lambda _: _OPEN_OUT.pack(0, 0, 0),
            messages.READDIR: self._readdir,
            messages.RELEASEDIR: lambda _: b"",
            messages.STATFS: lambda _: _STATFS.pack(
                0, 0, 0, 0, 0, _BLOCK_BYTES, 255, _BLOCK_BYTES, 0, b""
            ),
            messages.DESTROY: lambda _: b"",
        }
        for opcode in (messages.MKNOD, messages.CREATE):
            self._does[opcode] = lambda _: _refused(errno.EACCES)
        for opcode in (messages.SYMLINK, messages.UNLINK, messages.RENAME, messages.RENAME2):
            self._does[opcode] = lambda _: _refused(errno.EPERM)

    def answer(self, message: Message) -> bytes | Work | None:
        """The reply to ``message``, or the work that ends in the reply's body; none if none is due.

        ``FormatError`` ``sim-message``.
        """
        if message.opcode in messages.WITHOUT_REPLY:
            return None
        does = self._does.get(message.opcode)
        if does is None:
            return messages.failure(message.unique, errno.ENOSYS)
        try:
            found = does(message)
        except OSError as error:
            return messages.failure(message.unique, error.errno or errno.EIO)
        return messages.reply(message.unique, found) if isinstance(found, bytes) else found

    # Names

    def _lookup(self, message: Message) -> bytes:
        name = _name(message.body)
        fixed = {(_ROOT, "tsm"): _TSM, (_TSM, "report"): _REPORT}
        number = fixed.get((message.node, name))
        if number is None and message.node == _REPORT:
            number = self._numbers.get(name)
        if number is None and self._node(message.node).name:
            names = [attribute.name for attribute in tsm_tree.ATTRIBUTES]
            number = message.node + 1 + names.index(name) if name in names else None
        if number is None:
            raise _error(errno.ENOENT)
        return self._entry(number)

    def _mkdir(self, message: Message) -> bytes:
        messages.fields(_MKDIR_IN, message)
        name = _name(message.body[_MKDIR_IN.size :])
        if message.node != _REPORT:
            # No other subsystem of configfs is here, and groups of this one are fixed.
            raise _error(errno.EPERM)
        self._reports.make(name)
        number, self._next = self._next, self._next + _PER_DIRECTORY
        self._numbers[name] = number
        self._names[number] = name
        return self._entry(number)

    def _rmdir(self, message: Message) -> bytes:
        name = _name(message.body)
        if message.node != _REPORT:
            raise _error(errno.EPERM)
        self._reports.remove(name)
        del self._names[self._numbers.pop(name)]
        return b""

    def _readdir(self, message: Message) -> bytes:
        _, offset, size_bytes, *_ = messages.fields(_READ_IN, message)
        entries = b""
        for position, (name, number, mode) in enumerate(self._children(message.node), 1):
            if position <= offset:
                continue
            raw = name.encode("utf-8", "surrogateescape")
            entry = _DIRENT.pack(number, position, len(raw), mode >> 12) + raw
            entry = entry.ljust(-(-len(entry) // 8) * 8, b"\0")
            if len(entries) + len(entry) > size_bytes:
                break
            entries += entry
        return entries

    def _children(self, number: int) -> list[tuple[str, int, int]]:
        node = self._node(number)
        found = [(".", number, stat.S_IFDIR), ("..", _ROOT, stat.S_IFDIR)]
        if number == _ROOT:
            found.append(("tsm", _TSM, stat.S_IFDIR))
        elif number == _TSM:
            found.append(("report", _REPORT, stat.S_IFDIR))
        elif number == _REPORT:
            found += [(name, at, stat.S_IFDIR) for name, at in self._numbers.items()]
        elif node.attribute is None:
            found += [
                (attribute.name, number + at, stat.S_IFREG)
                for at, attribute in enumerate(tsm_tree.ATTRIBUTES, 1)
            ]
        return found

    def _node(self, number: int) -> _Node:
        """``OSError`` ENOENT for an inode that is gone."""
        if number in (_ROOT, _TSM, _REPORT):
            return _Node(_ROOT_MODE)
        at = (number - _FIRST_DIRECTORY) % _PER_DIRECTORY
        name = self._names.get(number - at)
        if name is None or at > len(tsm_tree.ATTRIBUTES):
            raise _error(errno.ENOENT)
        if not at:
            return _Node(_ROOT_MODE, name)
        attribute = tsm_tree.ATTRIBUTES[at - 1]
        return _Node(stat.S_IFREG | attribute.mode, name, attribute)

    def _entry(self, number: int) -> bytes:
        # Nothing is kept by the kernel: names come and go here.
        return _ENTRY_HEAD.pack(number, 0, 0, 0, 0, 0) + self._attributes(number)

    def _getattr(self, message: Message) -> bytes:
        """Also of SETATTR: configfs takes a truncation, which every shell sends, for nothing."""
        return _ATTR_HEAD.pack(0, 0, 0) + self._attributes(message.node)

    def _attributes(self, number: int) -> bytes:
        node = self._node(number)
        is_text = node.attribute is not None and not node.attribute.is_binary
        links = 1 if node.attribute is not None else 2
        size_bytes = _TEXT_BYTES if is_text else 0
        return _ATTR.pack(
            number, size_bytes, 0, 0, 0, 0, 0, 0, 0, node.mode, links, 0, 0, 0, _BLOCK_BYTES, 0
        )

    # Contents

    def _open_file(self, message: Message) -> bytes:
        flags, _ = messages.fields(_OPEN_IN, message)
        node = self._node(message.node)
        if node.attribute is None:
            raise _error(errno.EISDIR)
        access = flags & _ACCESS
        # configfs refuses root too what the attribute has no function for.
        wants_read, wants_write = access != _WRITE_ONLY, access != _READ_ONLY
        if (wants_read and not node.mode & 0o444) or (wants_write and not node.mode & 0o222):
            raise _error(errno.EACCES)
        if len(self._open) >= _MAX_OPEN:
            raise _error(errno.ENFILE)
        self._handles += 1
        self._open[self._handles] = _Open(self._reports.found[node.name], node.attribute)
        return _OPEN_OUT.pack(self._handles, _DIRECT_IO, 0)

    def _opened(self, message: Message, handle: int) -> _Open:
        """The open file; ``OSError`` EBADF, and ENOENT once its directory is removed."""
        found = self._open.get(handle)
        if found is None:
            raise _error(errno.EBADF)
        self._node(message.node)
        return found

    def _read(self, message: Message) -> Work:
        handle, offset, size_bytes, *_ = messages.fields(_READ_IN, message)
        return self._content(message, handle, offset, size_bytes)

    def _content(self, message: Message, handle: int, offset: int, size_bytes: int) -> Work:
        file = self._opened(message, handle)
        if file.content is None:
            if file.attribute.is_binary:
                file.content = yield from file.report.blob(file.attribute.name)
            else:
                file.content = file.report.text(file.attribute.name)
        return file.content[offset : offset + size_bytes]

    def _write(self, message: Message) -> Work:
        handle, offset, size_bytes, *_ = messages.fields(_WRITE_IN, message)
        data = message.body[_WRITE_IN.size :]
        if len(data) != size_bytes:
            raise FormatError("sim-message", f"{len(data)} bytes to write, not {size_bytes}")
        return self._take(message, handle, offset, data)

    def _take(self, message: Message, handle: int, offset: int, data: bytes) -> Work:
        # A step like the reads, which it must not overtake; it asks for nothing itself.
        yield from ()
        file = self._opened(message, handle)
        if not file.attribute.is_binary:
            # One buffer for a text, and the end of its string.
            data = data[: _TEXT_BYTES - 1]
            file.report.store_level(data)
            return _WRITE_OUT.pack(len(data), 0)
        # Even what is refused here makes the close a write, of what had come before.
        file.is_dirty = True
        if offset + len(data) > tsm_tree.IN_BYTES:
            raise _error(errno.EFBIG)
        kept = file.written[:offset].ljust(offset, b"\0")
        file.written = kept + data + file.written[offset + len(data) :]
        return _WRITE_OUT.pack(len(data), 0)

    def _flush(self, message: Message) -> Work:
        """A close by one of the file's owners; the kernel's configfs waits for the last."""
        (handle,) = messages.fields(_HANDLE_IN, message)
        return self._close(message, handle)

    def _close(self, message: Message, handle: int) -> Work:
        yield from ()
        file = self._open.get(handle)
        if file is not None and file.is_dirty:
            file.is_dirty = False
            try:
                self._opened(message, handle).report.store_inblob(file.written)
            except OSError:
                # configfs tells nobody: the generation shows it.
                return b""
        return b""

    def _release(self, message: Message) -> bytes:
        (handle,) = messages.fields(_HANDLE_IN, message)
        self._open.pop(handle, None)
        return b""


def mount_options(fd: int) -> str:
    """What mount(2) needs besides the type: the open /dev/fuse, for root and everybody else."""
    mode = f"{_ROOT_MODE:o}"
    return f"fd={fd},rootmode={mode},user_id=0,group_id=0,default_permissions,allow_other"


def _initialise(message: Message) -> bytes:
    major, minor, ahead, _ = messages.fields(_INIT_IN, message)
    if (major, minor) < (messages.MAJOR, messages.MINOR):
        raise FormatError("sim-message", f"FUSE speaks {major}.{minor}")
    return _INIT_OUT.pack(
        messages.MAJOR, messages.MINOR, ahead, 0, 0, 0, messages.MAX_WRITE_BYTES, 1, 0, 0, b""
    )


def _name(data: bytes) -> str:
    """``OSError`` ENAMETOOLONG: the kernel's FUSE takes longer names than its configfs."""
    name = data.partition(b"\0")[0]
    if len(name) > _NAME_BYTES:
        raise _error(errno.ENAMETOOLONG)
    return name.decode("utf-8", "surrogateescape")


def _refused(number: int) -> bytes:
    raise _error(number)


def _error(number: int) -> OSError:
    return OSError(number, errno.errorcode.get(number, ""))

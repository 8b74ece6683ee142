# SPDX-License-Identifier: Apache-2.0
"""A model of the kernel's two report interfaces, for tests: the ioctls and the configfs tree.

Written from the kernel's behaviour, not from troth's code: the driver reads and
writes the caller's memory by address, and configfs swallows what a binary write
says when it is closed.
"""

import ctypes
import errno
import hashlib
import os
import struct

from made_reports import report_of

GET_REPORT, GET_DERIVED_KEY, GET_EXT_REPORT = 0xC0205300, 0xC0205301, 0xC0205302
SIZES = {GET_REPORT: 96, GET_EXT_REPORT: 112, GET_DERIVED_KEY: 32}


class Driver:
    """Takes the place of ``fcntl``: answers as drivers/virt/coco/sev-guest does.

    ``faults``: for each request to come a dictionary with ``errno``, ``firmware``,
    ``vmm``, ``needed`` (bytes for certificates), ``status``, ``size``, ``report`` (a
    function of the report's bytes).
    """

    def __init__(self, *, certificates=b"", vmpl=0, faults=()):
        self.certificates = certificates
        self.vmpl = vmpl
        self.faults = list(faults)
        self.requests = []
        self.key = b"K" * 32

    def ioctl(self, fd, number, argument, mutate):
        assert (mutate, len(argument)) == (True, 32)
        os.fstat(fd)
        version, request, response, firmware, vmm = struct.unpack("<B7xQQII", argument)
        assert (version, firmware, vmm) == (1, 0, 0)
        fault = self.faults.pop(0) if self.faults else {}
        body = ctypes.string_at(request, SIZES[number])
        self.requests.append((number, body))
        room = struct.unpack_from("<I", body, 104)[0] if number == GET_EXT_REPORT else 0
        needed = fault.get("needed", -(-len(self.certificates) // 4096) * 4096)
        failed = fault.get("errno", 0)
        struct.pack_into("<II", argument, 24, fault.get("firmware", 0), fault.get("vmm", 0))
        if (room and needed > room) or "needed" in fault:
            ctypes.memmove(request + 104, struct.pack("<I", needed), 4)
            struct.pack_into("<I", argument, 28, 1)
            failed = errno.EIO
        if failed:
            raise OSError(failed, os.strerror(failed))
        answer = self.answer(number, body, fault)
        ctypes.memmove(response, answer, len(answer))
        return 0

    def answer(self, number, body, fault):
        status = fault.get("status", 0)
        if number == GET_DERIVED_KEY:
            return struct.pack("<I28s32s", status, b"", bytes(32) if status else self.key)
        if number == GET_EXT_REPORT:
            address = struct.unpack_from("<Q", body, 96)[0]
            ctypes.memmove(address, self.certificates, len(self.certificates))
        data, vmpl, key = struct.unpack_from("<64sII", body)
        if vmpl < self.vmpl:
            status = 0x16
        report = bytes(0) if status else report_of(data, vmpl=vmpl, vlek=key == 2)
        report = fault.get("report", lambda same: same)(report)
        head = struct.pack("<II24s", status, fault.get("size", len(report)), b"")
        return (head + report).ljust(4000, b"\0")


class FakeReports:
    """A configfs report directory; ``floor`` none: no service module."""

    def __init__(self, *, floor=None, certificates=b"", manifest=b"", provider=b"sev_guest\n"):
        self.root = "/config/tsm/report"
        self.floor, self.certificates, self.manifest = floor, certificates, manifest
        self.provider = provider
        self.live = {}
        self.made = []
        self.make_errno = 0
        self.read_errno = 0
        self.change = lambda report: report
        self.on_read = lambda directory: None

    def make(self, name):
        if self.make_errno:
            raise OSError(self.make_errno, os.strerror(self.make_errno))
        assert name not in self.live
        self.live[name] = FakeDirectory(self, name)
        self.made.append(self.live[name])
        return self.live[name]


class FakeDirectory:
    def __init__(self, reports, name):
        self.reports, self.name = reports, name
        self.path = f"{reports.root}/{name}"
        self.generation = 0
        self.written = {}
        self.report = None

    def names(self):
        common = {"inblob", "outblob", "auxblob", "provider", "generation", "privlevel"}
        if self.reports.floor is None:
            return common
        service = {"service_provider", "service_guid", "service_manifest_version", "manifestblob"}
        return common | service | {"privlevel_floor"}

    def has(self, name):
        return name in self.names()

    def write(self, name, value):
        if name not in self.names():
            raise OSError(errno.ENOENT, "ENOENT")
        if name == "inblob" and len(value) > 64:
            return
        if name == "privlevel" and not (self.reports.floor or 0) <= int(value) <= 3:
            raise OSError(errno.EINVAL, "EINVAL")
        self.generation += 1
        self.written[name] = value
        self.report = None

    def read(self, name, *, limit_bytes):
        if name not in self.names():
            raise OSError(errno.ENOENT, "ENOENT")
        if name == "provider":
            return self.reports.provider
        if name == "generation":
            return b"%d\n" % self.generation
        if name == "privlevel_floor":
            return b"%d\n" % self.reports.floor
        self.reports.on_read(self)
        if self.reports.read_errno:
            raise OSError(self.reports.read_errno, "read")
        if len(self.written.get("inblob", b"")) != 64:
            raise OSError(errno.EINVAL, "EINVAL")
        vmpl = int(self.written.get("privlevel", b"0"))
        data = self.written["inblob"]
        if self.written.get("service_provider") == b"svsm":
            data, vmpl = hashlib.sha512(data + self.reports.manifest).digest(), 0
        elif vmpl < (self.reports.floor or 0):
            raise OSError(errno.EINVAL, "EINVAL")
        blobs = {
            "outblob": self.reports.change(report_of(data, vmpl=vmpl)),
            "auxblob": self.reports.certificates,
            "manifestblob": self.reports.manifest,
        }
        return blobs[name][: limit_bytes + 1]

    def remove(self):
        del self.reports.live[self.name]

# SPDX-License-Identifier: Apache-2.0
"""troth.toml: values, refusals and the line each refusal names."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.documents.policy import InstanceRules, Network
from troth.documents.toml_source import key_lines
from troth.errors import ManifestError
from troth.image.inputs import manifest, manifest_records

BASE = """\
[image]
name = "demo"
svn = 3
kernel = "debian:linux-image-6.12-cloud-amd64"
[root]
source = "rootfs/"
[handover]
init = "/sbin/init"
[tee]
snp = "none"
"""


def read(text: str) -> manifest_records.Manifest:
    return manifest.parse(text.encode(), Path("/src/troth.toml"))


def refused(text: str) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        read(text)
    return caught.value


def test_smallest_manifest_and_its_defaults():
    found = read(BASE)
    assert found.image.name == "demo"
    assert found.image.svn == 3
    assert found.image.kernel.package == "linux-image-6.12-cloud-amd64"
    assert found.image.compression == manifest.DEFAULT_COMPRESSION
    assert found.image.acpi == "on"
    assert found.root is not None
    assert found.root.source == Path("/src/rootfs")
    assert found.root.overlay == "tmpfs"
    assert found.root.overlay_paths == ("/",)
    assert found.root.file_system == "erofs"
    assert found.root.compression == "none"
    assert found.handover.init == "/sbin/init"
    assert found.handover.manager == ""
    assert (found.handover.user, found.handover.lockdown) == (0, "integrity")
    assert (found.tee.vtpm, found.tee.vtpm_kind) == ("required", "host")
    assert (found.fail.action, found.fail.detail) == ("poweroff", "public")
    assert found.attest == manifest_records.Attest(0, "never", ())
    assert found.where("image", "svn") == "/src/troth.toml:3"
    assert found.where("root", "overlay") == "/src/troth.toml:5"


def test_every_key():
    found = read(
        """\
[image]
name = "a-1"
svn = 4294967295
kernel = { vmlinuz = "k/vmlinuz", modules = "k/modules" }
load = ["virtio_net"]
python = "/opt/python/bin/python3"
compression = "lz4"
platform = "virtio"
cmdline = "quiet panic=1"
cmdline_variable = { "app.mode" = ["a", "b"] }
acpi = "off"
igvm = true
[root]
source = "root.tar.zst"
overlay = "none"
modules = true
file_system = "squashfs"
compression = "zstd"
[handover]
supervise = ["/app/run", "-v", "-v"]
user = 1000
grace_s = 3
modules_disabled = true
lockdown = "confidentiality"
[measure]
workload = ["/opt/app", "/opt/b"]
[tee]
snp = "none"
vtpm = "optional"
vtpm_kind = "host"
[[volume]]
name = "models"
format = "verity"
source = "models/"
mount = "/srv/models"
[[volume]]
name = "other"
format = "verity"
source = "other/"
mount = "/srv/other"
device = "PARTLABEL:other"
[fail]
detail = "console"
action = "reboot"
deadline_s = 20
device_timeout_s = 5
[attest]
group = 900
raw_report_data = "group"
extend = [{ user = 1000, unit = "app@1.service" }, { user = 7 }]
[launch]
vcpus = 1
cpu_types = ["EPYC-v4", "EPYC-Genoa"]
memory = ["512M", "4G"]
ovmf = "firmware/OVMF.fd"
guest_features = [0x1, 0x21]
policy = 0x130000
products = ["Genoa", "Turin"]
"""
    )
    assert found.image.kernel.vmlinuz == Path("/src/k/vmlinuz")
    assert found.image.kernel.modules == Path("/src/k/modules")
    assert found.image.load == ("virtio_net",)
    assert found.image.cmdline == ("quiet", "panic=1")
    assert found.image.cmdline_variable == {"app.mode": ("a", "b")}
    assert found.root is not None
    assert found.root.overlay_paths == ()
    assert (found.root.file_system, found.root.compression) == ("squashfs", "zstd")
    assert found.handover.supervise == ("/app/run", "-v", "-v")
    assert (found.handover.user, found.handover.group, found.handover.grace_s) == (1000, 1000, 3)
    assert found.handover.manager == "none"
    assert found.workload == ("/opt/app", "/opt/b")
    assert [volume.device for volume in found.volumes] == ["serial:models", "PARTLABEL:other"]
    assert found.fail == manifest_records.Fail("reboot", "console", 20, 5)
    rules = ((1000, "app@1.service"), (7, ""))
    assert found.attest == manifest_records.Attest(900, "group", rules)
    assert found.image.igvm
    assert found.launch == manifest_records.Launch(
        vcpus=(1,),
        cpu_types=("EPYC-v4", "EPYC-Genoa"),
        memory_bytes=(512 << 20, 4 << 30),
        ovmf=Path("/src/firmware/OVMF.fd"),
        guest_features=(1, 0x21),
        policy=0x130000,
        products=("Genoa", "Turin"),
    )


def test_everything_in_the_initramfs():
    found = read(
        '[image]\nname="a"\nkernel="debian:linux-image-x"\n[initramfs]\nfiles="app/"\n'
        'python=["http.server"]\n[handover]\nsupervise=["/app/run"]\n[tee]\nsnp="none"\n'
    )
    assert found.root is None
    assert found.initramfs.files == Path("/src/app")
    assert found.initramfs.python == ("http.server",)
    assert found.handover.user == 65534


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        (BASE.replace("svn", "snv"), 3, 'did you mean "svn"?'),
        (BASE + 'vtmp = "none"\n', 11, 'did you mean "vtpm"?'),
        (BASE.replace("[handover]", "[handovr]"), 7, 'did you mean "handover"?'),
        (BASE + '[[volume]]\nname="a"\nfromat="verity"\n', 13, 'did you mean "format"?'),
        (BASE + "[fail]\nresettable = 1\n", 12, "valid: detail, action"),
    ],
)
def test_unknown_keys_are_named_with_line_and_nearest(text, line, hint):
    error = refused(text)
    assert error.code == "manifest-unknown-key"
    assert error.where == f"/src/troth.toml:{line}"
    assert hint in error.hint


VOLUME = '[[volume]]\nname = "m"\nformat = "verity"\nsource = "m/"\nmount = "/srv/m"\n'


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("", "manifest-missing-key", 1),
        ("[image]\n", "manifest-missing-key", 1),
        ("a = \n", "manifest-syntax", 1),
        ("a = 1\n\nb = = 2\n", "manifest-syntax", 3),
        (BASE.replace('"demo"', '"Demo"'), "manifest-value", 2),
        (BASE.replace('"demo"', '"' + "a" * 21 + '"'), "manifest-value", 2),
        (BASE.replace('"demo"', '""'), "manifest-value", 2),
        (BASE.replace('"demo"', "1"), "manifest-type", 2),
        (BASE.replace("svn = 3", "svn = -1"), "manifest-value", 3),
        (BASE.replace("svn = 3", "svn = 4294967296"), "manifest-value", 3),
        (BASE.replace("svn = 3", "svn = true"), "manifest-type", 3),
        (BASE.replace("debian:", "fedora:"), "manifest-value", 4),
        (BASE.replace("debian:linux", "debian:../linux"), "manifest-value", 4),
        (BASE.replace('"rootfs/"', '["a"]'), "manifest-type", 6),
        (BASE.replace('"/sbin/init"', '"sbin/init"'), "manifest-value", 8),
        (BASE.replace('"/sbin/init"', '"/sbin/../init"'), "manifest-value", 8),
        (BASE.replace('"/sbin/init"', '"/sbin/init\\u0007"'), "manifest-value", 8),
        (BASE + 'vtpm_kind = "tis"\n', "manifest-value", 11),
        (BASE.replace("[tee]", 'supervise = ["/a"]\n[tee]'), "manifest-conflict", 8),
        (BASE.replace("[tee]", "user = 1\n[tee]"), "manifest-conflict", 9),
        (BASE.replace('init = "/sbin/init"', "supervise = []"), "manifest-value", 8),
        (
            BASE.replace('init = "/sbin/init"', 'supervise = ["/a"]\nuser = 0'),
            "manifest-value",
            9,
        ),
        (BASE.replace('init = "/sbin/init"', 'supervise = ["run"]'), "manifest-value", 8),
        (BASE.replace("[handover]", 'overlay = "disk"\n[handover]'), "manifest-value", 7),
        (
            BASE.replace("[handover]", 'overlay = "none"\noverlay_paths = ["/etc"]\n[handover]'),
            "manifest-conflict",
            8,
        ),
        (
            BASE.replace("[handover]", 'overlay_paths = ["/etc", "/etc/x"]\n[handover]'),
            "manifest-conflict",
            7,
        ),
        (BASE.replace("[handover]", 'file_system = "xfs"\n[handover]'), "manifest-value", 7),
        (BASE.replace("[handover]", 'compression = "zstd"\n[handover]'), "manifest-value", 7),
        (BASE + '[initramfs]\nfiles = "app/"\n', "manifest-conflict", 12),
        (BASE + '[measure]\nworkload = ["opt"]\n', "manifest-value", 12),
        (BASE + '[measure]\nworkload = ["/"]\n', "manifest-value", 12),
        (BASE + '[measure]\nworkload = ["/a", "/a/b"]\n', "manifest-conflict", 12),
        (BASE + '[measure]\nworkload = ["/run/x"]\n', "manifest-conflict", 12),
        (BASE + VOLUME + '[measure]\nworkload = ["/srv/m/x"]\n', "manifest-conflict", 17),
        (BASE + VOLUME + '[measure]\nworkload = ["/srv"]\n', "manifest-conflict", 17),
        (BASE + VOLUME + '[measure]\nworkload = ["/srv/m"]\n', "manifest-conflict", 17),
        (
            BASE.replace("[handover]", 'overlay_paths = ["/opt/a/state"]\n[handover]')
            + '[measure]\nworkload = ["/opt/a"]\n',
            "manifest-conflict",
            13,
        ),
        (
            BASE.replace("[handover]", 'overlay_paths = ["/opt/a"]\n[handover]')
            + '[measure]\nworkload = ["/opt/a"]\n',
            "manifest-conflict",
            13,
        ),
        (
            BASE.replace('[root]\nsource = "rootfs/"\n', "").replace(
                'init = "/sbin/init"', 'supervise = ["/app/run"]'
            )
            + VOLUME,
            "manifest-conflict",
            13,
        ),
        (BASE + VOLUME.replace('"m"', '"root"', 1), "manifest-conflict", 12),
        (BASE + VOLUME.replace('"m"', '"instance"', 1), "manifest-conflict", 12),
        (BASE + VOLUME.replace("/srv/m", "/proc/x"), "manifest-conflict", 15),
        (BASE + VOLUME.replace("/srv/m", "/"), "manifest-value", 15),
        (BASE + VOLUME.replace("/srv/m", "/srv/m:x"), "manifest-value", 15),
        (BASE + VOLUME.replace("/srv/m", "/srv/m/"), "manifest-value", 15),
        (BASE + VOLUME + VOLUME.replace('"m"', '"n"', 1), "manifest-conflict", 20),
        (BASE + VOLUME + VOLUME.replace("/srv/m", "/srv/n"), "manifest-conflict", 17),
        (
            BASE + VOLUME + VOLUME.replace('"m"', '"n"', 1).replace("/srv/m", "/srv/m/n"),
            "manifest-conflict",
            20,
        ),
        (BASE + VOLUME + 'device = "serial:root"\n', "manifest-conflict", 16),
        (BASE + VOLUME + 'device = "disk:root"\n', "manifest-value", 16),
        (BASE + VOLUME + 'device = "/dev/vda"\n', "manifest-value", 16),
        (BASE + VOLUME + 'key = "kbs:///a"\n', "manifest-conflict", 16),
        (BASE + VOLUME.replace('"verity"', '"veritas"'), "manifest-value", 13),
        (BASE + "[fail]\ndeadline_s = 5\ndevice_timeout_s = 6\n", "manifest-value", 13),
        (BASE + '[fail]\naction = "shell"\n', "manifest-value", 12),
        (BASE + "[attest]\ngroup = -1\n", "manifest-value", 12),
        (BASE + "[attest]\nquote = 1\n", "manifest-type", 12),
        (BASE + '[attest]\nraw_report_data = "all"\n', "manifest-value", 12),
        (BASE + '[attest]\nextend = [{ unit = "a.service" }]\n', "manifest-missing-key", 12),
        (BASE + '[attest]\nextend = [{ user = 1, unit = "a/b.service" }]\n', "manifest-value", 12),
        (BASE + '[attest]\nextend = [{ user = 1, unit = "app" }]\n', "manifest-value", 12),
        (BASE + "[attest]\nextend = [{ user = 1 }, { user = 1 }]\n", "manifest-conflict", 12),
        (BASE + "[volume]\n", "manifest-type", 11),
        (BASE.replace("[root]", 'load = ["a/b"]\n[root]'), "manifest-value", 5),
        (BASE.replace("[root]", 'load = ["a", "a"]\n[root]'), "manifest-value", 5),
        ("a" + ".a" * 100 + " = 1\n", "manifest-syntax", 1),
    ],
)
def test_refusals_name_the_line(text, code, line):
    error = refused(text)
    assert (error.code, error.where) == (code, f"/src/troth.toml:{line}")
    assert error.exit_status == 2


@pytest.mark.parametrize(
    "words",
    [
        "init=/bin/sh",
        "rdinit=/x",
        "PYTHONPATH=/x",
        "LD_PRELOAD=x",
        "GLIBC_TUNABLES=x",
        "a  b",
        "x=1 x=2",
        'a="b"',
        "-- x",
    ],
)
def test_baked_words_that_would_steer_pid_1(words):
    error = refused(BASE.replace("[root]", f"cmdline = '{words}'\n[root]"))
    assert (error.code, error.where) == ("manifest-value", "/src/troth.toml:5")


@pytest.mark.parametrize(
    "key",
    ["quiet", "systemd.unit", "rd.break", "troth.x", "PYTHONPATH", "LD_PRELOAD.x",
     "random.trust_cpu",
     "module.sig_enforce", "app.", ".app", "App.mode", "a b.c"],
)  # fmt: skip
def test_variable_keys_that_are_not_the_workloads(key):
    error = refused(BASE.replace("[root]", f'cmdline_variable = {{ "{key}" = ["a"] }}\n[root]'))
    assert (error.code, error.where) == ("manifest-value", "/src/troth.toml:5")


@pytest.mark.parametrize("words", ["[]", '["a b"]', '["$(x)"]', '["a", "a"]', '[""]', '["a\\n"]'])
def test_variable_values_are_plain_words(words):
    error = refused(BASE.replace("[root]", f'cmdline_variable = {{ "app.x" = {words} }}\n[root]'))
    assert error.code == "manifest-value"


QUOTE = "[attest]\nquote = true\n"


def test_a_quote_is_asked_for_on_purpose():
    assert not read(BASE + "[attest]\n").attest.quote
    simulated = BASE.replace('snp = "none"', 'snp = "simulated"')
    # A host's TPM proves nothing: by default nobody pays for its quote.
    assert not read(simulated).attest.quote
    assert read(simulated + QUOTE).attest.quote
    assert not read(simulated + QUOTE.replace("true", "false")).attest.quote


@pytest.mark.parametrize(
    ("tee", "line"),
    [('snp = "none"', 12), ('snp = "simulated"\nvtpm = "none"', 13)],
)
def test_a_quote_that_nobody_could_make(tee, line):
    error = refused(BASE.replace('snp = "none"', tee) + QUOTE)
    assert error.code == "manifest-conflict"
    assert error.where == f"/src/troth.toml:{line}"


IGVM = BASE.replace("svn = 3", "igvm = true") + "[launch]\n"
OVMF = BASE + '[launch]\novmf = "OVMF.fd"\n'


def test_launch_defaults():
    found = read(BASE)
    assert not found.image.igvm
    assert found.launch == read(BASE.replace("svn = 3", "igvm = true")).launch
    assert found.launch == manifest_records.Launch(
        (1,), ("EPYC-v4",), (1 << 30,), None, (1,), 0x30000, ()
    )
    assert read(OVMF).launch.ovmf == Path("/src/OVMF.fd")
    assert read(IGVM + 'memory = "1G"\ncpu_types = "EPYC-Milan"\nvcpus = 512\n').launch.vcpus == (
        512,
    )


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        (BASE + "[launch]\nvcpus = 1\n", "manifest-conflict", 12),
        (BASE + '[launch]\nproducts = ["Genoa"]\n', "manifest-conflict", 12),
        (IGVM + "guest_features = [1]\n", "manifest-conflict", 12),
        (OVMF + 'memory = "1G"\n', "manifest-conflict", 13),
        (IGVM + "vcpus = [1, 1]\n", "manifest-value", 12),
        (IGVM + "vcpus = []\n", "manifest-value", 12),
        (IGVM + "vcpus = 0\n", "manifest-value", 12),
        (IGVM + "vcpus = 513\n", "manifest-value", 12),
        (IGVM + "vcpus = true\n", "manifest-value", 12),
        (IGVM + 'memory = "4 GB"\n', "manifest-value", 12),
        (IGVM + 'memory = "0G"\n', "manifest-value", 12),
        (IGVM + "memory = []\n", "manifest-value", 12),
        (IGVM + 'memory = ["1G", "1024M"]\n', "manifest-value", 12),
        (IGVM + "cpu_types = []\n", "manifest-value", 12),
        (IGVM + 'cpu_types = "EPYC-Zen"\n', "manifest-value", 12),
        (OVMF + "guest_features = []\n", "manifest-value", 13),
        (OVMF + "guest_features = 0\n", "manifest-value", 13),
        (OVMF + "guest_features = 0x20\n", "manifest-value", 13),
        (IGVM + "policy = 0\n", "manifest-value", 12),
        (IGVM + "policy = 0x10000\n", "manifest-value", 12),
        (IGVM + "policy = 0x8000030000\n", "manifest-value", 12),
        (IGVM + "policy = -1\n", "manifest-value", 12),
        (IGVM + 'policy = "0x30000"\n', "manifest-type", 12),
        (IGVM + 'products = ["Rome"]\n', "manifest-value", 12),
        (IGVM + 'products = ["Siena"]\n', "manifest-value", 12),
        (IGVM + 'ovmf = ""\n', "manifest-value", 12),
        (IGVM + 'ovmf = "my firmware.fd"\n', "manifest-value", 12),
        (IGVM + 'ovmf = "/"\n', "manifest-value", 12),
        (IGVM + 'memory = "64M"\n', "manifest-value", 12),
        (IGVM + 'memory = "129M"\n', "manifest-value", 12),
        (IGVM + 'memory = "65G"\n', "manifest-value", 12),
        (IGVM.replace("igvm", 'acpi = "off"\nigvm') + "vcpus = 2\n", "manifest-conflict", 13),
        (
            IGVM + 'vcpus = [1,2,3,4,5,6]\nmemory = ["1G", "2G", "3G"]\n',
            "manifest-value",
            13,
        ),
    ],
)
def test_launch_refusals(text, code, line):
    error = refused(text)
    assert (error.code, error.where) == (code, f"/src/troth.toml:{line}")


def test_launch_hints():
    assert refused(IGVM + 'cpu_types = "EPYC-Genoha"\n').hint == 'did you mean "EPYC-Genoa"?'
    assert refused(IGVM + 'products = ["Genua"]\n').hint == 'did you mean "Genoa"?'
    assert "Genoa" in refused(IGVM + 'products = ["Bergamo"]\n').hint
    assert "0x30000" in refused(IGVM + "policy = 0x10000\n").hint


@pytest.mark.parametrize("policy", [0xB0000, 0x70000, 0xF0000])
def test_a_policy_that_opens_the_guest(policy):
    """DEBUG and MIGRATE_MA: refused for guests that demand SNP, else left to a warning."""
    text = IGVM + f"policy = {policy:#x}\n"
    assert read(text).launch.policy == policy
    error = refused(text.replace('snp = "none"', 'snp = "required"\nvtpm = "none"'))
    assert (error.code, error.where) == ("manifest-conflict", "/src/troth.toml:13")


def test_snp_is_demanded_unless_something_else_is_said():
    stated = BASE.replace('"none"', '"required"\nvtpm_kind = "host"')
    assert (read(stated).tee.snp, read(stated).tee.vtpm_kind) == ("required", "host")
    # Without the table the kind of TPM is still to be stated.
    assert refused(BASE[: BASE.index("[tee]")]).code == "manifest-missing-key"


TAKES = BASE.replace('"none"', '"simulated"') + "[instance]\n"


def test_instance_rules():
    assert read(BASE).instance is None
    found = read(TAKES + "hostname = true\n").instance
    assert found == InstanceRules("required", True, (), (), {})
    found = read(
        TAKES
        + 'need = "optional"\nnetwork = ["dhcp", "static"]\nbrokers = ["keys", "b-2"]\n'
        + '[instance.values]\nregion = ["eu", "us"]\n"app.tier" = "any"\n'
    ).instance
    assert found == InstanceRules(
        "optional", False, ("dhcp", "static"), ("keys", "b-2"),
        {"region": ("eu", "us"), "app.tier": ()},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        (BASE + "[instance]\nhostname = true\n", "manifest-conflict", 11),
        (TAKES, "manifest-missing-key", 11),
        (TAKES + 'need = "required"\n', "manifest-missing-key", 12),
        (TAKES + "hostname = false\n", "manifest-missing-key", 11),
        (TAKES + "hostname = 1\n", "manifest-type", 12),
        (TAKES + 'need = "always"\n', "manifest-value", 12),
        (TAKES + 'network = ["slaac"]\n', "manifest-value", 12),
        (TAKES + 'network = "dhcp"\n', "manifest-type", 12),
        (TAKES + 'brokers = ["https://keys"]\n', "manifest-value", 12),
        (TAKES + 'brokers = ["a","b","c","d","e","f","g","h","i"]\n', "manifest-value", 12),
        (TAKES + 'values = ["a"]\n', "manifest-value", 12),
        (TAKES + 'values = { "A" = "any" }\n', "manifest-value", 12),
        (TAKES + "values = { a = [] }\n", "manifest-value", 12),
        (TAKES + 'values = { a = "some" }\n', "manifest-type", 12),
        (TAKES + 'values = { a = ["x y"] }\n', "manifest-value", 12),
        (TAKES + "identity = 1\n", "manifest-unknown-key", 12),
    ],
)
def test_instance_rules_that_are_refused(text, code, line):
    error = refused(text)
    assert (error.code, error.where) == (code, f"/src/troth.toml:{line}")


NET = BASE + "[network]\n"
STATIC = NET + 'method = "static"\naddress = "192.0.2.10/24"\n'


def test_network():
    assert read(BASE).network is None
    assert read(NET + 'method = "dhcp"\n').network == Network("dhcp", "", "", (), False, 20)
    found = read(STATIC + 'router = "192.0.2.1"\ndns = ["192.0.2.53"]\ntimeout_s = 7\n').network
    assert found == Network("static", "192.0.2.10/24", "192.0.2.1", ("192.0.2.53",), False, 7)
    text = NET + 'method = "static"\naddress = "2001:db8::10/64"\nipv6 = true\n'
    assert read(text).network == Network("static", "2001:db8::10/64", "", (), True, 20)
    text = TAKES + 'network = ["dhcp"]\n[network]\nmethod = "instance"\nipv6 = true\n'
    assert read(text).network == Network("instance", "", "", (), True, 20)


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        (NET, "manifest-missing-key", 11),
        (NET + 'method = "slaac"\n', "manifest-value", 12),
        (NET + 'method = "dhcp"\naddress = "192.0.2.10/24"\n', "manifest-conflict", 13),
        (NET + 'method = "dhcp"\nrouter = "192.0.2.1"\n', "manifest-conflict", 13),
        (NET + 'method = "dhcp"\ndns = ["192.0.2.1"]\n', "manifest-conflict", 13),
        (NET + 'method = "dhcp"\nipv6 = true\n', "manifest-conflict", 13),
        (NET + 'method = "dhcp"\ntimeout_s = 0\n', "manifest-value", 13),
        (NET + 'method = "dhcp"\ntimeout_s = 301\n', "manifest-value", 13),
        (NET + 'method = "dhcp"\ntimeout_s = 60\n[fail]\ndeadline_s = 60\n',
         "manifest-conflict", 13),
        (NET + 'method = "dhcp"\nidentity = 1\n', "manifest-unknown-key", 13),
        (NET + 'method = "instance"\n', "manifest-conflict", 12),
        (TAKES + 'hostname = true\n[network]\nmethod = "instance"\n', "manifest-conflict", 14),
        (NET + 'method = "static"\n', "manifest-missing-key", 11),
        (NET + 'method = "static"\naddress = "192.0.2.10"\n', "manifest-value", 13),
        (NET + 'method = "static"\naddress = "169.254.1.1/16"\n', "manifest-value", 13),
        (STATIC + 'router = "198.51.100.1"\n', "manifest-value", 13),
        (STATIC + 'dns = ["broker.example"]\n', "manifest-value", 13),
        (STATIC + 'dns = ["2001:db8::1"]\n', "manifest-conflict", 14),
        (NET + 'method = "static"\naddress = "2001:db8::10/64"\n', "manifest-conflict", 13),
    ],
)  # fmt: skip
def test_networks_that_are_refused(text, code, line):
    error = refused(text)
    assert (error.code, error.where) == (code, f"/src/troth.toml:{line}")


@pytest.mark.parametrize(
    "text",
    [
        BASE + 'vtpm_kind = "svsm"\n',
    ],
)
def test_keys_of_later_versions_are_known_and_refused(text):
    error = refused(text)
    assert error.code == "not-in-this-version"
    assert error.message.startswith("not in this version: needs ")
    assert error.exit_status == 2


def test_absent_file(tmp_path):
    with pytest.raises(ManifestError) as caught:
        manifest.load(tmp_path / "troth.toml")
    assert caught.value.code == "manifest-absent"


def test_crlf_and_bom_and_size():
    assert read(BASE.replace("\n", "\r\n")).image.name == "demo"
    assert refused("\ufeff" + BASE).code == "manifest-syntax"
    assert refused("#" * (1 << 20)).code == "manifest-syntax"
    assert refused("a = " + "[" * 50000).code == "manifest-syntax"
    with pytest.raises(ManifestError):
        manifest.parse(b"\xff\xfe", Path("x"))


# --- the line scanner against tomllib -------------------------------------------------------

BARE = st.text("abcXYZ019_-", min_size=1, max_size=4)
ODD = "ab\u00e9'\"\\.# =[]{},\n\t\u2028\U0001f600"
KEYS = st.one_of(BARE, st.text(ODD, max_size=4))


def quoted(text: str, style: int) -> str:
    plain = text.isprintable() and "'" not in text
    if style % 4 == 1 and plain:
        return f"'{text}'"
    body = "".join(
        char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08x}" for char in text
    )
    if style % 4 == 2:
        return f'"""\n{body}\\\n   """'
    if style % 4 == 3 and plain:
        return f"'''\n\n{text}\n'''"
    return f'"{body}"'


def key_text(key: str, style: int) -> str:
    if key and key.isascii() and key.replace("-", "a").replace("_", "a").isalnum() and style % 3:
        return key
    return quoted(key, style % 2)


@st.composite
def values(draw, depth=2):
    """(TOML text of a value)."""
    kind = draw(st.integers(0, 6 if depth else 3))
    style = draw(st.integers(0, 11))
    if kind == 0:
        return str(draw(st.integers(-5, 99999)))
    if kind == 1:
        return draw(st.sampled_from(["true", "1979-05-27 07:32:00", "1.5e3", "inf", "0xff"]))
    if kind in (2, 3):
        return quoted(draw(st.text(ODD, max_size=6)), style)
    if kind in (4, 5):
        items = draw(st.lists(values(depth=depth - 1), max_size=3))
        gap = draw(st.sampled_from(["", " ", "\n", " # ] , }\n  ", "\n\n"]))
        return "[" + gap + ("," + gap).join(items) + gap + "]"
    keys = draw(st.lists(KEYS, max_size=3, unique=True))
    return (
        "{"
        + ", ".join(f"{key_text(k, style)} = {draw(values(depth=depth - 1))}" for k in keys)
        + "}"
    )


@st.composite
def documents(draw):
    lines = []
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.integers(0, 5))
        style = draw(st.integers(0, 11))
        parts = draw(st.lists(KEYS, min_size=1, max_size=3))
        dotted = draw(st.sampled_from([".", " . "])).join(key_text(k, style) for k in parts)
        comment = draw(st.sampled_from(["", " # [x] = 'y'", '\n\n# a """ b']))
        if kind == 0:
            lines.append(f"[ {dotted} ]{comment}")
        elif kind == 1:
            lines.append(f"[[{dotted}]]{comment}")
        else:
            lines.append(f"  {dotted} = {draw(values())}{comment}")
    return "\n".join(lines) + draw(st.sampled_from(["", "\n"]))


def paths(tree, base=()):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield (*base, key)
            yield from paths(value, (*base, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield (*base, index)
            yield from paths(value, (*base, index))


def occurs(part: str, line: str) -> bool:
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in part)
    return part in line or escaped in line


@given(documents())
def test_every_key_tomllib_finds_has_a_line_on_which_it_stands(text):
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    found = key_lines(text)
    rows = text.split("\n")
    expected = set(paths(tree))
    assert set(found) == expected
    for path, line in found.items():
        if isinstance(path[-1], str):
            assert occurs(path[-1], rows[line - 1]), (path, line)


@given(st.lists(documents(), min_size=2, max_size=3))
def test_lines_are_exact_for_keys_written_once(texts):
    """A key line moved down by n lines is found n lines further down."""
    text = texts[0]
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    moved = key_lines("\n#\n\n" + text)
    assert moved == {path: line + 3 for path, line in key_lines(text).items()}


@given(st.binary(max_size=200))
def test_arbitrary_bytes(data):
    try:
        manifest.parse(data, Path("t"))
    except ManifestError:
        return


@given(st.integers(0, len(BASE) - 1), st.text(ODD, max_size=3), st.integers(0, 5))
def test_mutated_manifest(position, insert, cut):
    text = BASE + VOLUME
    try:
        manifest.parse(
            (text[:position] + insert + text[position + cut :]).encode(errors="surrogatepass"),
            Path("t"),
        )
    except ManifestError:
        return


@pytest.mark.parametrize("rest", ["", 'vtpm = "none"\n', 'vtpm = "optional"\n'])
def test_a_simulated_platform_is_built(rest):
    found = read(BASE.replace('"none"', '"simulated"') + rest)
    assert found.tee.snp == "simulated"

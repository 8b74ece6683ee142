# SPDX-License-Identifier: Apache-2.0
"""Kernels from packages and paths; apt is a script here, dpkg-deb the real one."""

import hashlib
import os
import shutil
import subprocess
import threading

import pytest

from made_kernel import bzimage_bytes, module_bytes, module_tree
from troth.errors import BuildError, FormatError, HostError
from troth.image.inputs import kernel
from troth.image.inputs.kernel import Pin

RELEASE = "6.0.1-test"
IMAGE = f"linux-image-{RELEASE}"
META = "linux-image-test"
VERSION = "6.0.1-1~deb12u1"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A PATH on which apt knows a meta package and one kernel; yields (cache, sha256, bin)."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    tree = tmp_path / "package"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {IMAGE}\nVersion: {VERSION}\nArchitecture: amd64\n"
        "Maintainer: T <t@example.org>\nDescription: test\n"
    )
    (tree / "DEBIAN/postinst").write_text("#!/bin/sh\ntouch /postinst-ran\n")
    (tree / "DEBIAN/postinst").chmod(0o755)
    (tree / "boot").mkdir()
    (tree / f"boot/vmlinuz-{RELEASE}").write_bytes(bzimage_bytes(f"{RELEASE} (x) #1"))
    module_tree(tree / "lib/modules" / RELEASE, {"a.ko": module_bytes()})
    deb = tmp_path / "kernel.deb"
    subprocess.run(["dpkg-deb", "-b", "-Znone", tree, deb], check=True, capture_output=True)
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    programs = tmp_path / "bin"
    programs.mkdir()
    script(
        programs / "apt-cache",
        f"""case "$3" in
{META}) printf 'Package: {META}\\nVersion: 6\\nDepends: {IMAGE} (= {VERSION})\\nSHA256: 00\\n';;
{IMAGE}|{IMAGE}={VERSION}) printf 'Package: {IMAGE}\\nVersion: {VERSION}\\n'
 printf 'Depends: kmod, linux-base (>= 4.3)\\nSHA256: {digest}\\n\\n'
 printf 'Package: {IMAGE}\\nVersion: 0\\n';;
*) echo 'E: No packages found' >&2; exit 100;;
esac""",
    )
    script(
        programs / "apt-get",
        f"""echo "$*" >> {tmp_path}/apt-calls
for last; do :; done
[ "$last" = {IMAGE}={VERSION} ] || {{ echo "E: Version not found" >&2; exit 100; }}
cp {deb} .""",
    )
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tmp_path / "cache", digest, programs


def script(path, body):
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.mark.tool
def test_a_meta_package_leads_to_its_image(host):
    cache, digest, _bin = host
    found = kernel.from_package(f"debian:{META}", cache=cache)
    assert (found.release, found.package, found.version) == (RELEASE, IMAGE, VERSION)
    assert found.sha256 == digest
    assert found.vmlinuz.read_bytes() == bzimage_bytes(f"{RELEASE} (x) #1")
    assert (found.modules_dir / "kernel/drivers/a.ko").is_file()
    assert not os.path.exists("/postinst-ran")
    assert [path.name for path in (cache / "kernels").iterdir()] == [digest]


@pytest.mark.tool
def test_a_pinned_kernel_in_the_cache_asks_no_network(host, monkeypatch):
    cache, digest, programs = host
    first = kernel.from_package(f"debian:{IMAGE}", cache=cache)
    for name in ("apt-get", "apt-cache"):
        script(programs / name, "echo must not run >&2; exit 9")
    pin = Pin(IMAGE, VERSION, digest)
    assert kernel.from_package(f"debian:{META}", pin=pin, cache=cache) == first


@pytest.mark.tool
def test_builds_at_the_same_time_share_the_cache(host):
    cache, digest, _bin = host
    found, threads = [], []
    for _ in range(4):
        threads.append(
            threading.Thread(
                target=lambda: found.append(kernel.from_package(f"debian:{META}", cache=cache))
            )
        )
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert [path.name for path in (cache / "kernels").iterdir()] == [digest]


@pytest.mark.tool
@pytest.mark.parametrize(
    ("spec", "pin", "code"),
    [
        ("debian:linux-image-gone", None, "kernel-unknown"),
        (f"debian:{META}", Pin(IMAGE, "5.0-1", "0" * 64), "kernel-unavailable"),
        (f"debian:{META}", Pin(IMAGE, VERSION, "0" * 64), "kernel-digest"),
        (f"debian:{META}", Pin(IMAGE, VERSION, "short"), "kernel-digest"),
        (f"debian:{META}", Pin("-o", VERSION, "0" * 64), "kernel-name"),
        ("debian:--option", None, "kernel-name"),
        ("fedora:kernel", None, "kernel-name"),
    ],
)
def test_refused_packages(host, spec, pin, code):
    cache, _digest, _bin = host
    with pytest.raises(BuildError) as caught:
        kernel.from_package(spec, pin=pin, cache=cache)
    assert caught.value.code == code
    assert not list(cache.glob("kernels/*"))


def test_a_host_without_apt(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError) as caught:
        kernel.from_package(f"debian:{META}", cache=tmp_path)
    assert caught.value.code == "program-missing"
    assert "vmlinuz" in caught.value.hint


@pytest.mark.parametrize("depth", ["", "lib/modules", f"lib/modules/{RELEASE}"])
def test_paths(tmp_path, depth):
    image = tmp_path / "bzImage"
    image.write_bytes(bzimage_bytes(f"{RELEASE} x"))
    tree = module_tree(tmp_path / "m/lib/modules" / RELEASE, {"a.ko": module_bytes()})
    found = kernel.from_paths(image, tmp_path / "m" / depth)
    assert found.modules_dir == tree
    assert found.sha256 == hashlib.sha256(image.read_bytes()).hexdigest()


def test_paths_that_hold_no_kernel(tmp_path):
    image = tmp_path / "bzImage"
    with pytest.raises(BuildError, match="cannot be read"):
        kernel.from_paths(image, tmp_path)
    image.write_bytes(b"text")
    with pytest.raises(FormatError, match="not a bzImage"):
        kernel.from_paths(image, tmp_path)
    image.write_bytes(bzimage_bytes(RELEASE))
    with pytest.raises(BuildError, match="no module tree"):
        kernel.from_paths(image, tmp_path)


def test_the_cache_directory_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TROTH_CACHE", str(tmp_path / "t"))
    assert kernel.cache_directory() == tmp_path / "t"
    monkeypatch.delenv("TROTH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert kernel.cache_directory() == tmp_path / "x" / "troth"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kernel.cache_directory() == tmp_path / ".cache" / "troth"

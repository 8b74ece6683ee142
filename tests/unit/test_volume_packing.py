# SPDX-License-Identifier: Apache-2.0
"""What an image with encrypted volumes is made of: its profiles, programs, keys and words."""

import types

import pytest

from made_policy import policy
from made_volumes import BROKER, VOLUME
from troth.errors import BuildError
from troth.image import policy_compile, reference
from troth.image.packing import initramfs, profile
from troth.record import replace

ROOT = replace(
    VOLUME, name="root", mount="", file_system="", integrity="none", key="snp:", blank="refuse"
)


def made(*volumes):
    return replace(policy(snp="simulated"), encrypted=volumes, brokers=(BROKER,))


def names(*volumes):
    found = {item.name for item in profile.profiles_of(made(*volumes))}
    return {name for name in found if name.startswith(("volumes", "keys"))}


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, {"volumes", "volumes-tags", "volumes-format", "keys-broker"}),
        ({"integrity": "aes-gcm"},
         {"volumes", "volumes-tags", "volumes-gcm", "volumes-format", "keys-broker"}),
        ({"integrity": "none"}, {"volumes", "volumes-format", "keys-broker"}),
        ({"key": "spiffe://td/vm"},
         {"volumes", "volumes-tags", "volumes-format", "keys-broker", "keys-spiffe"}),
        ({"key": "snp:"}, {"volumes", "volumes-tags", "keys-snp"}),
        ({"key": "snp:", "blank": "format"},
         {"volumes", "volumes-tags", "volumes-format", "keys-snp"}),
        ({"key": "random:"}, {"volumes", "volumes-tags", "volumes-format", "keys-random"}),
        ({"key": "file:data"}, {"volumes", "volumes-tags", "keys-file"}),
        ({"format": "luks2", "key": "file:data"},
         {"volumes", "volumes-tags", "volumes-luks2", "keys-file"}),
    ],
)  # fmt: skip
def test_only_what_the_volumes_need(change, wanted):
    assert names(replace(VOLUME, **change)) == wanted


def test_nothing_for_an_image_without_volumes():
    assert names() == set()


def test_a_disk_that_a_verified_root_lies_in_is_never_formatted():
    assert names(ROOT) == {"volumes", "keys-snp"}
    assert names(replace(ROOT, key="kbs:///a/b/c")) == {"volumes", "keys-broker"}


def test_the_modules_of_ciphers():
    def modules(*volumes):
        wanted = made(*volumes)
        chosen = profile.profiles_of(wanted)
        platform = profile.load_platform("virtio")
        return {item.name for item in profile.kernel_modules(wanted, chosen, platform)}

    assert {"dm-crypt", "dm-integrity"} <= {name.replace("_", "-") for name in modules(VOLUME)}
    plain = {name.replace("_", "-") for name in modules(replace(VOLUME, integrity="none"))}
    assert "dm-crypt" in plain
    assert "dm-integrity" not in plain
    assert "dm-crypt" not in {name.replace("_", "-") for name in modules()}


# --- keys and programs in the archive --------------------------------------------------------


@pytest.mark.parametrize("size", [32, 48, 64])
def test_a_key_is_packed_as_it_is(tmp_path, size):
    path = tmp_path / "data.key"
    path.write_bytes(bytes(range(size)))
    assert initramfs._key(path) == bytes(range(size))


@pytest.mark.parametrize("size", [0, 31, 65, 4096])
def test_a_key_of_another_size(tmp_path, size):
    path = tmp_path / "data.key"
    path.write_bytes(bytes(size))
    with pytest.raises(BuildError) as caught:
        initramfs._key(path)
    assert (caught.value.code, caught.value.where) == ("key-file", str(path))


def test_a_key_that_is_not_there(tmp_path):
    with pytest.raises(BuildError) as caught:
        initramfs._key(tmp_path / "gone")
    assert caught.value.code == "key-file"


def request(*programs):
    item = types.SimpleNamespace(name="volumes-format", programs=programs)
    return types.SimpleNamespace(profiles=(item,))


def test_a_program_of_this_machine(tmp_path, monkeypatch):
    program = tmp_path / "mke2fs"
    program.write_bytes(b"#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(initramfs, "PROGRAM_DIRECTORIES", (str(tmp_path),))
    # Whatever PATH says.
    monkeypatch.setenv("PATH", "/nowhere")
    place = "runtime/usr/sbin/mke2fs"
    assert initramfs._programs(request("mke2fs")) == [
        (program, place, 0o755, "profile volumes-format")
    ]


def test_a_program_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(initramfs, "PROGRAM_DIRECTORIES", (str(tmp_path),))
    with pytest.raises(BuildError) as caught:
        initramfs._programs(request("mke2fs"))
    assert caught.value.code == "program-missing"
    assert "scripts/setup" in caught.value.hint


# --- the command line, the verdict -----------------------------------------------------------


def manifest(*volumes):
    image = types.SimpleNamespace(cmdline=(), acpi="on", cmdline_variable={})
    return types.SimpleNamespace(
        image=image,
        encrypted=volumes,
        handover=types.SimpleNamespace(manager="none"),
    )


def test_memory_that_held_keys_is_zeroed():
    words = policy_compile.cmdline(manifest(VOLUME)).split()
    assert words.count("init_on_free=1") == 1
    assert "init_on_free=1" not in policy_compile.cmdline(manifest()).split()


def test_the_verdict_names_volumes_that_the_host_can_change():
    loose = replace(VOLUME, name="loose", integrity="none")
    found = reference.flags(made(VOLUME, loose, ROOT), unsigned_modules=False)
    # What lies below a verified root is verified there.
    assert found.unauthenticated_volumes == ("loose",)

# SPDX-License-Identifier: Apache-2.0
"""Kernel modules in loading order, from trees made to order."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_kernel import module_bytes, module_tree
from troth.errors import BuildError
from troth.image.packing import module_closure
from troth.image.packing.module_closure import Wanted


def close(tree, *names):
    return module_closure.close(tree, [Wanted(name, "the test") for name in names])


@pytest.fixture
def tree(tmp_path):
    return module_tree(
        tmp_path / "6.0-test",
        {
            "dm-mod.ko": module_bytes(),
            "dm-bufio.ko.xz": module_bytes(depends=["dm-mod"]),
            "reed_solomon.ko.gz": module_bytes(signed=False),
            "dm-verity.ko": module_bytes(depends=["reed_solomon", "dm-bufio", "dm-mod"]),
            "libcrc32c.ko": module_bytes(softdep="pre: crc32c fast-crc nowhere post: later"),
            "fast-crc.ko": module_bytes(),
            "later.ko": module_bytes(),
            "erofs.ko": module_bytes(depends=["libcrc32c"]),
            "ring-a.ko": module_bytes(depends=["ring-b"]),
            "ring-b.ko": module_bytes(depends=["ring-a"]),
            "broken.ko": module_bytes(depends=["gone"]),
            "text.ko": b"not a module",
        },
        builtin=["virtio_pci"],
        builtin_aliases=["crc32c"],
    )


def test_dependencies_come_first_and_the_wanted_order_is_kept(tree):
    found = close(tree, "erofs", "dm_verity", "dm-mod")
    assert [module.name for module in found.modules] == [
        "fast-crc",
        "libcrc32c",
        "erofs",
        "dm-mod",
        "dm-bufio",
        "reed_solomon",
        "dm-verity",
    ]
    assert found.soft_missing == ("nowhere",)
    whys = {module.name: module.why for module in found.modules}
    assert whys["dm-verity"] == "kernel module: asked for by the test"
    assert whys["dm-bufio"] == "kernel module: dm-verity needs it"
    assert whys["fast-crc"] == "kernel module: libcrc32c uses it"


def test_modules_are_packed_plain_with_their_signature(tree):
    by_name = {module.name: module for module in close(tree, "dm-verity").modules}
    assert by_name["dm-bufio"].data == module_bytes(depends=["dm-mod"])
    assert by_name["dm-bufio"].source == "kernel/drivers/dm-bufio.ko.xz"
    assert by_name["dm-bufio"].signed
    assert by_name["reed_solomon"].data == module_bytes(signed=False)
    assert not by_name["reed_solomon"].signed


def test_what_the_kernel_has_inside_packs_nothing(tree):
    found = close(tree, "virtio-pci")
    assert found.modules == ()
    assert found.builtin == ("virtio-pci",)


def test_a_module_that_may_be_missing(tree):
    wanted = [Wanted("sha256_ssse3", "x", may_be_missing=True), Wanted("dm-mod", "x", True)]
    found = module_closure.close(tree, wanted)
    assert [module.name for module in found.modules] == ["dm-mod"]
    assert found.absent == ("sha256_ssse3",)


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("dm-verty", "module-unknown", "dm-verty"),
        ("broken", "module-unknown", "gone, which broken needs"),
        ("ring-a", "module-cycle", "ring_a -> ring_b -> ring_a"),
        ("text", "module-format", "not a kernel module"),
    ],
)
def test_refusals(tree, name, code, words):
    with pytest.raises(BuildError, match=words) as caught:
        close(tree, name)
    assert caught.value.code == code
    if name == "dm-verty":
        assert "dm_verity" in caught.value.hint


@pytest.mark.parametrize("suffix", [".xz", ".gz"])
def test_cut_off_modules_are_refused(tree, suffix):
    path = next((tree / "kernel/drivers").glob(f"*{suffix}"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BuildError) as caught:
        close(tree, path.name.partition(".")[0])
    assert caught.value.code == "module-format"


def test_a_directory_without_modules(tmp_path):
    with pytest.raises(BuildError) as caught:
        close(tmp_path, "dm-mod")
    assert caught.value.code == "module-format"


@pytest.mark.tool
def test_zstd_modules(tmp_path):
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    data = module_bytes()
    packed = subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout
    tree = module_tree(tmp_path, {"a.ko.zst": packed})
    assert close(tree, "a").modules[0].data == data


@given(st.data())
def test_any_graph_without_rings_loads_in_order(tmp_path_factory, data):
    count = data.draw(st.integers(1, 8))
    depends = {
        f"m{index}": [f"m{below}" for below in range(index) if data.draw(st.booleans())]
        for index in range(count)
    }
    tree = module_tree(
        tmp_path_factory.mktemp("graph"),
        {f"{name}.ko": module_bytes(depends=needed) for name, needed in depends.items()},
    )
    wanted = data.draw(st.permutations(sorted(depends)))
    seen = []
    for module in close(tree, *wanted).modules:
        assert set(depends[module.name]) <= set(seen)
        seen.append(module.name)
    assert sorted(seen) == sorted(depends)

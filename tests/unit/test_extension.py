# SPDX-License-Identifier: Apache-2.0
"""Compiled parts of other packages in images: found without running them, and of this Python."""

import subprocess
import sys
from pathlib import Path

import pytest

from made_policy import policy
from troth.documents.policy import Attest
from troth.errors import BuildError
from troth.image.inputs import interpreter as python
from troth.image.packing import extension, library_closure, profile
from troth.record import replace


@pytest.fixture(scope="module")
def target():
    if not python.DEFAULT.exists():
        pytest.skip(f"{python.DEFAULT} is not installed")
    return python.identify()


def package(tmp_path, monkeypatch, *files):
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"raise SystemExit('run')\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_found_without_running_the_package(tmp_path, monkeypatch, target):
    package(tmp_path, monkeypatch, "made_pkg/__init__.py", "made_pkg/sub/__init__.py",
            "made_pkg/sub/_ext.abi3.so")  # fmt: skip
    found = extension.find("made_pkg.sub._ext", target, why="a test")
    assert (found.path, found.origin) == (
        "made_pkg/sub/_ext.abi3.so", tmp_path / "made_pkg/sub/_ext.abi3.so",
    )  # fmt: skip
    assert (found.kind, found.why) == ("extension", "python: a test")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("made_pkg2._none", "extension-missing"),
        ("made_none._none", "extension-missing"),
        ("made_pkg2.plain", "extension-version"),
    ],
)
def test_what_is_no_extension(tmp_path, monkeypatch, target, name, code):
    package(tmp_path, monkeypatch, "made_pkg2/__init__.py", "made_pkg2/plain.py")
    with pytest.raises(BuildError) as caught:
        extension.find(name, target, why="a test")
    assert caught.value.code == code


def test_an_extension_of_another_python(tmp_path, monkeypatch, target):
    tag = f"cpython-{sys.version_info[0]}{sys.version_info[1]}-x86_64-linux-gnu"
    package(tmp_path, monkeypatch, f"made_ext.{tag}.so")
    with pytest.raises(BuildError) as caught:
        extension.find("made_ext", replace(target, version="3.99"), why="a test")
    assert caught.value.code == "extension-version"


def test_the_profile_has_all_that_a_quote_needs(tmp_path, target):
    """What is packed, alone in a directory, gives the bindings; the package's Python is not in."""
    pytest.importorskip("tpm2_pytss")
    wanted = replace(policy(snp="simulated"), attest=Attest(quote=True))
    chosen = profile.profiles_of(wanted)
    modules = extension.of_profiles(chosen, target)
    assert {module.path.split("/")[0].split(".")[0] for module in modules} == {
        "_cffi_backend", "tpm2_pytss",
    }  # fmt: skip
    for module in modules:
        path = tmp_path / module.path
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(module.origin)
    program = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "from tpm2_pytss._libtpm2_pytss import ffi, lib\n"
        "assert lib.Esys_Quote and ffi.new('TPM2B_DATA *').size == 0\n"
        "assert 'cryptography' not in sys.modules and 'logging' not in sys.modules\n"
    )
    subprocess.run([target.path, "-ISB", "-c", program], check=True, timeout=60)


def test_the_bindings_are_built_without_fapi(target):
    """FAPI brings curl and twenty megabytes; scripts/setup hides it from the build."""
    pytest.importorskip("tpm2_pytss")
    (module,) = [
        module
        for module in extension.of_profiles((profile.load("quote"),), target)
        if module.name.startswith("tpm2_pytss")
    ]
    closure = library_closure.close(target.path, [(module.origin, module.name)])
    names = {library.name for library in closure.libraries}
    assert "libtss2-esys.so.0" in names
    assert not [name for name in names if "fapi" in name or "curl" in name]
    assert Path(module.origin).exists()


def test_images_that_do_not_quote_have_none_of_it():
    assert "quote" not in {item.name for item in profile.profiles_of(policy(snp="simulated"))}
    others = [item for item in profile.profiles_of(policy(snp="simulated")) if item.extensions]
    assert others == []

# SPDX-License-Identifier: Apache-2.0
"""Shared libraries resolved as the loader would, from files made to order."""

import shutil
import subprocess
from pathlib import Path

import pytest

from made_elf import made
from troth.errors import BuildError, FormatError
from troth.image.packing import library_closure


@pytest.fixture
def place(tmp_path):
    """Write named libraries; the loader exists as a file."""
    (tmp_path / "ld.so").write_bytes(made(needed=(), soname="ld.so"))

    def write(name, **fields):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        fields.setdefault("runpath", "")
        fields.setdefault("soname", path.name)
        path.write_bytes(made(interpreter=f"{tmp_path}/ld.so".encode() + b"\0", **fields))
        return path

    write.root = tmp_path
    return write


def close(place, program, objects=(), dlopened=()):
    closure = library_closure.close(
        program, objects, dlopened, directories=[f"{place.root}/lib", f"{place.root}/lib2"]
    )
    return {
        item.name: (str(item.origin.relative_to(place.root)), item.why)
        for item in closure.libraries
    }


def test_needed_libraries_recursively_and_each_once(place):
    program = place("prog", needed=("liba.so", "libb.so", "ld.so"))
    place("lib/liba.so", needed=("libc.so",))
    place("lib2/libb.so", needed=("libc.so", "liba.so"))
    place("lib/libc.so", needed=("ld.so",))
    assert close(place, program) == {
        "liba.so": ("lib/liba.so", "library of prog"),
        "libb.so": ("lib2/libb.so", "library of prog"),
        "libc.so": ("lib/libc.so", "library of liba.so"),
    }


def test_the_loader_is_packed_where_the_program_looks_for_it(place):
    program = place("prog", needed=())
    loader = library_closure.close(program, []).loader
    assert loader.name == f"{place.root}/ld.so"
    assert loader.why == "loader of prog"


def test_runpath_with_origin_goes_before_the_defaults_and_ends_with_its_file(place):
    program = place("prog", needed=("liba.so",), runpath="$ORIGIN/own")
    place("own/liba.so", needed=("libdeep.so",))
    place("lib/liba.so", needed=())
    place("own/libdeep.so", needed=())
    with pytest.raises(BuildError, match=r"libdeep\.so"):
        close(place, program)
    place("lib/libdeep.so", needed=())
    assert close(place, program)["liba.so"][0] == "own/liba.so"
    assert close(place, program)["libdeep.so"][0] == "lib/libdeep.so"


def test_extensions_and_libraries_opened_at_run_time(place):
    program = place("prog", needed=())
    extension = place("ext.so", needed=("liba.so",))
    place("lib/liba.so", needed=())
    place("lib/libb.so", needed=())
    found = close(place, program, [(extension, "_ext")], [("libb.so", "profile x")])
    assert found == {
        "liba.so": ("lib/liba.so", "library of _ext"),
        "libb.so": ("lib/libb.so", "opened at run time by profile x"),
    }


def test_a_library_of_another_machine_is_stepped_over(place):
    program = place("prog", needed=("liba.so",))
    place("lib/liba.so", machine=183)
    place("lib2/liba.so", needed=())
    assert close(place, program)["liba.so"][0] == "lib2/liba.so"


def test_refusals(place):
    program = place("prog", needed=("gone.so",))
    with pytest.raises(BuildError, match=r"gone\.so") as caught:
        close(place, program)
    assert caught.value.code == "library-unresolved"
    with pytest.raises(BuildError, match="the path") as caught:
        close(place, place("prog2", needed=("/etc/x.so",)))
    assert caught.value.code == "library-unresolved"
    static = place.root / "static"
    static.write_bytes(made(interpreter=b"x\0"))
    with pytest.raises(BuildError) as caught:
        library_closure.close(static, [])
    assert caught.value.code == "library-loader"
    broken = place("lib/broken.so")
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(FormatError) as caught:
        close(place, place("prog3", needed=("broken.so",)))
    assert caught.value.code == "elf-bounds"
    with pytest.raises(BuildError, match="cannot be read"):
        library_closure.close(place.root / "absent", [])


def test_one_name_may_not_be_two_files(place):
    program = place("prog", needed=("liba.so", "libb.so"))
    place("lib/liba.so", needed=("libx.so",), runpath="$ORIGIN/../own")
    place("lib/libb.so", needed=("libx.so",))
    place("own/libx.so", needed=())
    place("lib/libx.so", needed=())
    with pytest.raises(BuildError) as caught:
        close(place, program)
    assert caught.value.code == "library-conflict"


@pytest.mark.tool
def test_the_real_loader_agrees():
    if shutil.which("ldd") is None or not Path("/usr/bin/python3").exists():
        pytest.skip("ldd or /usr/bin/python3 is not installed")
    program = Path("/usr/bin/python3").resolve()
    text = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    listed = {
        line.split()[0]: Path(line.split()[2]).resolve()
        for line in text.splitlines()
        if "=>" in line
    }
    found = library_closure.close(program, [])
    assert {item.name: item.origin for item in found.libraries} == listed

# SPDX-License-Identifier: Apache-2.0
"""Python modules that entries need, seen by the target interpreter and in the source."""

import os
import subprocess
import sys

import pytest

from troth.errors import BuildError, HostError
from troth.image.inputs import interpreter as python
from troth.image.packing import package, python_closure


@pytest.fixture(scope="module")
def target():
    if not python.DEFAULT.exists():
        pytest.skip(f"{python.DEFAULT} is not installed")
    return python.identify()


@pytest.fixture
def root(tmp_path):
    """A package called troth with the given modules."""

    def make(**modules):
        package = tmp_path / "troth"
        package.mkdir()
        (package / "__init__.py").write_text("")
        for name, text in modules.items():
            (package / f"{name}.py").write_text(text)
        return tmp_path

    return make


def names(target, root, *entries):
    closure = python_closure.close(target, [(name, "test") for name in entries], root=root)
    return {module.name for module in closure.modules}


def test_start_up_and_landmark_are_always_there(target, root):
    closure = python_closure.close(target, [], root=root())
    by_path = {module.path: module for module in closure.modules}
    assert {"os.pyc", "encodings/__init__.pyc", "encodings/utf_8.pyc", "encodings/ascii.pyc",
            "encodings/latin_1.pyc", "encodings/aliases.pyc"} <= set(by_path)  # fmt: skip
    assert by_path["os.pyc"].why == "python: the landmark of its library directory"
    assert "sys" in closure.builtin


def test_imports_inside_functions_are_followed(target, root):
    place = root(
        first="def run():\n    from troth import second\n    from troth.third import VALUE\n",
        second="class A:\n    def go(self):\n        import colorsys\n",
        third="VALUE = 1\n",
        stranger="",
    )
    found = names(target, place, "troth.first")
    assert {"troth", "troth.first", "troth.second", "troth.third", "colorsys"} <= found
    assert "troth.stranger" not in found


def test_imports_for_type_checkers_are_not(target, root):
    place = root(
        first="import sys\nTYPE_CHECKING = False\nif TYPE_CHECKING:\n    import colorsys\n"
        "else:\n    import sndhdr2 if False else sys\n".replace(
            "import sndhdr2 if False else sys", "import stat"
        ),
        second="import typing\nif typing.TYPE_CHECKING:\n    import colorsys\n",
    )
    assert "colorsys" not in names(target, place, "troth.first", "troth.second")


def test_guarded_imports_may_be_missing_others_not(target, root):
    place = root(
        guarded="def run():\n    try:\n        import no_such_thing\n"
        "    except ImportError:\n        import neither_this\n",
        bare="def run():\n    import no_such_thing\n",
    )
    assert "troth.guarded" in names(target, place, "troth.guarded")
    with pytest.raises(BuildError, match="no_such_thing") as caught:
        names(target, place, "troth.bare")
    assert caught.value.code == "python-import"


def foreign(tmp_path, name="made_heavy"):
    """A package whose own ``__init__`` nobody may run, with one module that is wanted."""
    place = tmp_path / "elsewhere" / name
    (place / "part").mkdir(parents=True)
    (place / "__init__.py").write_text("raise SystemExit('run')\n")
    (place / "part/__init__.py").write_text("")
    (place / "part/wanted.py").write_text(f"import colorsys\nimport {name}.part.other\n")
    (place / "part/other.py").write_text("")
    (place / "part/stranger.py").write_text("raise SystemExit('run')\n")
    return place


def test_of_another_package_only_what_is_imported(target, root, tmp_path):
    place = root(first="def run():\n    from made_heavy.part.wanted import colorsys\n")
    closure = python_closure.close(
        target, [("troth.first", "test")], root=place, packages={"made_heavy": foreign(tmp_path)}
    )
    paths = {module.path for module in closure.modules}
    assert {path for path in paths if "made_heavy" in path} == {
        "made_heavy/part/__init__.pyc", "made_heavy/part/wanted.pyc", "made_heavy/part/other.pyc",
    }  # fmt: skip
    assert "colorsys.pyc" in paths


def test_another_package_that_no_profile_names(target, root, tmp_path, monkeypatch):
    place = foreign(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(place.parent))
    with pytest.raises(BuildError) as caught:
        names(target, root(first="import made_heavy.part.wanted\n"), "troth.first")
    assert caught.value.code == "python-import"


def test_a_module_from_outside_its_package(target, root, tmp_path):
    """What a packed module brings from a place that nobody declared is refused as ever."""
    place = foreign(tmp_path)
    (place / "part/wanted.py").write_text(
        f"import sys\nsys.path.append({str(tmp_path)!r})\nimport made_stray\n"
    )
    (tmp_path / "made_stray.py").write_text("")
    with pytest.raises(BuildError) as caught:
        python_closure.close(
            target, [("troth.first", "test")],
            root=root(first="import made_heavy.part.wanted\n"), packages={"made_heavy": place},
        )  # fmt: skip
    assert caught.value.code == "python-origin"


def test_a_package_is_found_without_running_it(tmp_path, monkeypatch):
    place = foreign(tmp_path)
    monkeypatch.syspath_prepend(str(place.parent))
    assert package.find("made_heavy") == place
    with pytest.raises(BuildError) as caught:
        package.find("made_none")
    assert caught.value.code == "package-missing"


def test_the_policy_twin_need_not_exist_yet(target, root):
    place = root(first="import troth_baked\n")
    assert "troth_baked" not in names(target, place, "troth.first")


def test_missing_entries_and_broken_sources(target, root):
    place = root(broken="def run(:\n")
    for entry in ("troth.gone", "troth.broken"):
        with pytest.raises(BuildError) as caught:
            names(target, place, entry)
        assert caught.value.code == "python-import"


def test_modules_from_elsewhere_are_refused(target, root, tmp_path):
    place = root(first="import neighbour\n")
    (tmp_path / "neighbour.py").write_text("")
    with pytest.raises(BuildError) as caught:
        names(target, place, "troth.first")
    assert caught.value.code == "python-origin"


def test_extensions_and_who_wants_them(target, root):
    place = root(first="import _ctypes\n")
    closure = python_closure.close(target, [("troth.first", "stage x")], root=place)
    found = {module.name: module for module in closure.modules}
    if "_ctypes" in closure.builtin:
        pytest.skip("this interpreter has _ctypes inside")
    assert found["_ctypes"].kind == "extension"
    assert found["_ctypes"].path.startswith("lib-dynload/_ctypes.")
    assert found["_ctypes"].why == "python: stage x"


def test_the_callers_python_variables_do_not_matter(target, root, monkeypatch, tmp_path):
    place = root(first="import colorsys\n")
    (tmp_path / "colorsys.py").write_text("raise SystemExit('the wrong one')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert "colorsys" in names(target, place, "troth.first")


SOURCES = [
    (
        "/usr/lib/python3/a.pyc",
        b'"""Doc."""\nassert False, "gone"\nNAMES = {"x", "y", "z"}\nA = "a b"\n',
    ),
    ("/usr/lib/python3/b.pyc", b"def f(a, *, search):\n    return a in {'posix', 'nt', 'java'}\n"),
]


def test_bytecode_is_unchecked_and_without_docstrings(target):
    compiled = python.compile_all(target, SOURCES)
    for (path, _source), data in zip(SOURCES, compiled, strict=True):
        assert data[4:8] == b"\x01\0\0\0"
        assert path.encode() in data
    assert b"Doc." not in compiled[0]
    assert b"gone" not in compiled[0]


def test_bytecode_does_not_depend_on_its_neighbours(target):
    together = python.compile_all(target, SOURCES)
    backwards = python.compile_all(target, SOURCES[::-1])
    alone = [python.compile_all(target, [item])[0] for item in SOURCES]
    assert list(together) == list(backwards)[::-1] == alone


def test_bytecode_runs(target, tmp_path):
    (code,) = python.compile_all(target, [("/x/m.pyc", b"print('it runs')\n")])
    (tmp_path / "m.pyc").write_bytes(code)
    done = subprocess.run(
        [target.path, "-ISB", tmp_path / "m.pyc"], capture_output=True, check=True
    )
    assert done.stdout == b"it runs\n"


def test_sources_that_do_not_compile(target):
    with pytest.raises(BuildError, match=r"/x\.pyc:1") as caught:
        python.compile_all(target, [("/x.pyc", b"def (:\n")])
    assert caught.value.code == "python-compile"
    with pytest.raises(BuildError) as caught:
        python.compile_all(target, [("/x.pyc", b"a = 1\0\n")])
    assert caught.value.code == "python-compile"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("", "python-layout"),
        ("pypy 3.11 3.11.0 /x/y/z", "python-version"),
        ("cpython 3.9 3.9.2 /x/y/z", "python-version"),
        ("cpython three 3 /x/y/z", "python-layout"),
        ("cpython 3.11 3.11.2 /x/y/z", "python-layout"),
    ],
)
def test_interpreters_that_will_not_do(tmp_path, words, code):
    path = tmp_path / "fake"
    lines = "".join(f"echo {word}\n" for word in words.split())
    path.write_text(f"#!/bin/sh\n{lines}echo\n")
    path.chmod(0o755)
    with pytest.raises(BuildError) as caught:
        python.identify(path)
    assert caught.value.code == code


def test_no_interpreter(tmp_path):
    with pytest.raises(HostError):
        python.identify(tmp_path / "python3")


def test_a_virtual_environment_leads_to_its_interpreter(target):
    found = python.identify(python.Path(sys.executable))
    assert found.path == python.Path(os.path.realpath(sys.executable))
    assert (found.stdlib / "os.py").is_file()

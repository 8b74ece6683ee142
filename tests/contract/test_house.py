# SPDX-License-Identifier: Apache-2.0
"""The rules of the house that no linter knows: read from the source, not from memory."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "agent" / "troth"
SOURCES = sorted(PACKAGE.rglob("*.py"))
LICENCE = "SPDX-License-Identifier: Apache-2.0"
#: Files whose format or purpose leaves no place for a licence line.
UNMARKED = {"LICENSE", ".gitignore", "pyproject.toml", "go.sum"}
UNMARKED_ENDINGS = (".md", ".json", ".jsonl", ".svg", ".txt", ".lock", ".hex")
#: Settings of the examples are there to be copied into somebody's own work.
EXAMPLE_SETTINGS = {".toml", ".service", ".network"}
#: What product code may read of its environment, all on the host; anything more is a back door.
VARIABLES = {"SOURCE_DATE_EPOCH", "TROTH_CACHE", "XDG_CACHE_HOME", "PATH"}
#: How a service manager speaks to its services (sd_notify(3), sd_watchdog_enabled(3)).
VARIABLES |= {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
#: PID 1's last line, and the end of the machine that it leads to: nothing may escape them.
LAST_LINE = (PACKAGE / "boot" / "init.py", PACKAGE / "boot" / "fail.py")
#: Heavy or foreign libraries and the one door to each.
DOORS: dict[str, tuple[str, ...]] = {
    "cryptography": ("signing", "ciphers"),
    "tpm2_pytss": ("registers",),
    "pyroute2": ("boot",),
}


def tree(path):
    return ast.parse(path.read_text("utf-8"), str(path))


def place(path, node=None):
    line = "" if node is None else f":{node.lineno}"
    return f"{path.relative_to(REPOSITORY)}{line}"


def tracked():
    """Files under version control, or all that a source archive holds."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("needs git and a checkout to tell sources from what was made of them")
    return [REPOSITORY / name for name in done.stdout.decode().split("\0") if name]


def test_rooms_import_downwards_only():
    tool = Path(sys.executable).with_name("lint-imports")
    assert tool.exists(), "import-linter is not installed: run scripts/setup"
    done = subprocess.run(
        [tool, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_room_has_its_layer():
    """A new room that nobody put into the layers would be checked by nothing."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = [item["layers"] for item in contracts if item["type"] == "layers"]
    listed = {
        name.strip() for line in layers for part in line.split("|") for name in part.split(":")
    }
    rooms = {f"troth.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
    rooms |= {f"troth.{path.stem}" for path in PACKAGE.glob("[!_]*.py")}
    assert rooms == listed


def test_every_source_names_its_licence():
    unmarked = []
    for path in tracked():
        if path.is_symlink() or not path.is_file():
            continue
        if path.name in UNMARKED or path.suffix in UNMARKED_ENDINGS:
            continue
        if path.is_relative_to(REPOSITORY / "examples") and path.suffix in EXAMPLE_SETTINGS:
            continue
        head = path.read_bytes()[:400].decode("utf-8", "replace").splitlines()[:3]
        if not any(LICENCE in line for line in head):
            unmarked.append(place(path))
    assert not unmarked


#: PID 1's last line of defence, and the refusal that it ends in.
LAST_LINES = (PACKAGE / "boot" / "init.py", PACKAGE / "boot" / "fail.py")


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_module(path):
    module = tree(path)
    assert ast.get_docstring(module), "says nothing about what it serves"
    for node in ast.walk(module):
        assert not isinstance(node, ast.Assert), f"{place(path, node)}: vanishes under -O"
        if isinstance(node, ast.ExceptHandler) and path not in LAST_LINES:
            caught = "BaseException" if node.type is None else ast.unparse(node.type)
            reraises = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            assert reraises or not {"Exception", "BaseException"} & names(caught), (
                f"{place(path, node)}: catches what nobody foresaw"
            )


def names(text):
    return set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())


def test_no_hooks_for_tests():
    """Behaviour depends on arguments and documents, not on a word in the environment."""
    read = {}
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "os.environ.get", "os.getenv", "environ.get",
            ):  # fmt: skip
                read[ast.literal_eval(node.args[0])] = place(path, node)
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
                # image.program passes a fixed list of names on to the programs it runs.
                assert path == PACKAGE / "image" / "program.py", place(path, node)
            if isinstance(node, ast.Import | ast.ImportFrom):
                words = {alias.name.split(".")[0] for alias in node.names}
                words.add((getattr(node, "module", None) or "").split(".")[0])
                assert not words & {"pytest", "unittest", "hypothesis", "tests"}, place(path, node)
    assert set(read) <= VARIABLES, {name: at for name, at in read.items() if name not in VARIABLES}


def test_one_door_for_each_library():
    """Third-party packages are imported in one room only."""
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            modules = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            for module in modules:
                top = module.split(".")[0]
                # An underscore: the interpreter's own, of this version or another.
                if top in sys.stdlib_module_names or top.startswith("_"):
                    continue
                if top in ("troth", "troth_baked"):
                    continue
                assert top in DOORS, f"{place(path, node)}: {top} has no door"
                assert path.parent.name in DOORS[top], f"{place(path, node)}: not the door of {top}"


def test_data_rooms_are_reached_by_links():
    links = sorted((PACKAGE / "_data").iterdir())
    assert links
    for link in links:
        assert link.is_symlink(), place(link)
        assert not Path(link.readlink()).is_absolute(), place(link)
        assert link.resolve() == REPOSITORY / link.name


def test_every_fuzz_target_has_its_entry():
    for path in (REPOSITORY / "tests" / "fuzz").glob("*.py"):
        found = [node for node in tree(path).body if isinstance(node, ast.FunctionDef)]
        assert "fuzz" in [node.name for node in found], place(path)

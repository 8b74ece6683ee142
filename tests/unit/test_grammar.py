# SPDX-License-Identifier: Apache-2.0
"""The command line: what the grammar says, the parser, pages and completion do."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import subprocess
import sys

import pytest

from troth import __version__
from troth.cli import completion, grammar, man
from troth.cli.grammar import images
from troth.cli.main import main, parse
from troth.errors import BuildError, HostError, TrothError, UsageError

IDS = [" ".join(verb.words) for verb in grammar.VERBS]


@pytest.mark.parametrize("verb", grammar.VERBS, ids=IDS)
def test_every_verb_has_its_function(verb):
    module, _, name = verb.function.partition(":")
    function = getattr(importlib.import_module(module), name)
    assert len(inspect.signature(function).parameters) == 1


def test_names_are_unique_and_plain():
    assert len({verb.words for verb in grammar.VERBS}) == len(grammar.VERBS)
    for verb in grammar.VERBS:
        names = [name for option in (*verb.options, grammar.DEBUG) for name in option.names]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"--[a-z][a-z0-9-]+|-[a-z]", name) for name in names)
        assert all(option.names[0].startswith("--") for option in verb.options)
        assert (len(verb.words) == 2) == (verb.words[0] in grammar.GROUPS)


@pytest.mark.parametrize("verb", grammar.VERBS, ids=IDS)
def test_options_parse_and_have_attributes(verb):
    words = []
    for option in verb.options:
        words.append(option.names[-1])
        if option.metavar:
            value = {"integer": "1", "number": "1.5"}.get(option.kind, "x")
            words.append(option.choices[0] if option.choices else value)
    words += ["x" for item in verb.positionals if item.count == "one"]
    options = parse(verb, words)
    for option in verb.options:
        assert getattr(options, option.names[0][2:].replace("-", "_")) not in (None, [], False)


def test_options_not_given():
    options = parse(images.RUN, ["d"])
    assert (options.bundle, options.memory, options.cpus, options.accel) == ("d", "1G", 1, "auto")
    assert options.disk == []
    assert options.timeout is None
    assert options.no_tpm is False


def test_the_forms_of_inspect():
    options = parse(images.INSPECT, ["a", "diff", "b"])
    assert (options.target, options.action, options.rest) == ("a", "diff", ["b"])
    options = parse(images.INSPECT, ["a", "--json"])
    assert (options.target, options.action, options.rest, options.json) == ("a", None, [], True)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["rnu"], "did you mean run?"),
        (["verity", "fromat"], "did you mean format?"),
        (["pcr"], "troth pcr --help"),
        (["--verison"], "did you mean --version?"),
        (["run", "d", "--tiemout", "3"], "did you mean --timeout?"),
        (["run", "d", "--tiemout=3"], "did you mean --timeout?"),
        (["run"], "troth run --help"),
        (["run", "a", "b"], "troth run --help"),
        (["run", "d", "--cpus", "many"], "troth run --help"),
        (["run", "d", "--time", "3"], "did you mean --timeout?"),
        (["build", "m"], "troth build --help"),
        (["--completion", "fish"], ""),
        (["--man", "nonsense"], "troth --help"),
    ],
)
def test_usage_errors(words, hint, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("troth: error [usage]: ")
    assert hint in said


def test_help_and_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"troth {__version__}\n"
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert main(["verity", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in IDS)
    for verb in grammar.VERBS:
        with pytest.raises(SystemExit) as ended:
            main([*verb.words, "--help"])
        assert ended.value.code == 0
    assert "--tpm-state" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BuildError("a-b", "It\x1b[2J broke", where="here:3", hint="mend it"), 1),
        (UsageError("a-b", "x"), 2),
        (HostError("a-b", "x"), 3),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 1),
        (FileNotFoundError(2, "No such file", "name"), 1),
    ],
)
def test_errors_become_words_and_a_status(monkeypatch, capfd, error, status):
    def raise_it(_options):
        raise error

    monkeypatch.setattr("troth.cli.doctor.doctor", raise_it)
    with_pipe = isinstance(error, BrokenPipeError)
    if with_pipe:  # it closes the real standard output for good: not in this process
        words = "from troth.cli import doctor, main; import sys\n"
        words += "def f(o): raise BrokenPipeError\n"
        words += "doctor.doctor = f; sys.exit(main.main(['doctor']))"
        done = subprocess.run([sys.executable, "-c", words], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (status, b"")
        return
    assert main(["doctor"]) == status
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "\x1b" not in said
    if isinstance(error, TrothError) and error.hint:
        assert said.splitlines()[1:] == ["  where: here:3", "  hint: mend it"]
    if isinstance(error, TrothError):
        assert main(["doctor", "--debug"]) == status
        assert "Traceback" in capfd.readouterr().err


def test_a_verb_is_imported_only_when_used():
    words = "import sys; from troth.cli.main import main; main(['--version'])\n"
    words += "print([m for m in sys.modules if m.startswith('troth.machine')])"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == b"[]"


def test_pages_name_every_option():
    pages = man.pages()
    assert len(pages) == len(grammar.VERBS) + 1
    for verb in grammar.VERBS:
        page = pages[f"troth-{'-'.join(verb.words)}.1"]
        for option in verb.options:
            assert option.names[0].replace("-", r"\-") in page
    assert man.page(None) == pages["troth.1"]


@pytest.mark.tool
@pytest.mark.skipif(shutil.which("man") is None, reason="needs man (man-db) as oracle")
def test_pages_are_clean_roff():
    for page in man.pages().values():
        words = ["man", "--warnings", "-E", "UTF-8", "-l", "-"]
        done = subprocess.run(words, input=page.encode(), capture_output=True, check=True)
        assert done.stderr == b""
        assert b"EXIT STATUS" in done.stdout


def complete(*words: str) -> list[str]:
    """What bash would offer for the last of ``words``."""
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"{completion.script('bash')}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}\n"
    script += '_troth; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-u", "-c", script], capture_output=True, check=True, text=True, cwd="/"
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.tool
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash as oracle")
def test_bash_completes():
    assert complete("troth", "ver") == ["verity", "verify"]
    assert complete("troth", "verity", "") == ["format", "verify"]
    assert complete("troth", "run", "--tpm") == ["--tpm-state"]
    assert complete("troth", "run", "--firmware", "") == ["seabios", "ovmf"]
    assert complete("troth", "pcr", "predict", "--at", "w") == ["workload"]
    assert complete("troth", "build", "et") == ["etc"]


def test_zsh_gets_the_same_lists():
    assert completion.script("bash") in completion.script("zsh")


@pytest.mark.parametrize(
    "text", ["1_0", "\u0663", " 1", "1 ", "+1", "", "-", "--1", "0x1", "1e3", "9" * 5000]
)
def test_numbers_have_one_spelling(text, capsys):
    assert main(["measure", "igvm", "absent", f"--vcpus={text}"]) == 2
    said = capsys.readouterr().err
    assert "[usage]: argument --vcpus:" in said
    assert len(said) < 200


def test_a_negative_number_is_a_number(capsys):
    assert main(["measure", "igvm", "absent", "--vcpus", "-1"]) == 1
    assert "[os-error]" in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_stream_is_no_traceback(closed):
    words = [sys.executable, "-m", "troth.cli.main", "--version"]
    done = subprocess.run(
        ["sh", "-c", f'"$@" {closed}>&-', "sh", *words], capture_output=True, text=True, check=False
    )
    shown = "" if closed == "1" else f"troth {__version__}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")


@pytest.mark.parametrize("verb", grammar.VERBS, ids=IDS)
def test_help_names_every_choice(verb, capsys):
    with pytest.raises(SystemExit):
        main([*verb.words, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for option in verb.options:
        for word in option.choices:
            assert word in shown.replace("- ", "-")

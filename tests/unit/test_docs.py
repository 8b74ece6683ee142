# SPDX-License-Identifier: Apache-2.0
"""The documents say what the code does: codes, keys, commands, links and test vectors.

Each check reads the page and the code and compares both ways, so a page cannot
go on describing something that is gone, nor keep silent about something new.
"""

import ast
import json
import re
import shlex
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest

from made_policy import policy
from made_volumes import BROKER, UUID, VOLUME
from troth import errors
from troth.abi import snp_policy, volume_record
from troth.abi.volume_record import VolumeRecord
from troth.cli import grammar, main
from troth.documents import (
    bundle,
    dsse,
    event_log,
    event_log_json,
    policy_json,
    reference_values,
    reference_values_json,
    statement,
    toml_source,
    volume_profile_file,
)
from troth.documents import lock as lock_document
from troth.documents import policy as policy_document
from troth.documents.event_log import Event
from troth.documents.stages import STAGES
from troth.errors import TrothError
from troth.image.inputs import manifest, manifest_launch, manifest_source
from troth.machine import console, outcome
from troth.measure import pcr, register
from troth.measure.boot_events import boot_events
from troth.measure.workload import Entry, tree_digest
from troth.record import replace
from troth.verify import replay
from troth.volumes import crypt, keys, luks2_reasons, opening, record_reasons

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
SOURCES = sorted((REPOSITORY / "agent" / "troth").rglob("*.py"))
#: Written by the bench and by the engineers of other pages; linked to, not owned here.
ELSEWHERE = {"docs/performance.md"}
PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(p for p in DOCS.glob("*.md") if p.name != "performance.md")]
)
CLASSES = tuple(
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, TrothError)
)
CODE = re.compile(r"(?=...)[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def section(text: str, title: str) -> str:
    """What stands below the heading ``title`` up to the next heading of its level or above."""
    level = len(title) - len(title.lstrip("#"))
    found = re.search(
        rf"^{re.escape(title)}$(.*?)(?=^#{{1,{level}}} |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found, f"no section {title!r}"
    return found[1]


def first_column(text: str) -> set[str]:
    """The words in backticks in the first column of all tables in ``text``."""
    words = set()
    for line in text.splitlines():
        if line.startswith("| `"):
            words.update(re.findall(r"`([^`]+)`", line.split(" | ")[0]))
    return words


# --- links and commands ---------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        end = (path.parent / name).resolve() if name else path
        inside = end.relative_to(REPOSITORY).as_posix()
        if inside in ELSEWHERE and not end.exists():
            continue
        assert end.exists(), f"{path.name} links to {target}"
        if anchor:
            assert anchor in anchors(end), f"{path.name} links to {target}"


def commands(path: Path) -> list[str]:
    """Every command that begins with ``troth`` in the fenced blocks of a page.

    Blocks of ``sh`` hold commands only; in ``console`` they stand behind a ``$``.
    """
    found = []
    text = path.read_text("utf-8")
    for kind, block in re.findall(r"^```(sh|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if kind == "console" and not line.startswith("$ "):
                continue
            words = line.removeprefix("$ ").removeprefix(".venv/bin/")
            if words.startswith("troth "):
                found.append(words)
    return found


def test_there_are_commands_to_check():
    assert sum(len(commands(path)) for path in PAGES) >= 8


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_parse_with_the_grammar(path):
    for line in commands(path):
        words = shlex.split(line.split(" | ")[0], comments=True)[1:]
        if words[:1] in ([name] for option in grammar.GLOBAL for name in option.names):
            continue
        verb, rest = main._find(words)
        main.parse(verb, [word for word in rest if word != "--debug"])


# --- docs/errors.md -------------------------------------------------------------------------


def constants(node: ast.expr | None) -> set[str]:
    """The code texts that ``node`` can stand for: a constant, or a choice of two."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value} if CODE.match(node.value) else set()
    if isinstance(node, ast.IfExp):
        return constants(node.body) | constants(node.orelse)
    return set()


def takes_code(tree: ast.Module) -> dict[str, int]:
    """Functions and records of ``tree`` with a parameter ``code`` -> its position in a call."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names = [argument.arg for argument in node.args.args if argument.arg != "self"]
            keyword = [argument.arg for argument in node.args.kwonlyargs]
            if "code" in names + keyword:
                found[node.name] = names.index("code") if "code" in names else 1000
        if isinstance(node, ast.ClassDef):
            fields = [f.target.id for f in node.body if isinstance(f, ast.AnnAssign)]
            # "exact": what the key worker found, before it becomes a veiled refusal.
            for word in ("code", "exact"):
                if word in fields:
                    found[node.name] = fields.index(word)
    return found


def public_codes(trees: list[ast.Module]) -> dict[str, set[str]]:
    """Names of ``boot.keys`` that end in _REFUSED -> the public code that each stands for."""
    found: dict[str, set[str]] = {}
    for tree in trees:
        for node in tree.body:
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Tuple):
                continue
            for name, value in zip(
                node.targets[0].elts, getattr(node.value, "elts", ()), strict=False
            ):
                if isinstance(name, ast.Name) and name.id.endswith("_REFUSED"):
                    found[name.id] = constants(value)
    return found


def named_codes(node: ast.expr, names: dict[str, set[str]]) -> set[str]:
    """What a name of ``names`` stands for, by itself or behind its module."""
    return names.get(getattr(node, "id", getattr(node, "attr", "")), set())


@cache
def codes_in_code() -> tuple[set[str], dict[str, set[str]]]:
    """All codes of the tree, and those given directly to each class of the error tree."""
    trees = [ast.parse(path.read_text("utf-8")) for path in SOURCES]
    places: dict[str, int] = {}
    for tree in trees:
        places.update(takes_code(tree))
    names = public_codes(trees)
    every: set[str] = set().union(*names.values())
    direct: dict[str, set[str]] = {name: set() for name in CLASSES}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(item, ast.Name) and item.id == "code" for item in targets):
                    every |= constants(node.value)
            if isinstance(node, ast.FunctionDef):
                for argument, default in zip(
                    node.args.kwonlyargs, node.args.kw_defaults, strict=True
                ):
                    if argument.arg == "code":
                        every |= constants(default)
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            given = {word.arg: word.value for word in node.keywords}
            if name in CLASSES and node.args:
                # A veiled refusal has two: a public one, and an exact one behind it.
                codes = node.args[:2] if name == "VeiledRefusal" else node.args[:1]
                for item in codes:
                    direct[name] |= constants(item) | named_codes(item, names)
                every |= direct[name]
            elif name in places:
                index = places[name]
                every |= constants(given.get("code"))
                if index < len(node.args):
                    every |= constants(node.args[index])
    return every, direct


def test_every_code_is_documented_and_every_documented_code_exists():
    every, _direct = codes_in_code()
    documented = first_column(page("errors.md"))
    assert len(every) > 100
    assert sorted(every - documented) == [], "missing in docs/errors.md"
    assert sorted(documented - every) == [], "gone from the code, still in docs/errors.md"


@pytest.mark.parametrize("name", CLASSES)
def test_codes_stand_under_their_branch_of_the_error_tree(name):
    _every, direct = codes_in_code()
    text = page("errors.md")
    if not direct[name]:
        return
    documented = first_column(section(text, f"## {name}"))
    assert sorted(direct[name] - documented) == []


def test_refusals_name_their_stage():
    rows = [
        line.split(" | ")
        for line in section(page("errors.md"), "## Refusal").splitlines()
        if line.startswith("| `")
    ]
    stages = {name for name, _module, _wanted in STAGES} | {"any"}
    for row in rows:
        assert len(row) == 4
        assert set(re.split(r", ", row[1])) <= stages, row[0]


def test_boot_stalls_speaks_of_known_codes_only():
    documented = first_column(page("errors.md"))
    for word in first_column(page("boot-stalls.md")):
        if CODE.match(word):
            assert word in documented, word


# --- docs/volumes.md ------------------------------------------------------------------------


def test_every_refusal_of_a_volume_is_described_with_its_reason():
    for heading, wanted in (
        ("## What is refused of a header, and why", luks2_reasons.WHY),
        ("## What is refused without a header, and why", record_reasons.WHY),
    ):
        rows = {}
        for line in section(page("volumes.md"), heading).splitlines():
            if line.startswith("| `"):
                code, _accepted, reason = line.strip("| ").split(" | ")
                rows[code.strip("`")] = reason
        assert rows == wanted


def test_profiles_of_volumes_are_described():
    described = first_column(section(page("formats.md"), "## Volume profile"))
    assert described == {"schema", *volume_profile_file.FIELDS}


# --- docs/manifest.md -----------------------------------------------------------------------


def test_every_manifest_key_is_described():
    text = page("manifest.md")
    for table, known in manifest._KEYS.items():
        title = f"## [[{table}]]" if table in manifest._ARRAYS else f"## [{table}]"
        described = first_column(section(text, title))
        assert described == set(known), title


def test_manifest_defaults_are_the_codes():
    text = page("manifest.md")
    for key, value in {
        "compression": f'`"{manifest.DEFAULT_COMPRESSION}"`',
        "deadline_s": f"`{manifest.DEFAULT_DEADLINE_S}`",
        "device_timeout_s": f"`{manifest.DEFAULT_DEVICE_TIMEOUT_S}`",
        "grace_s": f"`{manifest.DEFAULT_GRACE_S}`",
        "user": f"`{manifest.NOBODY}`",
        "vcpus": f"`{manifest_launch.DEFAULT_VCPUS}`",
        "cpu_types": f'`"{manifest_launch.DEFAULT_CPU_TYPE}"`',
        "memory": f'`"{manifest_launch.DEFAULT_MEMORY}"`',
        "policy": f"`{snp_policy.DEFAULT:#x}`",
    }.items():
        assert re.search(rf"^\| `{key}` \| [^|]+ \| {re.escape(value)}", text, re.MULTILINE), key


def toml_blocks() -> list[tuple[str, str]]:
    found = []
    for path in PAGES:
        text = path.read_text("utf-8")
        found += [
            (path.name, block)
            for block in re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        ]
    return found


def test_manifests_in_the_documents_are_accepted():
    blocks = toml_blocks()
    assert blocks
    for name, block in blocks:
        parsed = manifest.parse(block.encode(), Path(name))
        assert parsed.tee.snp in ("none", "simulated")


# --- docs/formats.md ------------------------------------------------------------------------


def vectors() -> dict[str, str]:
    """``name = value`` lines of the page's blocks marked ``vector``."""
    found: dict[str, str] = {}
    for block in re.findall(
        r"^```vector\n(.*?)^```$", page("formats.md"), re.MULTILINE | re.DOTALL
    ):
        for line in block.splitlines():
            name, separator, value = line.partition(" = ")
            assert separator, line
            assert name not in found
            found[name] = value
    return found


WORKLOAD_EXAMPLE = (
    Entry(b"opt/app", "d", 0o755, 0, 0, 0, b""),
    Entry(b"opt/app/run", "f", 0o755, 0, 0, 3, sha256(b"hi\n").digest()),
    Entry(b"opt/app/now", "l", 0o777, 0, 0, 3, b"run"),
)


def test_workload_vectors():
    given = vectors()
    assert given["workload digest"] == tree_digest(WORKLOAD_EXAMPLE).hex()
    assert given["workload digest, nothing"] == tree_digest(()).hex()
    capable = Entry(
        b"opt/app/run", "f", 0o755, 0, 0, 3, sha256(b"hi\n").digest(),
        ((b"security.capability", bytes.fromhex("0100000200040000000000000000000000000000")),),
    )  # fmt: skip
    assert given["workload digest, capability"] == tree_digest((capable,)).hex()


def test_the_worked_example_of_the_workload_digest_adds_up():
    """The page's hex dump, hashed, is the digest it gives."""
    block = re.search(r"^```bytes\n(.*?)^```$", page("formats.md"), re.MULTILINE | re.DOTALL)
    assert block
    data = b"".join(bytes.fromhex(line.split("#")[0]) for line in block[1].splitlines())
    assert sha256(data).hexdigest() == vectors()["workload digest"]


def test_event_log_vectors():
    given = vectors()
    event = Event(3, 11, "phase", b"enter-initrd", pcr.event_digests(("sha256",), b"enter-initrd"))
    assert given["event log record, text"] == event_log.line(event).decode().rstrip("\n")
    raw = bytes(range(0xF8, 0x100))
    event = Event(4, 14, "workload", raw, pcr.event_digests(("sha256",), raw))
    assert given["event log record, hex"] == event_log.line(event).decode().rstrip("\n")
    assert event_log_json.parse(
        given["event log record, text"].replace(":3,", ":0,", 1).encode() + b"\n"
    )
    phases = [
        Event(0, 11, "phase", content, pcr.event_digests(("sha256",), content))
        for content in (event_log.ENTER_INITRD, event_log.LEAVE_INITRD)
    ]
    assert given["PCR 11 after enter-initrd, sha256"] == pcr.replay(phases[:1])["sha256", 11].hex()
    assert given["PCR 11 after leave-initrd, sha256"] == pcr.replay(phases)["sha256", 11].hex()
    assert given["software register after both"] == register.replay(phases).hex()


SECRET = bytes(range(32))
EXAMPLE = VolumeRecord(
    uuid=bytes.fromhex(UUID.replace("-", "")), profile=VOLUME.profile, generation=7,
    data_sectors=62704, tcb=0, guest_svn=0, nonce=SECRET,
)  # fmt: skip


def test_vectors_of_volume_keys():
    given = {
        name.removeprefix("volume key, "): value
        for name, value in vectors().items()
        if name.startswith("volume key, ")
    }
    assert len(given) == 5
    for name, value in given.items():
        profile, role = name.split(", ")
        assert keys.derive(SECRET, uuid=UUID, profile=profile, role=role).hex() == value, name
    event = next(name for name in vectors() if name.startswith("volume-key event"))
    in_use = bytes.fromhex(given["headerless/hmac/4096, xts"] + given["headerless/hmac/4096, hmac"])
    content, digests = opening.key_event(VOLUME, in_use, ("sha256",))
    assert event.endswith(f", {content.decode()}")
    assert vectors()[event] == digests[0][1].hex()


def test_vectors_of_the_volume_record():
    given = vectors()
    key = bytes.fromhex(given["volume key, headerless/hmac/4096, record"])
    data = volume_record.pack(EXAMPLE, key)
    assert given["volume record, bytes 0 to 151"] == data[:152].hex()
    assert given["volume record, HMAC"] == data[480:512].hex()
    assert given["volume record, SHA-256 of all 4096 bytes"] == sha256(data).hexdigest()


def test_the_table_of_the_volume_record_is_its_layout():
    rows = [
        [int(cell) for cell in line.strip("|").split("|")[:2]]
        for line in section(page("formats.md"), "## Volume record").splitlines()
        if re.match(r"\| \d", line)
    ]
    at = 0
    for offset, size in rows[:-1]:
        assert offset == at
        at += size
    assert at == volume_record._FIELDS.size
    assert rows[-1] == [volume_record._MAC_OFFSET, volume_record._MAC_BYTES]
    ciphers = {
        line.split("|")[1].strip(" `"): line
        for line in section(page("formats.md"), "## Keys of a volume").splitlines()
        if line.startswith("| `")
    }
    for name, cipher in crypt.CIPHERS.items():
        # "hmac" is a role and an integrity: the row of the cipher is the later one.
        assert f"`{cipher.text}`" in ciphers[name]


def test_event_table_is_the_codes():
    rows = {}
    for line in section(page("formats.md"), "### Events").splitlines():
        if line.startswith("| ") and "`" in line and not line.startswith("| order"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            kind = re.findall(r"`([^`]+)`", cells[1])[0]
            rows.setdefault(kind, set()).update(
                int(number) for number in re.findall(r"\d+", cells[3])
            )
    expected = {kind: {number} for kind, number in event_log.PCR_OF.items()}
    expected[event_log.CAP] = set(event_log.CAPPED_PCRS)
    assert rows == expected


def test_event_order_is_the_codes():
    """Those of keys are no prediction: digests and words of theirs depend on who released them."""
    made = boot_events(
        policy(workload=("/opt/app",)), policy_bytes=b"{}", cmdline=b"quiet",
        workload=bytes(32), tpm_absent=True, instance=bytes(32),
    )  # fmt: skip
    order = [
        re.findall(r"`([^`]+)`", line.split("|")[2])[0]
        for line in section(page("formats.md"), "### Events").splitlines()
        if re.match(r"\| \d", line)
    ]
    kinds = [event.kind for event in made]
    at = order.index("key-release")
    assert order[at - 1 : at + 3] == ["instance", *replay.KEY_EVENTS, "workload"]
    del order[at : at + 2]
    assert list(dict.fromkeys(order)) == list(dict.fromkeys(kinds))


def fields(value: object, path: str = "") -> set[str]:
    """Paths of the leaves of a JSON tree, as the page writes them: ``cases[].form``."""
    if isinstance(value, dict) and value:
        return {leaf for key, item in value.items() for leaf in fields(item, f"{path}.{key}")}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {leaf for item in value for leaf in fields(item, f"{path}[]")}
    return {path.removeprefix(".")}


def documented_fields(title: str) -> set[str]:
    return first_column(section(page("formats.md"), title))


def test_policy_fields():
    made = replace(policy(workload=("/opt/app",)), encrypted=(VOLUME,), brokers=(BROKER,))
    tree = policy_document.to_tree(made)
    tree["cmdline"]["variable"] = {}
    assert documented_fields("## policy.json") == fields(tree)
    assert policy_document.SCHEMA in page("formats.md")
    example = re.search(r"```json policy\n(.*?)\n```", page("formats.md"), re.DOTALL)
    assert example
    policy_json.parse(example[1].encode())


def test_bundle_manifest_fields():
    made = bundle.Bundle(
        name="x", svn=0, troth_version="0", kernel_release="6", snp="none", vtpm="none",
        vtpm_kind="host", acpi_aml="off", compression="none",
        artefacts=(bundle.Artefact("vmlinuz", 1, "00" * 32),),
        disks=(bundle.Disk("root", "root.img"),),
        packed=(bundle.Packed("init", "file", 0o755, 1, "00" * 32, "", "why"),),
    )  # fmt: skip
    assert documented_fields("## manifest.json") == fields(json.loads(bundle.print_(made)))


def test_reference_values_fields():
    registers = reference_values.Registers((("sha256", 11, "00" * 32),), "00" * 48)
    made = reference_values.ReferenceValues(
        image_name="x", svn=0, troth_version="0", platform="none", snp="none", vtpm="none",
        vtpm_kind="host", policy_sha256="00" * 32, root_hashes=(("root", "00" * 32),),
        workload="",
        cases=(reference_values.Case("plain", "quiet", "present", registers, registers),),
        flags=reference_values.Flags("off", False, False, "none", False, "panic", "none", ()),
        launch=(
            reference_values.LaunchValue(
                "00" * 48, "igvm", "direct", "guest.igvm", "", "plain", "quiet", 1, (), 0, 1 << 30,
                "qemu", 1, 0x30000, "off", ("kernel",), "",
            ),
        ),
        artefacts=(("vmlinuz", "00" * 32),), inputs=(("troth.toml", "00" * 32),),
    )  # fmt: skip
    tree = json.loads(reference_values_json.print_(made))
    text = section(page("formats.md"), "## reference-values.json")
    assert first_column(text.split("### Signed")[0]) == fields(tree)


def test_envelope_fields_and_what_is_signed():
    made = dsse.Envelope(dsse.IN_TOTO, b"{}", (dsse.Signature("", b"x"),))
    fields_of_page = documented_fields("### Signed reference values")
    assert fields_of_page == fields(json.loads(dsse.print_(made)))
    assert vectors()["DSSE pre-authentication encoding"].encode() == dsse.pae(dsse.IN_TOTO, b"{}")
    text = section(page("formats.md"), "### Signed reference values")
    for word in (dsse.IN_TOTO, statement.TYPE, reference_values_json.PREDICATE_TYPE):
        assert f"`{word}`" in text


def test_lock_fields():
    item = lock_document.Item("x", "00" * 32, "p", "1")
    made = lock_document.Lock(
        lock_document.Kernel("p", "1", "00" * 32),
        lock_document.Interpreter("/usr/bin/python3.11", "3.11.2", "00" * 32),
        (item,), (item,),
    )  # fmt: skip
    assert documented_fields("## troth.lock") == fields(json.loads(lock_document.print_(made)))


def test_run_json_fields():
    run = outcome.Record("tcg", supervised=False)
    run.take(console.Stage("mounts", 3.0, "", 1.0))
    assert documented_fields("## troth run --json") == fields(outcome.tree(run))
    kinds = set(re.findall(r"`([a-z-]+)`", section(page("formats.md"), "### Outcomes")))
    source = (REPOSITORY / "agent/troth/machine/outcome.py").read_text("utf-8")
    for kind in re.findall(r'Outcome\(\s*"([a-z-]+)"', source):
        assert kind in kinds, kind


def test_console_lines_are_what_the_host_understands():
    block = re.search(
        r"^```console-lines\n(.*?)^```$", page("formats.md"), re.MULTILINE | re.DOTALL
    )
    assert block
    seen = set()
    for line in block[1].splitlines():
        example = re.sub(r"<[a-z ]+>", lambda word: EXAMPLES[word[0]], line)
        prefix = "" if line.startswith("troth: refused") else "[    1.000000] "
        parser = console.Parser()
        events = [*parser.feed(b"[    0.500000] troth: handover /x\n" * ("workload" in line))]
        found = [*parser.feed(f"{prefix}{example}\r\n".encode())]
        assert len(found) == 1, (line, events)
        seen.add((type(found[0]).__name__, bool(getattr(found[0], "code", ""))))
    assert seen == {
        ("Stage", False), ("Stage", True), ("Handover", False), ("WorkloadExit", False),
        ("Refused", True),
    }  # fmt: skip


EXAMPLES = {
    "<name>": "mounts",
    "<ms>": "3",
    "<code>": "disk-missing",
    "<exact>": "record-mac",
    "<init>": "/sbin/init",
    "<n>": "0",
    "<sentence>": "serial:root did not appear",
}


def test_exit_codes_are_the_codes():
    rows = section(page("formats.md"), "## Exit codes")
    for name in CLASSES:
        status = getattr(errors, name).exit_status
        row = re.search(rf"^\| {status} \|.*$", rows, re.MULTILINE)
        assert row, (name, status)
        assert f"`{name}`" in row[0], name


# --- docs/threat-model.md -------------------------------------------------------------------


def test_tests_that_the_threat_model_names_exist():
    text = page("threat-model.md")
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text))
    assert len(named) >= 10
    for file, function in sorted(named):
        path = REPOSITORY / file
        assert path.is_file(), file
        tree = ast.parse(path.read_text("utf-8"))
        assert function in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}, (
            f"{file}::{function}"
        )


def test_front_page_is_honest():
    front = (REPOSITORY / "README.md").read_text("utf-8").split("\n## ")[0:3]
    head = "\n".join(front)
    for words in (
        "never run on SNP hardware",
        "protects nothing",
        "acpi_aml = unprotected",
        "SeaBIOS",
        "scripts/demo",
        "scripts/test",
    ):
        assert words in head, words


def test_every_page_is_reached_from_the_front():
    front = (REPOSITORY / "README.md").read_text("utf-8")
    for path in DOCS.glob("*.md"):
        assert f"docs/{path.name}" in front, path.name


def test_known_keys_cover_the_manifest_module():
    """``_KEYS`` is what the parser refuses by: the check above stands on it."""
    source = manifest_source.read_source(b"[image]\nnome = 1\n", "troth.toml")
    with pytest.raises(errors.ManifestError) as caught:
        toml_source.Table(source, source.tree["image"], ("image",), manifest._KEYS["image"])
    assert caught.value.code == "manifest-unknown-key"

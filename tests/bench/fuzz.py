# SPDX-License-Identifier: Apache-2.0
"""Feed every parser of outside bytes with mutated input for a bounded time.

``fuzz.py [SECONDS] [NAME...]``: each tests/fuzz/NAME.py has ``fuzz(data)``, which
swallows the typed errors; anything else that leaves it is a finding: an
exception, ten seconds without an answer, an allocation beyond the limit, or
the end of the process. The input is kept in build/fuzz. Seeds come from
tests/fuzz/seeds/NAME/ and from the target's own ``SEEDS`` where it has them.
atheris guides the mutation where it is installed; the plain mutator below is
blind, but needs nothing. Exit status: 0 nothing found, 1 findings.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import random
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType

HERE = Path(__file__).parents[1] / "fuzz"
KEPT = Path(__file__).parents[2] / "build" / "fuzz"
HANG_S = 10
MEMORY_BYTES = 4 << 30
LARGEST_BYTES = 1 << 20
ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


class HangError(BaseException):
    """The parser did not answer in time. Not an Exception: nothing may swallow it."""


def main(arguments: list[str]) -> int:
    """Run the targets, each in a process of its own."""
    seconds = float(arguments.pop(0)) if arguments and arguments[0][:1].isdigit() else 5.0
    names = arguments or sorted(path.stem for path in HERE.glob("*.py") if path.stem != "__init__")
    if not names:
        print("fuzz: no targets in tests/fuzz", file=sys.stderr)
        return 1
    bad = 0
    for name in names:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = _target(name, seconds)
            except BaseException:  # noqa: BLE001 - the child must reach _exit whatever happens
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status < 0:
            print(f"fuzz: {name}: ended by signal {-status}, input in {KEPT / name}.last")
        bad += status != 0
    print(f"fuzz: {len(names)} targets, {bad} with findings")
    return 1 if bad else 0


def _target(name: str, seconds: float) -> int:
    module = _load(name)
    run: Callable[[bytes], None] = module.fuzz
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    KEPT.mkdir(parents=True, exist_ok=True)
    seeds = _seeds(name, module)
    if importlib.util.find_spec("atheris"):
        return _guided(name, run, seeds, seconds)
    chance = random.Random(f"{name} {time.time_ns()}")
    signal.signal(signal.SIGALRM, _hung)
    last = (KEPT / f"{name}.last").open("w+b", buffering=0)
    end, count = time.monotonic() + seconds, 0
    pool = list(seeds)
    while time.monotonic() < end:
        # the seeds themselves go first: a target whose seeds fail fuzzes nothing
        data = pool[count] if count < len(pool) else mutate(chance, chance.choice(pool))
        os.pwrite(last.fileno(), data, 0)
        os.ftruncate(last.fileno(), len(data))
        signal.alarm(HANG_S)
        try:
            run(data)
        except (Exception, HangError) as error:  # noqa: BLE001 - any leak is the finding
            signal.alarm(0)
            kept = KEPT / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
            kept.write_bytes(data)
            traceback.print_exc()
            print(f"fuzz: {name}: {type(error).__name__} after {count} inputs, kept {kept}")
            return 1
        signal.alarm(0)
        count += 1
    last.close()
    (KEPT / f"{name}.last").unlink()
    print(f"fuzz: {name}: {count} inputs from {len(seeds)} seeds, nothing found")
    return 0


def _guided(name: str, run: Callable[[bytes], None], seeds: list[bytes], seconds: float) -> int:
    import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore] # optional, not a dependency

    corpus = KEPT / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    prefix = f"-artifact_prefix={KEPT / name}-"
    limits = [f"-max_total_time={max(1, int(seconds))}", f"-timeout={HANG_S}", prefix]
    atheris.instrument_all()
    atheris.Setup([name, *limits, str(corpus)], run)
    atheris.Fuzz()
    return 0


def _load(name: str) -> ModuleType:
    for path in (HERE.parents[1] / "agent", HERE.parent):
        sys.path.insert(0, str(path))
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", HERE / f"{name}.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"fuzz: no target {name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _seeds(name: str, module: ModuleType) -> list[bytes]:
    seeds = [bytes(seed) for seed in getattr(module, "SEEDS", ())]
    with contextlib.suppress(FileNotFoundError):
        seeds += [path.read_bytes() for path in sorted((HERE / "seeds" / name).iterdir())]
    if not seeds:
        print(f"fuzz: {name}: no seeds of its own, mutating blank ones: shallow")
    return seeds or [b"", bytes(4096), bytes(range(256)) * 16]


def mutate(chance: random.Random, seed: bytes) -> bytes:
    """``seed`` with one to eight small damages of the kinds that break parsers."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(8)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = chance.randrange(256)
        elif kind == 2:
            data[at:at] = chance.randbytes(chance.randint(1, 16))
        elif kind == 3:
            del data[at : at + chance.randint(1, 64)]
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            size = chance.choice((1, 2, 4, 8))
            number = chance.choice(ODD_NUMBERS) & (2 ** (8 * size) - 1)
            data[at : at + size] = number.to_bytes(size, chance.choice(("little", "big")))
        elif kind == 6:
            data[at:at] = data[at : at + chance.randint(1, 256)]
        else:
            start = chance.randrange(len(data) + 1)
            data[at : at + 32] = data[start : start + 32]
    return bytes(data[:LARGEST_BYTES])


def _hung(_number: int, _frame: FrameType | None) -> None:
    raise HangError(f"no answer within {HANG_S} s")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

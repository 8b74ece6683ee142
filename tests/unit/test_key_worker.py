# SPDX-License-Identifier: Apache-2.0
"""What the process that holds keys says when something is wrong: one public code a stage."""

import importlib.util
import sys
import types

import pytest

from troth.boot import keys
from troth.errors import FormatError, ProviderError


@pytest.fixture
def worker(monkeypatch):
    if importlib.util.find_spec("troth.boot.key_sources") is None:
        pytest.skip("the sources of keys are not there yet")
    # The module of literals exists only inside an initramfs.
    sys.modules.setdefault("troth_baked", types.ModuleType("troth_baked"))
    from troth.boot import key_worker

    return key_worker


class Work:
    """Raises ``error`` whatever it is asked for."""

    def __init__(self, error):
        self.error = error

    def release(self):
        raise self.error

    open = release


@pytest.mark.parametrize(
    ("order", "error", "public", "exact"),
    [
        ("release", ProviderError("broker-refused", "no"), "key-refused", "broker-refused"),
        ("release", FormatError("record-mac", "no"), "key-refused", "record-mac"),
        ("release", ConnectionRefusedError(111, "Connection refused"), "key-refused",
         "kernel-answer"),
        ("open", FormatError("record-mac", "no"), "header-refused", "record-mac"),
        ("open", FormatError("record-blank", "no"), "header-refused", "record-blank"),
        ("open", FormatError("luks2-checksum", "no"), "header-refused", "luks2-checksum"),
        ("open", FormatError("volume-secret", "no"), "header-refused", "volume-secret"),
        ("open", FormatError("volume-weak-key", "no"), "header-refused", "volume-weak-key"),
        ("open", FormatError("integrity-superblock", "no"), "header-refused",
         "integrity-superblock"),
        ("open", FormatError("volume-small", "no"), "volume-refused", "volume-small"),
        ("open", FormatError("volume-mkfs", "no"), "volume-refused", "volume-mkfs"),
        ("open", FormatError("volume-map", "no"), "volume-refused", "volume-map"),
        ("open", ProviderError("broker-refused", "no"), "volume-refused", "broker-refused"),
        ("open", OSError(22, "Invalid argument", "/dev/vdb"), "volume-refused", "kernel-answer"),
    ],
)  # fmt: skip
def test_one_public_code_a_stage(worker, order, error, public, exact):
    failed = worker._serve(Work(error), order)
    assert (failed.public, failed.exact) == (public, exact)
    assert failed.public in keys.PUBLIC


@pytest.mark.parametrize(
    "sentence",
    ["no", "", "two\nlines\ndone\n", "refused key-refused x 2e", "\u00e9\x1b[2J\u2028", "x" * 5000],
)
def test_a_sentence_is_one_bounded_word_of_hex(worker, sentence):
    """What a broker or a header said may stand in it: nothing of it may end PID 1's line."""
    word = worker._hex(sentence)
    assert word
    assert set("0123456789abcdef").issuperset(word)
    assert len(word) <= 800
    assert keys._text(word).isprintable()


def test_any_other_exception_is_the_end(worker):
    """It may name what it held: the process dies of it, and PID 1 hears nothing."""
    with pytest.raises(RuntimeError):
        worker._serve(Work(RuntimeError("a key")), "open")

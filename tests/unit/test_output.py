# SPDX-License-Identifier: Apache-2.0
"""The bundle directory: whole or as it was."""

from __future__ import annotations

import os

import pytest

from troth.errors import BuildError, UsageError
from troth.image import output


def test_an_older_bundle_is_replaced_as_a_whole(tmp_path):
    place = tmp_path / "out"
    for text in ("one", "two"):
        with output.staged(place) as stage:
            (stage / "manifest.json").write_text(text)
        assert (place / "manifest.json").read_text() == text
    assert os.listdir(tmp_path) == ["out"]


def test_the_older_bundle_is_put_back_where_the_new_one_cannot_take_its_place(
    tmp_path, monkeypatch
):
    place = tmp_path / "out"
    with output.staged(place) as stage:
        (stage / "manifest.json").write_text("old")
    rename = os.rename

    def fails_for_the_stage(source, target):
        if os.fspath(target) == str(place) and not os.fspath(source).endswith(".old"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_for_the_stage)
    with pytest.raises(BuildError, match="No space") as caught, output.staged(place) as stage:
        (stage / "manifest.json").write_text("new")
    assert caught.value.code == "output-write"
    assert (place / "manifest.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_what_is_no_bundle_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("x")
    with pytest.raises(UsageError), output.staged(tmp_path / "out"):
        pass
    assert (tmp_path / "out/mine").read_text() == "x"

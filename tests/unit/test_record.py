# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest

from troth.record import record, replace


@record
class Point:
    """A value."""

    x: int
    y: int = 2

    @property
    def total(self) -> int:
        return self.x + self.y


def test_a_record_is_a_frozen_value() -> None:
    point = Point(1)
    assert (point.x, point.y, point.total) == (1, 2, 3)
    assert point == Point(x=1, y=2)
    assert hash(point) == hash(Point(1, 2))
    assert point != Point(2)
    assert repr(point) == "Point(x=1, y=2)"
    assert replace(point, y=5) == Point(1, 5)
    with pytest.raises(AttributeError):
        point.x = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        point.z = 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})]
)
def test_wrong_construction(args, kwargs) -> None:
    with pytest.raises(TypeError):
        Point(*args, **kwargs)


def test_inheritance_is_refused() -> None:
    with pytest.raises(TypeError):

        @record
        class Child(Point):
            """No."""


def test_the_floor_imports_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import troth.record, troth.errors;"
        "print(sorted(set(sys.modules) - before))"
    )
    out = subprocess.run(
        [sys.executable, "-SB", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert set(eval(out)) <= {"__future__", "troth", "troth.record", "troth.errors"}

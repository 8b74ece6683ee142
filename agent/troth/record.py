# SPDX-License-Identifier: Apache-2.0
"""The one way to declare a value.

Serves every room, PID 1 included, so it must stay cheap: importing
``dataclasses`` costs a booting guest more instructions than mounting its file
systems, because it generates source text and compiles it. ``record`` builds
the same kind of class from closures.

It must never import anything.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar, dataclass_transform

    T = TypeVar("T")
else:

    def dataclass_transform(**_kwargs: Any) -> Any:  # noqa: D103 - stands for typing's own
        return lambda decorator: decorator


def _init(self: Any, *args: Any, **kwargs: Any) -> None:
    names = self.__slots__
    if len(args) > len(names):
        raise TypeError(f"{type(self).__name__} takes {len(names)} values, got {len(args)}")
    put = object.__setattr__
    for name, value in zip(names, args, strict=False):
        put(self, name, value)
    defaults = self._record_defaults
    for name in names[len(args) :]:
        if name in kwargs:
            put(self, name, kwargs.pop(name))
        elif name in defaults:
            put(self, name, defaults[name])
        else:
            raise TypeError(f"{type(self).__name__} needs a value for {name!r}")
    if kwargs:
        raise TypeError(f"{type(self).__name__} has no field {next(iter(kwargs))!r} left to set")
    check = getattr(self, "__post_init__", None)
    if check is not None:
        check()


def _refuse_set(self: Any, name: str, _value: Any = None) -> None:
    raise AttributeError(f"{type(self).__name__}.{name} is frozen")


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name in self.__slots__)


def _eq(self: Any, other: object) -> bool:
    if type(self) is not type(other):
        return False
    return bool(_values(self) == _values(other))


def _hash(self: Any) -> int:
    return hash((type(self), _values(self)))


def _repr(self: Any) -> str:
    body = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
    return f"{type(self).__name__}({body})"


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen, slotted value with eq, hash and repr.

    Fields are the class's own annotations in order; a class attribute of the
    same name is the default. ``__post_init__`` is called where defined.
    Records are not inherited from, and a method of one cannot use
    ``super()`` without arguments, because the class is made anew with slots.
    """
    if cls.__bases__ != (object,):
        raise TypeError(f"record {cls.__name__} must not inherit")
    names = tuple(cls.__dict__.get("__annotations__", {}))
    body = {
        key: value
        for key, value in cls.__dict__.items()
        if key not in names and key not in ("__dict__", "__weakref__")
    }
    body["__slots__"] = names
    body["__match_args__"] = names
    body["_record_defaults"] = {n: cls.__dict__[n] for n in names if n in cls.__dict__}
    body["__init__"] = _init
    body["__setattr__"] = _refuse_set
    body["__delattr__"] = _refuse_set
    body["__eq__"] = _eq
    body["__hash__"] = _hash
    body.setdefault("__repr__", _repr)
    made: type[T] = type(cls.__name__, (), body)
    return made


def replace(value: T, **changes: Any) -> T:
    """A copy of the record ``value`` with some fields changed."""
    names: tuple[str, ...] = value.__slots__  # type: ignore[attr-defined]
    fields = {name: getattr(value, name) for name in names}
    unknown = set(changes) - set(fields)
    if unknown:
        raise TypeError(f"{type(value).__name__} has no field {min(unknown)!r}")
    fields.update(changes)
    return type(value)(**fields)

from dataclasses import FrozenInstanceError, fields
from typing import Annotated

import pytest

from dstrun.config.option import Above, AtLeast, OneOf, Share, Within, check_value, nearest, option
from dstrun.system.trouble import ConfigError


class Parent:
    rate: float = 0.5
    pair: tuple[Annotated[float, Within(0, 1)], ...] = (0.1, 0.2)

    def __post_init__(self) -> None:
        if self.rate == 0.25:
            raise ConfigError("grow.rate=0.25 is odd")


Parent.__module__ = "dstrun.grow.parent"
Parent = option(Parent)


class Child(Parent):
    count: Annotated[int, AtLeast(1)] | None = None


Child.__module__ = "dstrun.grow.child"
Child = option(Child)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1, int),
        (1, float),
        (0.5, float),
        ("a", str),
        (True, bool),
        (None, int | None),
        (3, int | None),
        (None, Annotated[int, AtLeast(1)] | None),
        (1, Annotated[int, AtLeast(1)]),
        (1e-9, Annotated[float, Above(0)]),
        (0, Share),
        (1, Share),
        (0.999, Annotated[float, Within(0, 1, high_open=True)]),
        ("b", Annotated[str, OneOf("a", "b")]),
        ([1, 2], tuple[int, ...]),
        ((), tuple[int, ...]),
        (object(), object),
    ],
)
def test_values_that_hold(value, hint):
    check_value("key", value, hint)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (1.0, int, "key=1.0 must be a whole number"),
        (True, int, "key=True must be a whole number"),
        (False, float, "key=False must be a number"),
        ("1", float, "key=1 must be a number"),
        (None, float, "key=None must be a number"),
        (float("inf"), float, "key=inf must be a number"),
        (float("-inf"), Annotated[float, AtLeast(0)], "key=-inf must be a number"),
        (float("nan"), Annotated[float, AtLeast(0)], "key=nan must be a number"),
        (1, bool, "key=1 must be true or false"),
        (1, str, "key=1 must be a name"),
        (0, Annotated[float, Above(0)], "key=0 must be above 0"),
        (0, Annotated[int, AtLeast(1)], "key=0 must be at least 1"),
        (0, Annotated[int, AtLeast(1)] | None, "key=0 must be at least 1"),
        (2.5, int | None, "key=2.5 must be a whole number"),
        (1.01, Share, "key=1.01 must be in [0, 1]"),
        (0, Annotated[float, Within(0, 1, low_open=True)], "key=0 must be in (0, 1]"),
        (1, Annotated[float, Within(0, 1, high_open=True)], "key=1 must be in [0, 1)"),
        (
            "exat",
            Annotated[str, OneOf("exact", "single")],
            "key=exat is not known: choose exact, single (did you mean exact?)",
        ),
        ("zzz", Annotated[str, OneOf("exact", "single")], "key=zzz is not known: choose exact, single"),
        (3, tuple[int, ...], "key=3 must be a list such as [1,2]"),
        ([1, "x"], tuple[int, ...], "key=x must be a whole number"),
        ([1, 0], tuple[Annotated[int, AtLeast(1)], ...], "key=0 must be at least 1"),
    ],
)
def test_values_that_do_not_hold(value, hint, message):
    with pytest.raises(ConfigError) as error:
        check_value("key", value, hint)
    assert str(error.value) == message


def test_an_alternative_may_hold_where_another_does_not():
    hint = Annotated[int, AtLeast(1)] | Annotated[str, OneOf("auto")]
    check_value("key", 3, hint)
    check_value("key", "auto", hint)
    with pytest.raises(ConfigError):
        check_value("key", 0, hint)
    with pytest.raises(ConfigError):
        check_value("key", "never", hint)


def test_an_option_is_frozen_and_keyword_only():
    assert [f.name for f in fields(Child)] == ["rate", "pair", "count"]
    with pytest.raises(FrozenInstanceError):
        Parent().rate = 1.0
    with pytest.raises(TypeError):
        Parent(0.1)


def test_lists_become_tuples_so_that_options_compare_and_hash():
    made = Parent(pair=[0.3, 1])
    assert made.pair == (0.3, 1)
    assert made == Parent(pair=(0.3, 1))
    assert hash(made) == hash(Parent(pair=(0.3, 1)))


@pytest.mark.parametrize(
    ("cls", "wrong", "message"),
    [
        (Parent, {"rate": "x"}, "grow.rate=x must be a number"),
        (Parent, {"pair": [0.1, 2]}, "grow.pair=2 must be in [0, 1]"),
        (Parent, {"rate": 0.25}, "grow.rate=0.25 is odd"),
        (Child, {"count": 0}, "grow.count=0 must be at least 1"),
        (Child, {"pair": [-1]}, "grow.pair=-1 must be in [0, 1]"),
        (Child, {"rate": 0.25}, "grow.rate=0.25 is odd"),
    ],
)
def test_an_option_checks_its_own_and_inherited_fields(cls, wrong, message):
    with pytest.raises(ConfigError) as error:
        cls(**wrong)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("word", "said"), [("grabbo", " (did you mean grabo?)"), ("unifrom", " (did you mean uniform?)"), ("xyz", "")]
)
def test_nearest_spelling(word, said):
    assert nearest(word, ["uniform", "grabo", "graest"]) == said

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher import settings
from farkernel.launcher.settings import KEEPER_KEYS, RESOURCE_KEYS, TARGET_KEYS, InvalidValue

KIB = 1024


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("512", 512),
        ("4k", 4 * KIB),
        ("256M", 256 * KIB**2),
        ("64G", 64 * KIB**3),
        ("64GB", 64 * KIB**3),
        ("64 GiB", 64 * KIB**3),
        ("1.5G", 3 * KIB**3 // 2),
        ("2T", 2 * KIB**4),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert settings.size(text) == size


@pytest.mark.parametrize(
    "value", ["", "G", "0", "-1G", "64X", "64G ", "6 4G", "1e3", "99999999T", 64, 1.5, True, None]
)
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(InvalidValue) as raised:
        settings.size(value)
    assert raised.value.advice.startswith("Write a size")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("90s", 90),
        ("30m", 1800),
        ("4h", 14400),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d", 172800),
        ("1w", 604800),
        ("4:00:00", 14400),
        ("1-12:00:00", 129600),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert settings.duration(text) == seconds


@pytest.mark.parametrize(
    "value", ["", "4", "h", "-4h", "4 hours", "1h1h", "1:30", "200w" * 50, "9999999w", 4, 0, None]
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(InvalidValue) as raised:
        settings.duration(value)
    assert raised.value.advice.startswith("Write a duration")


def test_a_time_limit_is_not_nothing() -> None:
    assert settings.time_limit("4h") == 14400
    with pytest.raises(InvalidValue, match="'0s'"):
        settings.time_limit("0s")


def test_the_word_for_no_end() -> None:
    keep = TARGET_KEYS["keep"]
    assert callable(keep)
    assert keep("forever") is None
    assert keep("12h") == 43200
    with pytest.raises(InvalidValue) as raised:
        keep("never")
    assert raised.value.advice == 'Write a duration such as "90s", "30m", "4h" or "2d", or "forever"'


def test_shell_lines_are_a_string_or_a_list() -> None:
    assert settings.shell_lines("module load x\n\texport A=1\n") == "module load x\n\texport A=1"
    assert settings.shell_lines(["a", "b"]) == "a\nb"
    for wrong in (1, ["a", 1], "a\x1b[31m", "a\0"):
        with pytest.raises(InvalidValue):
            settings.shell_lines(wrong)


@pytest.mark.parametrize("value", ["", "two\nlines", "\x1b[2J", "nul\0", 1, ["a"]])
def test_a_text_is_one_printable_line(value: object) -> None:
    with pytest.raises(InvalidValue):
        settings.text(value)


@pytest.mark.parametrize(
    ("value", "word"), [(True, "true"), (-1, "-1"), (2.0, "2.0"), ("8", "'8'"), ([], "a list")]
)
def test_a_count_is_a_whole_number(value: object, word: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        settings.count(value)
    assert raised.value.what == f"has a value of the wrong kind, {word}"
    assert raised.value.advice == "Write a whole number, 0 or more"


def test_values_as_they_would_be_written() -> None:
    durations = [settings.duration_text(each) for each in (7 * 86400, 86400, 7200, 1800, 90, 0)]
    assert durations == ["7d", "24h", "2h", "30m", "90s", "0s"]
    assert [settings.size_text(each) for each in (2 << 40, 64 << 30, 1536 << 20, 5000)] == [
        "2T",
        "64G",
        "1536M",
        "5K",
    ]


@given(st.integers(1, 1 << 40))
def test_what_is_written_is_read_again(number: int) -> None:
    assert settings.duration(settings.duration_text(number % 10**9)) == number % 10**9
    assert 0 <= settings.size(settings.size_text(number)) - number < 1024


def test_what_is_asked_is_a_resource() -> None:
    assert settings.resource_names(["gpus", "time"]) == ("gpus", "time")
    with pytest.raises(InvalidValue) as raised:
        settings.resource_names(["gpu"])
    assert raised.value.advice == "Did you mean 'gpus'?"


parsers = [
    parse
    for parse in [*TARGET_KEYS.values(), *RESOURCE_KEYS.values(), *KEEPER_KEYS.values()]
    if callable(parse)
]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(parsers), anything)
def test_any_value_is_read_or_invalid(parse: settings.Parser, value: object) -> None:
    try:
        parse(value)
    except InvalidValue as error:
        assert error.what.isprintable()
        assert error.advice


@given(st.integers(1, 10**12))
def test_every_whole_number_of_seconds_and_bytes(number: int) -> None:
    assert settings.size(str(number)) == number
    if number < 100 * 365 * 24 * 3600:
        assert settings.duration(f"{number}s") == number


def test_every_key_is_described() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")
    for key in [*TARGET_KEYS, *RESOURCE_KEYS, *KEEPER_KEYS]:
        assert f"| `{key}` |" in page

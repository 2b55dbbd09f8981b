"""Our YAML is DVC's: the same values for every kind of scalar, and nothing that could do harm."""

import math

import pytest
import yaml
from dvc.utils.serialize import parse_yaml
from hypothesis import given
from hypothesis import strategies as st

from normlab import yaml12

WORDS = """
true True TRUE false False FALSE yes Yes no NO on Off y n null Null NULL ~ none None
0 1 -1 +1 12 007 017 0o17 0b101 0x1F -0x1f 1_000 0_1 12:30 1:2:3 190:20:30
1.5 -1.5 +1.5 .5 -.5 1. 1e3 1E3 1e-4 1e+4 1.5e3 1.5e-3 -1e-4 .5e-3 1_0.5 1e 1.e3 1e0.5
.inf -.inf +.Inf .INF .nan .NaN .NAN inf nan 0.0001 1.0.0 -- 1-2 a b_1 a.b 'quoted' "1" <<x
"""


def bomb(form: str) -> str:
    """Lists or mappings of nine of the one before, nine times: 9⁹ values in all."""
    lines = ["k0: &k0 {a: 1}"]
    for i in range(1, 10):
        names = ", ".join([f"*k{i - 1}"] * 9)
        lines.append(f"k{i}: &k{i} {form.format(names)}")
    return "\n".join(lines)


def same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("word", WORDS.split())
def test_every_kind_of_scalar_is_read_as_dvc_reads_it(word: str) -> None:
    text = f"a: {word}\nb: [{word}, 1]\n"
    ours, theirs = yaml12.load(text), parse_yaml(text, "text")
    assert same(ours["a"], theirs["a"])
    assert same(ours["b"][0], theirs["b"][0])


@given(st.from_regex(r"[-+]?[0-9._eExXoObB]{1,8}", fullmatch=True))
def test_what_looks_like_a_number_is_read_as_dvc_reads_it(word: str) -> None:
    try:
        theirs = parse_yaml(f"a: {word}\n", "text")
    except Exception:  # whatever DVC refuses is not for us to read otherwise
        return
    assert same(yaml12.load(f"a: {word}\n")["a"], theirs["a"])


def test_anchors_and_merges_are_read() -> None:
    text = "a: &x {b: 1, c: [2, 3]}\nd: *x\ne: {<<: *x, b: 4}\nf:\n"
    assert yaml12.load(text) == parse_yaml(text, "text")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object:os.system x", r"a tag, tag:yaml\.org,2002:python/object:os\.system"),
        ("a: !!str 1", r"a tag, tag:yaml\.org,2002:str, allowed: none"),
        ("a: !own 1", "a tag, !own"),
        ("a: &x [1, *x]", r"\*x within itself"),
        ("a: &x {b: {c: *x}}", r"\*x within itself"),
        ("a: 1\na: 2", "found duplicate key a"),
        ("a: {b: 1, 'b': 2}", "found duplicate key b"),
        ("a: [1", "expected"),
        ("a: *x", "undefined alias"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested more than 50 deep"),
        ("{a: " * 5000, "nested more than 50 deep"),
        ("- " * 5000, "nested more than 50 deep"),
        ("a: " + "9" * 5000, "a number of 5,000 characters, allowed: at most 100"),
        ("a: 0x" + "f" * 5000, "a number of 5,002 characters, allowed: at most 100"),
        ("a: ._", "not a number: ._"),
        (bomb("[{}]"), "more than 100,000 values"),
        (bomb("{{<<: [{}]}}"), "more than 100,000 values"),
        ("a: [" + "1," * 100_000 + "]", "more than 100,000 values"),
    ],
)
def test_what_could_do_harm_is_refused(text: str, message: str) -> None:
    with pytest.raises(yaml.YAMLError, match=message):
        yaml12.load(text)


def test_aliases_of_a_list_are_as_many_values_as_they_stand_for() -> None:
    names = ", ".join(["*x"] * 90)
    text = f"a: &x [{', '.join('1' * 1000)}]\nb: [{names}]\n"
    assert yaml12.load(text) == parse_yaml(text, "text")
    with pytest.raises(yaml.YAMLError, match="more than 100,000 values"):
        yaml12.load(text + f"c: [{names}]\n")

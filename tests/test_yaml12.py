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
    ],
)
def test_what_could_do_harm_is_refused(text: str, message: str) -> None:
    with pytest.raises(yaml.YAMLError, match=message):
        yaml12.load(text)


def test_a_file_larger_than_any_of_parameters_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="larger than 16,777,216 characters"):
        yaml12.load("# " + "x" * yaml12.LARGEST)

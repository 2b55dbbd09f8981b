import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from normlab import params
from normlab.errors import InputError

ROOT = Path(__file__).parent.parent
COMMITTED = ROOT / "params.yaml"


def load(folder: Path, text: str) -> params.Params:
    path = folder / "params.yaml"
    path.write_text(text)
    return params.load(path)


def changed(key: str, value: str) -> str:
    values = YAML(typ="safe").load(COMMITTED)
    texts = {name: json.dumps(committed) for name, committed in values.items()}
    return "\n".join(f"{name}: {text}" for name, text in (texts | {key: value}).items())


def test_the_committed_file_is_valid_and_complete() -> None:
    loaded = params.load(COMMITTED)
    assert loaded.model_dump() == YAML(typ="safe").load(COMMITTED)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("dataset", '""', '""'),
        ("dataset", r'"a\nb"', r'"a\nb"'),
        ("dataset", "3", "3"),
        ("seeds", "[]", "[]"),
        ("seeds", "[1, 1]", "[1, 1]"),
        ("seeds", "[0, -1]", "[0, -1]"),
        ("seeds", "[0.5]", "[0.5]"),
        ("seeds", "3", "3"),
        ("seeds", "[4294967296]", "[4294967296]"),
        ("seeds", json.dumps([*range(1001)]), json.dumps([*range(1001)])[:57] + "..."),
        ("epochs", "0", "0"),
        ("epochs", "1000000000", "1000000000"),
        ("epochs", "2026-13-45", '"2026-13-45"'),
        ("epochs", "1.5", "1.5"),
        ("epochs", "true", "true"),
        ("epochs", "ten", '"ten"'),
        ("val_size", "0", "0"),
        ("val_size", "60000", "60000"),
        ("train_size", "0", "0"),
        ("train_size", "55001", "55001"),
        ("batch_size", "0", "0"),
        ("batch_size", "60001", "60001"),
        ("lr", "fast", '"fast"'),
        ("lr", "-1", "-1"),
        ("lr", "11", "11"),
        ("lr", "1e-320", "1e-320"),
        ("lr", "0", "0"),
        ("lr", ".nan", "NaN"),
        ("lr", ".inf", "Infinity"),
        ("lr", "null", "null"),
        ("momentum", "1", "1"),
        ("momentum", "0.99999999999", "0.99999999999"),
        ("momentum", "-0.1", "-0.1"),
        ("nesterov", "1", "1"),
        ("nesterov", '"yes"', '"yes"'),
        ("lr_schedule", "linear", '"linear"'),
        ("lr_step_epochs", "0", "0"),
        ("lr_step_factor", "0", "0"),
        ("lr_step_factor", "1.1", "1.1"),
        ("l1_lambda", "-0.1", "-0.1"),
        ("l1_lambda", "1e308", "1e+308"),
        ("l1_lambda", ".nan", "NaN"),
        ("gn_groups", "0", "0"),
        ("gn_groups", "1001", "1001"),
        ("gn_groups", "2.0", "2.0"),
        ("ln_affine", "none", '"none"'),
        ("affine_rotation", "181", "181"),
        ("affine_translation", "1.1", "1.1"),
        ("affine_scale", "[1.2, 0.8]", "[1.2, 0.8]"),
        ("affine_scale", "[0, 1]", "[0, 1]"),
        ("affine_scale", "[1e-40, 1e-40]", "[1e-40, 1e-40]"),
        ("affine_scale", "[1]", "[1]"),
        ("affine_scale", "1", "1"),
        ("affine_shear", "89.999999", "89.999999"),
        ("device", "tpu", '"tpu"'),
        ("precision", "float16", '"float16"'),
    ],
)
def test_a_bad_value_gets_one_line(tmp_path: Path, key: str, value: str, shown: str) -> None:
    with pytest.raises(InputError) as refused:
        load(tmp_path, changed(key, value))
    allowed = params.allowed_values(params.Params.model_fields[key])
    expected = f"{tmp_path / 'params.yaml'}: {key}: got {shown}, allowed: {allowed}"
    assert str(refused.value) == expected


def test_nesterov_needs_momentum(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nesterov: got true, allowed: .*momentum above 0"):
        load(tmp_path, changed("momentum", "0"))


def test_a_mistyped_key_is_named_with_the_right_one_and_the_missing_one(tmp_path: Path) -> None:
    text = changed("momentum", "0.7").replace("momentum:", "momentun:")
    with pytest.raises(InputError) as refused:
        load(tmp_path, text)
    lines = str(refused.value).splitlines()
    assert len(lines) == 2
    assert any("momentum: missing, allowed: a number from 0" in line for line in lines)
    assert any(
        "momentun: unknown key (value 0.7), did you mean momentum?" in line for line in lines
    )


def test_an_unknown_key_unlike_any_lists_all(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"zzz: unknown key .* allowed: dataset, seeds, .*precision$"
    ):
        load(tmp_path, COMMITTED.read_text() + "\nzzz: 1\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: [0.1", "not valid YAML at line"),
        ("lr: 1\nlr: 2\n", "not valid YAML at line 2: found duplicate key"),
        ("- lr\n", "got a list, allowed: a mapping"),
        ("", "got a NoneType, allowed: a mapping"),
        ("lr: \x00", "not valid YAML"),
        ("lr: !!float abc", "not valid YAML at line 1: a tag, tag:yaml.org,2002:float, allowed: "),
        ("lr: !a%0Ab 1", r"a tag, !a\nb, allowed: none"),
        ("? [1, 2]\n: 3\n", "not valid YAML at line 1: found unhashable key"),
        ("# " + "x" * params.LARGEST, "got a larger file, allowed: at most 65,536 bytes"),
    ],
)
def test_what_is_not_a_mapping_in_yaml_gets_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InputError) as refused:
        load(tmp_path, text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_keys_and_values_cannot_break_a_line(tmp_path: Path) -> None:
    lines = problems(tmp_path, COMMITTED.read_text() + f'\n"a\\nb\\e[2J": 1\n? {"z" * 2000}\n: 1\n')
    assert [line.partition(": ")[2].partition(" (")[0] for line in lines] == [
        r"a\nb\x1b[2J: unknown key",
        f"{'z' * 57}...: unknown key",
    ]
    (line,) = problems(tmp_path, changed("device", '"c\\Lpu"'))
    assert r'device: got "c\u2028pu", allowed: ' in line


def test_of_many_problems_some_are_told(tmp_path: Path) -> None:
    added = "\n".join(f"{number}: 0" for number in range(500))
    lines = problems(tmp_path, f"{COMMITTED.read_text()}\n{added}\n")
    assert len(lines) == params.SHOWN + 1
    assert lines[-1].endswith("params.yaml: and 480 more like these")


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(InputError) as refused:
        load(folder, text)
    return str(refused.value).splitlines()


def test_a_missing_or_undecodable_file_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: cannot be read"):
        params.load(tmp_path / "nowhere.yaml")
    (tmp_path / "params.yaml").write_bytes(b"lr: \xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(("text", "value"), [("1e-5", 1e-5), ("1.0e-05", 1e-5), ("0", 0.0)])
def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path, text: str, value: float) -> None:
    assert load(tmp_path, changed("l1_lambda", text)).l1_lambda == value

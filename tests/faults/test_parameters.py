"""Files of parameters that nobody should write: each is read, or refused by a line a problem."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from dvc.utils.serialize import parse_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normlab import params, studies
from normlab.errors import InputError
from normlab.params import Params
from normlab.studies import Study
from tests.faults.conftest import Injected, often
from tests.pipeline.copies import ROOT

BOMB = "k0: &k0 [1]\n" + "".join(f"k{i}: &k{i} [{f'*k{i - 1}, ' * 9}]\n" for i in range(1, 10))
VALUES = (
    "!!int abc",
    "!!float abc",
    "!!bool perhaps",
    "!!timestamp 2026-13-45",
    "!!python/object/apply:os.system [true]",
    "2026-13-45",
    "&a [*a]",
    "&a {b: *a}",
    "[" * 5000 + "]" * 5000,
    "{a: " * 2000,
    "- " * 5000 + "1",
    "9" * 5000,
    "-0x" + "f" * 5000,
    "9" * 5000 + ".5",
    "1000000000",
    "1e308",
    "-1e-320",
    "[1e-40, 1e-40]",
    ".nan",
    "._",
    "'\\ud800'",
    '"\\L\\e[2J"',
    "<<",
    "*nothing",
    "{<<: 3}",
    "? {a: 1}",
    "|\n",
    "",
)
DIVERSE = st.one_of(
    st.sampled_from(VALUES),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.lists(st.integers(-1, 70_000), max_size=30).map(str),
    st.text(max_size=20),
)


def sections(values: dict[str, Any]) -> dict[str, Study]:
    return {str(name): Study.model_validate(section) for name, section in values.items()}


class Kind(NamedTuple):
    """A file of parameters as it is committed, how it is read, and what its values are."""

    committed: Path
    load: Callable[[Path], Any]
    validate: Callable[[Any], Any]


PIPELINE = Kind(ROOT / "params.yaml", params.load, Params.model_validate)
STUDIES = Kind(ROOT / "studies/params.yaml", studies.load, sections)


@st.composite
def files(draw: st.DrawFn, text: str) -> bytes:
    """Change a file here and there: values, lines, what is between them, single bytes."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(("value", "line", "twice", "none", "bomb", "splice")))
        if kind == "value":
            lines[at] = f"{lines[at].partition(':')[0]}: {draw(DIVERSE)}"
        elif kind == "line":
            lines.insert(at, draw(DIVERSE))
        elif kind == "twice":
            lines.insert(at, draw(st.sampled_from(lines)))
        elif kind == "none":
            del lines[at]
        elif kind == "bomb":
            lines.insert(0, BOMB)
        else:
            cut = draw(st.integers(0, len(lines[at])))
            lines[at] = lines[at][:cut] + draw(st.text(max_size=4)) + lines[at][cut:]
    data = bytearray("\n".join(lines).encode(errors="surrogatepass"))
    for _ in range(draw(st.integers(0, 2))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@pytest.mark.parametrize("kind", [PIPELINE, STUDIES], ids=["pipeline", "studies"])
def test_generated_files(kind: Kind, tmp_path: Path, injected: Injected) -> None:
    path = tmp_path / "params.yaml"

    @settings(max_examples=often(25, 200), suppress_health_check=list(HealthCheck))
    @given(files(kind.committed.read_text()))
    def check(data: bytes) -> None:
        with injected("parameters") as fault:
            path.write_bytes(data)
            if read_or_refused(path, kind):
                fault.healed()
            else:
                fault.refused()

    check()


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_known_values_are_refused(value: str, tmp_path: Path, injected: Injected) -> None:
    path = tmp_path / "params.yaml"
    for key in ("epochs", "lr", "affine_scale"):
        text = PIPELINE.committed.read_text().partition(f"\n{key}:")
        path.write_text(f"{text[0]}\n{key}: {value}\n{text[2].partition(chr(10))[2]}")
        with injected("parameters") as fault:
            assert not read_or_refused(path, PIPELINE)
            fault.refused()


@pytest.mark.parametrize("prefix", [BOMB, "# " + "x" * 70_000 + "\n", "\0"])
def test_a_stage_refuses_a_file_in_one_line(
    prefix: str, tmp_path: Path, injected: Injected
) -> None:
    for name in ("normlab", "stages"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "params.yaml").write_text(prefix + PIPELINE.committed.read_text())
    with injected("parameters") as fault:
        command = [sys.executable, "-m", "stages", "plot"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 1
        (line,) = ran.stderr.splitlines()
        assert line.startswith("error: params.yaml: ")
        fault.refused()


def read_or_refused(path: Path, kind: Kind) -> bool:
    """Whether a file was read, as DVC reads it; it may only be refused line by line, and soon."""
    started = time.process_time()
    try:
        loaded = kind.load(path)
    except InputError as error:
        lines = str(error).split("\n")
        assert len(lines) <= params.SHOWN + 1
        assert all(line.startswith(f"{path}: ") and line.isprintable() for line in lines)
        assert max(map(len, lines)) < 1500
        return False
    finally:
        assert time.process_time() - started < 1
    try:
        theirs = parse_yaml(path.read_bytes().decode(), path)
    except Exception:  # DVC refuses it then, before any stage runs
        return True
    assert loaded == kind.validate(theirs)
    return True

"""Packages whose code enters results: which they are, which versions, that they change nothing."""

import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pandas as pd
import pytest

from stages import judge, provenance
from tests.pipeline.test_project import STAGES, code_of, imported

ROOT = Path(__file__).parents[1]
# What carries work and data, checks or shows them, and leaves them as they are.
OTHERS = {
    *("cloudpickle", "dask", "distributed", "platformdirs", "pooch", "psutil", "pydantic"),
    *("toolz", "tqdm"),
}
PAGE = (ROOT / "docs/arithmetic.md").read_text()
SECTION = PAGE.partition("\n## Packages\n")[2].partition("\n## ")[0]


def test_the_packages_are_those_that_the_stages_import() -> None:
    """Beside the compiler, which is run, and what turns text to markup for Jinja."""
    code = {file for stage in STAGES for file in code_of(stage) if file.endswith(".py")}
    modules = {name.split(".")[0] for file in code for name in imported(ROOT / file)}
    foreign = modules - sys.stdlib_module_names - {"normlab", "stages"}
    homes = packages_distributions()
    found = {re.sub(r"[-_.]+", "-", homes[module][0]).lower() for module in foreign}
    assert found - OTHERS == {*provenance.PACKAGES} - {"ziglang"}


def test_the_page_says_what_of_each_enters() -> None:
    rows = re.findall(r"(?m)^\| `([\w-]+)`(?:, `([\w-]+)`)? \|", SECTION)
    assert sorted(name for row in rows for name in row if name) == sorted(provenance.PACKAGES)
    assert {*re.findall(r"`([\w-]+)`", SECTION.rpartition("|")[2])} >= OTHERS


def test_a_stage_tells_of_packages_that_are_not_the_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    provenance.tell_of_other_packages()
    assert capsys.readouterr().err == ""
    lock = re.sub(r"(?m)^(scipy|torch)==\S+", r"\1==0.1", provenance.LOCK.read_text())
    monkeypatch.setattr(provenance, "LOCK", tmp_path / "requirements.lock")
    provenance.LOCK.write_text(lock)
    provenance.tell_of_other_packages()
    (line,) = capsys.readouterr().err.splitlines()
    told = re.findall(r"(\w+) [\w.+]+ \(locked: ([\w. ]+)\)", line)
    assert told == [("scipy", "0.1 or 0.1"), ("torch", "0.1")]
    assert "`make verify BUDGET=small`" in line


def test_the_committed_verdicts_are_those_of_the_committed_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the SciPy that is here: `make verify BUDGET=small` does not judge."""
    monkeypatch.chdir(ROOT / "studies")
    monkeypatch.setattr(judge, "FINDINGS", tmp_path / "findings.csv")
    monkeypatch.setattr(judge, "METRICS", tmp_path / "findings.json")
    judge.main()
    committed = ROOT / "studies/reports"
    assert (tmp_path / "findings.json").read_bytes() == (committed / "findings.json").read_bytes()
    ours, theirs = (
        pd.read_csv(folder / "findings.csv", dtype=str) for folder in (tmp_path, committed)
    )
    seen = set(ours["registration"].dropna())
    if seen == {"cannot be seen"}:  # a shallow clone, or none
        ours["registration"] = theirs["registration"]
    pd.testing.assert_frame_equal(ours, theirs)

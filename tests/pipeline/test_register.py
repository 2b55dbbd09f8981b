"""`make register`: the digests of a study's claims, written where its seeds come from."""

import re
import subprocess
from pathlib import Path

import pytest

from normlab import params, studies
from normlab.evidence import declared, recipes, registration
from tests.pipeline.copies import ROOT, copy, link_environment, make
from tools import register


def without_registered(text: str) -> str:
    return re.sub(r"(?m)^  registered:.*\n(    \w+: \w+\n)*", "  registered\n", text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    copy(tmp_path)
    (tmp_path / ".venv").unlink()
    link_environment(tmp_path)
    return tmp_path


def test_it_writes_the_digests_and_changes_nothing_else(project: Path) -> None:
    file = project / "studies/params.yaml"
    # As it is before anything is registered; the comments and the lines are people's.
    file.write_text(
        without_registered(file.read_text()).replace("registered\n", "registered: {}\n")
    )
    before = file.read_text()
    done = make(project, "register", STUDIES="groups l1")
    assert done.returncode == 0, done.stderr
    told = declared.load(project / "studies/claims.yaml").claims
    own, base = studies.load(file), params.load(project / "params.yaml")
    for study in ("groups", "l1"):
        found = own[study].registered
        assert found == registration.digests(told, study, own, base)
        assert f"{study}: registered {', '.join(found)}; commit it" in done.stdout
    assert without_registered(file.read_text()) == without_registered(before)
    again = file.read_bytes()
    register.register(project, "groups")
    assert file.read_bytes() == again


def test_an_unknown_study_is_named(project: Path) -> None:
    before = (project / "studies/params.yaml").read_bytes()
    words = [".venv/bin/python", "-m", "tools.register", "group"]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'group' (choose from" in done.stderr
    assert (project / "studies/params.yaml").read_bytes() == before


def test_what_the_studies_read_is_what_a_registration_holds() -> None:
    """What the stages declare of the pipeline's parameters, without the machine's."""
    stages = params.mapping(ROOT / "studies/dvc.yaml")["stages"]
    declared_keys = {
        key
        for name, stage in stages.items()
        if name != recipes.STUDY  # no claim is on it
        for entry in stage.get("do", stage).get("params", [])
        if isinstance(entry, dict)
        for key in entry.get("../params.yaml", [])
    }
    assert declared_keys - {"device", "precision"} == {*studies.RECIPE.split()}

"""`make register`: the digests of a study's claims, written where its seeds come from."""

import subprocess
from pathlib import Path

import pytest

from normlab import params, studies
from normlab.evidence import declared, registration
from tests.pipeline.copies import ROOT, copy, link_environment, make
from tools import register


@pytest.fixture
def project(tmp_path: Path) -> Path:
    copy(tmp_path)
    (tmp_path / ".venv").unlink()
    link_environment(tmp_path)
    return tmp_path


def test_it_writes_the_digests_and_changes_nothing_else(project: Path) -> None:
    file = project / "studies/params.yaml"
    before = file.read_text()
    done = make(project, "register", STUDIES="groups l1")
    assert done.returncode == 0, done.stderr
    told = declared.load(project / "studies/claims.yaml").claims
    own = params.load(file, studies.Settings)
    recipe = params.load(project / "params.yaml").model_dump(include={*studies.RECIPE.split()})
    for study in ("groups", "l1"):
        section = getattr(own, study)
        assert section.registered == {
            name: registration.digest(claim, section.model_dump(), recipe)
            for name, claim in told.items()
            if claim.study == study
        }
        assert f"{study}: registered {', '.join(section.registered)}; commit it" in done.stdout
    left = [line for line in file.read_text().splitlines() if not line.startswith("    ")]
    assert [line.replace("registered: {}", "registered:") for line in before.splitlines()] == [
        line.replace("registered: {}", "registered:") for line in left
    ]
    again = file.read_bytes()
    register.register(project, "groups")
    assert file.read_bytes() == again


def test_an_unknown_study_is_named(project: Path) -> None:
    words = [".venv/bin/python", "-m", "tools.register", "group"]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'group' (choose from" in done.stderr
    assert (project / "studies/params.yaml").read_text() == (
        ROOT / "studies/params.yaml"
    ).read_text()


def test_what_the_studies_read_is_what_a_registration_holds() -> None:
    """What their stages declare of the pipeline's parameters, without the machine's."""
    stages = params.mapping(ROOT / "studies/dvc.yaml")["stages"]
    declared_keys = {
        key
        for name in studies.STUDIES
        for entry in stages[name]["params"]
        if isinstance(entry, dict)
        for key in entry["../params.yaml"]
    }
    # Of the data set they see what `download` has written.
    known = declared_keys - {"device", "precision"} | {"dataset"}
    assert known == {*studies.RECIPE.split()}

"""Stage `choose`: the rates that it chooses are those of the searches."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from normlab import params, studies
from normlab.errors import InputError
from normlab.evidence import rates
from normlab.params import mapping
from stages import choose
from tests.pipeline.copies import ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that declare the studies, where the stage would run."""
    (tmp_path / "studies/reports").mkdir(parents=True)
    for name in ("params.yaml", "studies/params.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path / "studies")
    return tmp_path


def test_the_table_has_every_rate_of_every_place_once_chosen(folder: Path) -> None:
    base, own = params.load(folder / "params.yaml"), studies.load(Path("params.yaml"))
    for name in [name for name in own if name.startswith(rates.SEARCH)]:
        rows = [
            arm.columns
            | {"seed": seed, "epoch": 1, "val_accuracy": 0.9 + (arm.changes["lr"] == 0.05) / 20}
            for arm, seed, _ in studies.planned(own, name, base)
        ]
        pd.DataFrame(rows).to_csv(f"reports/{name}_history.csv", index=False)
    choose.main()
    table = pd.read_csv("reports/rates.csv")
    assert len(table) == (3 + 12 + 3) * 6
    assert set(table["seeds"]) == {6}
    assert table.groupby(["study", "arm"])["chosen"].sum().eq(1).all()
    assert set(table.loc[table["chosen"], "lr"]) == {0.05}


@pytest.mark.usefixtures("folder")
def test_a_search_of_one_seed_is_refused() -> None:
    values = mapping(Path("params.yaml"))
    values["rates_10k"]["seeds"] = 1
    Path("params.yaml").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"rates_10k.seeds: got 1, allowed: 2 or more"):
        choose.main()


def test_the_committed_rates_are_those_that_the_committed_searches_choose() -> None:
    own = studies.load(ROOT / "studies/params.yaml")
    searches = [name for name in own if name.startswith(rates.SEARCH)]
    reports = ROOT / "studies/reports"
    again = pd.concat(
        rates.table(pd.read_csv(reports / f"{name}_history.csv")) for name in searches
    )
    committed = pd.read_csv(reports / "rates.csv")
    pd.testing.assert_frame_equal(again.reset_index(drop=True), committed, atol=1e-5)

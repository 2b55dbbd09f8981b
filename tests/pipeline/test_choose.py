"""Stages `choose` and `choose_recipe`, and how studies get the rates that have been chosen."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from normlab import params, studies
from normlab.errors import InputError
from normlab.evidence import rates, recipes
from normlab.params import mapping
from stages import choose, choose_recipe
from tests.pipeline.copies import ROOT
from tools import register

FILES = ("params.yaml", "studies/params.yaml", "studies/claims.yaml")
Best = Callable[[str], float]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that declare the studies, where the stage would run."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "studies/reports").mkdir()
    monkeypatch.chdir(tmp_path / "studies")
    return tmp_path


def search(folder: Path, best: Best) -> None:
    """Write the histories of searches in which one rate does best in each place."""
    base, own = params.load(folder / "params.yaml"), studies.load(folder / "studies/params.yaml")
    for name in [name for name in own if name.startswith(rates.SEARCH)]:
        rows = []
        for arm, seed, _ in studies.planned(own, name, base):
            rate = arm.changes["lr"]
            accuracy = 0.9 + 0.05 * (rate == best(f"{name}.{arm.name}")) + seed / 1000
            rows.append(arm.columns | {"seed": seed, "epoch": 1, "val_accuracy": accuracy})
        table = pd.DataFrame(rows)
        table.to_csv(folder / f"studies/reports/{name}_history.csv", index=False)


def of_groups_in_pairs(arm: str) -> float:
    return 0.003 if arm.startswith("rates_10k.gn_2_") else 0.02


def test_studies_with_other_rates_are_refused_and_registering_gives_them_these(
    folder: Path,
) -> None:
    search(folder, of_groups_in_pairs)
    with pytest.raises(InputError) as refused:
        choose.main()
    lines = str(refused.value).splitlines()
    assert lines
    assert all(line.startswith("params.yaml: tuned_") and "allowed: 0.0" in line for line in lines)
    before = (folder / "studies/params.yaml").read_text()
    for study in ("tuned_1k", "tuned_10k", "tuned_55k"):
        register.register(folder, study)
    choose.main()
    own = studies.load(Path("params.yaml"))
    given = {name: arm.given()["lr"] for name, arm in own["tuned_10k"].arms.items()}
    assert given == {name: 0.003 if name == "gn_2" else 0.02 for name in given}
    after = (folder / "studies/params.yaml").read_text()
    comments = [line for line in before.splitlines() if line.startswith("#")]
    assert comments == [line for line in after.splitlines() if line.startswith("#")]


def test_the_table_has_every_rate_of_every_place_once_chosen(folder: Path) -> None:
    search(folder, lambda _: 0.05)
    with pytest.raises(InputError):
        choose.main()
    table = pd.read_csv("reports/rates.csv")
    assert len(table) == (3 + 12 + 3) * 6
    assert set(table["seeds"]) == {6}
    assert table.groupby(["study", "arm"])["chosen"].sum().eq(1).all()
    assert set(table.loc[table["chosen"], "lr"]) == {0.05}


def test_an_arm_without_a_rate_is_named(folder: Path) -> None:
    search(folder, lambda _: 0.02)
    values = mapping(Path("params.yaml"))
    del values["tuned_1k"]["arms"]["gn"]["lr"]
    del values["tuned_55k"]
    Path("params.yaml").write_text(json.dumps(values))
    with pytest.raises(InputError) as refused:
        choose.main()
    said = str(refused.value)
    assert "params.yaml: tuned_1k.arms.gn.lr: got None, allowed: 0.02, as validation" in said
    assert "params.yaml: tuned_55k.arms.bn.lr: got None, allowed: 0.02" in said
    assert "make register STUDIES=tuned_55k writes it" in said


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
    assert list(choose.mismatches(committed, own)) == []


def searched(seeds: int) -> pd.DataFrame:
    rows = [
        (variant, f"{variant}_{recipe}", seed, 1, accuracy + seed / 1e5)
        for recipe, accuracy in {"default": 0.99, "other": 0.995}.items()
        for variant in ("bn_l1", "gn", "ln")
        for seed in range(seeds)
    ]
    # What an arm does not change is empty.
    return pd.DataFrame(rows, columns=choose_recipe.HISTORY.split()).assign(lr=None)


def test_recipes_are_compared_by_what_the_claims_say_matters(folder: Path) -> None:
    searched(3).to_csv("reports/recipes_history.csv", index=False)
    told = folder / "studies/claims.yaml"
    for matters, chosen in {"0.001": "other", "0.02": "default"}.items():
        lines = told.read_text().splitlines()
        at = next(n for n, line in enumerate(lines) if line.startswith("smallest_difference:"))
        lines[at] = f"smallest_difference: {matters}"
        told.write_text("\n".join(lines))
        choose_recipe.main()
        table = pd.read_csv("reports/recipes.csv")
        assert table.loc[table["chosen"], "recipe"].tolist() == [chosen]


@pytest.mark.parametrize("matters", ["0", "1.5", "[]", "small"])
def test_what_cannot_matter_is_refused(folder: Path, matters: str) -> None:
    searched(3).to_csv("reports/recipes_history.csv", index=False)
    (folder / "studies/claims.yaml").write_text(f"smallest_difference: {matters}")
    with pytest.raises(InputError, match=r"claims.yaml: smallest_difference: got .*, allowed: b"):
        choose_recipe.main()


@pytest.mark.usefixtures("folder")
def test_recipes_of_one_seed_are_refused() -> None:
    searched(1).to_csv("reports/recipes_history.csv", index=False)
    with pytest.raises(InputError, match=r"recipes_history.csv: arms: got one of 1 seed, allowed"):
        choose_recipe.main()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("damage", ["arm", "val_accuracy", "rows", "cell"])
def test_a_damaged_history_of_recipes_is_told(damage: str) -> None:
    table, path = searched(3), Path("reports/recipes_history.csv")
    if damage == "rows":
        table = table[:0]
    elif damage == "cell":
        table["val_accuracy"] = table["val_accuracy"].astype(object).where(table.index > 0, "high")
    else:
        del table[damage]
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"reports/recipes_history.csv: "):
        choose_recipe.main()


def test_the_committed_recipe_is_the_one_that_the_committed_search_chooses() -> None:
    reports = ROOT / "studies/reports"
    committed = pd.read_csv(reports / "recipes.csv")
    matters = mapping(ROOT / "studies/claims.yaml")["smallest_difference"]
    again = recipes.table(pd.read_csv(reports / "recipes_history.csv"), matters)
    pd.testing.assert_frame_equal(again, committed, atol=1e-5)
    (chosen,) = committed.loc[committed["chosen"], "recipe"]
    own = studies.load(ROOT / "studies/params.yaml")["recipes"].arms
    assert all(own[f"{variant}_{chosen}"].given() == {} for variant in ("bn_l1", "gn", "ln"))

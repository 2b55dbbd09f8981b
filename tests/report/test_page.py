"""The report says what its inputs say: on the committed tables, and on what they might become."""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from normlab import formatting
from normlab.data.datasets import MNIST
from normlab.errors import InputError
from normlab.evidence import verdicts
from normlab.report import answer, atlas
from normlab.report import page as report
from normlab.report.inputs import Inputs, Row
from stages import report as stage
from tests.report.conftest import all_missed, one_epoch

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "reports/report.html"
YAML_FILE = YAML(typ="safe")


def text(page: str) -> str:
    """What a page says, without its scripts, styles and tags."""
    bare = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def test_numbers_of_the_page_are_those_of_the_inputs(inputs: Inputs, page: str) -> None:
    said = text(page)
    for m in inputs.metrics.values():
        accuracy = m["accuracy"]
        assert formatting.percent(accuracy["mean"]) in said
        ends = (accuracy["low"], accuracy["high"])
        assert formatting.interval(*ends, formatting.percent) in said
        assert f"{m['parameters']['mean']:,.0f} parameters" in said
    for pair in inputs.comparisons:
        interval = formatting.interval(pair["low"], pair["high"])
        sign, _ = report.BADGES[pair["verdict"]]
        points = formatting.points(pair["difference"])
        assert f"{points} points ({interval}) {sign} {pair['verdict']}" in said


def test_every_finding_has_a_card_with_verdict_and_sentence(inputs: Inputs, page: str) -> None:
    cards = re.findall(r'<li class="card finding" id="finding-(\w+)">(.*?)</li>', page, re.DOTALL)
    assert [name for name, _ in cards] == list(inputs.findings)
    for name, card in cards:
        finding = inputs.findings[name]
        said = text(card)
        assert finding["claim"] in said
        assert finding["sentence"] in said
        assert finding["verdict"] in said
        assert f'href="#{finding["study"]}"' in card or finding["study"] == "main"


def test_links_within_the_page_lead_somewhere(page: str) -> None:
    places = re.findall(r'\bid="([^"]+)"', re.sub(r"<script\b.*?</script>", "", page, flags=re.S))
    assert len(set(places)) == len(places)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(places)


def test_rebuild_commands_name_stages_that_there_are(page: str) -> None:
    commands = set(re.findall(r"Rebuild: <code>dvc ([^<]+)</code>", page))
    stages = {f"repro {name}" for name in YAML_FILE.load(ROOT / "dvc.lock")["stages"]}
    own = YAML_FILE.load(ROOT / "studies/dvc.lock")["stages"]
    stages |= {f"--cd studies repro {name}" for name in own} | {"repro reports/dvc.yaml"}
    studies = {"--cd studies repro score@groups", "--cd studies repro judge"}
    assert {"repro evaluate"} | studies <= commands <= stages


def test_hashes_and_versions_are_those_of_the_lock_files(inputs: Inputs, page: str) -> None:
    said = text(page)
    for lock in ("dvc.lock", "studies/dvc.lock"):
        for name, locked in YAML_FILE.load(ROOT / lock)["stages"].items():
            assert f"Stage {name} {lock}" in said
            for file in [*locked.get("deps", []), *locked["outs"]]:
                assert f"{file['path']} {file['md5']}" in said
    pins = re.findall(r"^([\w-]+)==([\w.]+)", inputs.requirements, re.MULTILINE)
    assert all(f"{name} {version}" in said for name, version in pins)
    for key, value in (inputs.params | inputs.study_params).items():
        assert f"{key} {report.compact(value)}" in said


def test_stages_are_told_of_in_an_order_of_their_own(inputs: Inputs) -> None:
    """Which stage ended first, when all ran for the first time, is not to show."""
    assert all(list(stages) == sorted(stages) for stages in inputs.locks.values())


def test_the_page_needs_no_network(page: str) -> None:
    shown = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r'\b(?:src|href|action|srcset)="(?!#|data:)[^"]*', shown)
    assert "@import" not in shown
    assert "url(" not in shown


def test_the_committed_page_and_short_form_are_those_of_the_committed_inputs(
    inputs: Inputs, page: str
) -> None:
    def without_images(made: str) -> str:
        return re.sub(r"data:image/png;base64,[\w+/=]+", "", made)

    again = "the inputs say something else, run: make report"
    assert without_images(PAGE.read_text()) == without_images(page), again
    assert (ROOT / "reports/README.md").read_text() == report.readme(inputs), again


def test_the_same_inputs_give_the_same_bytes_in_another_process(page: str, tmp_path: Path) -> None:
    script = (
        "import sys; from tests.report.conftest import read; from normlab.report import page;"
        "open(sys.argv[1], 'w').write(page.render(read()))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-c", script, str(tmp_path / "page.html")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert (tmp_path / "page.html").read_text() == page


def with_pairs(inputs: Inputs, **first: Any) -> Inputs:
    """The same, with another finding on the first pair and none on the others."""
    none = [pair | {"verdict": "no difference shown"} for pair in inputs.comparisons]
    return inputs._replace(comparisons=[none[0] | first, *none[1:]])


def test_the_comparisons_answer_changes_with_the_numbers(inputs: Inputs) -> None:
    count = formatting.number(len(inputs.variants))
    none = f"No difference in accuracy is shown between the {count}."
    assert answer.compared(with_pairs(inputs))[0] == none
    pair = inputs.comparisons[0]
    one, other = pair["label"], pair["other_label"]
    better = with_pairs(inputs, difference=0.004, low=0.001, high=0.007, verdict="better")
    assert answer.compared(better)[:2] == [
        f"{one} is better than {formatting.within(other)} by 0.40 points of test accuracy "
        "(95 % interval 0.10 to 0.70).",
        "Between the others no difference is shown.",
    ]
    worse = with_pairs(inputs, difference=-0.004, low=-0.007, high=-0.001, verdict="worse")
    said = answer.compared(worse)[0]
    assert said.startswith(f"{other} is better than {formatting.within(one)} by 0.40 ")
    assert formatting.within(said) in report.readme(worse)


def with_verdicts(inputs: Inputs, *verdicts: str, matters: bool = False) -> Inputs:
    """The same, with these verdicts on the accuracies that the study of normalizations compares."""
    findings, left = dict(inputs.findings), list(verdicts)
    for name, finding in inputs.findings.items():
        if (finding["study"], finding["quantity"]) == ("norms", "test accuracy"):
            verdict = left.pop(0)
            changed = {"verdict": verdict, "matters": matters and verdict == "supported"}
            findings[name] = finding | changed | {"sentence": f"{name} is {verdict}."}
    assert not left
    return inputs._replace(findings=findings)


def test_the_study_with_the_seeds_for_it_answers_first(inputs: Inputs) -> None:
    alike = "no effect that matters"

    def told(*verdicts: str, matters: bool = False) -> list[str]:
        return answer.answer(with_verdicts(inputs, *verdicts, matters=matters))

    own, seeds = inputs.study_params["norms"], inputs.test_curves["seed"].nunique()
    said = told(alike, alike, alike)
    assert said[0] == "Whichever: no two of them differ by 0.1 points of test accuracy."
    assert said[4] == f"So say {own['seeds']} seeds each, trained for {own['epochs']} epochs."
    assert said[5].startswith(f"The comparison below, of {seeds} seeds each: ")
    assert said[6:] == answer.compared(inputs)[1:]
    said = told("open", "supported", alike, matters=True)
    assert said[0].startswith("It matters which, if little: ")
    assert said[0].endswith(" is supported.")
    assert [sentence.rpartition(" is ")[2] for sentence in said[1:3]] == [f"{alike}.", "open."]
    assert told("supported", "supported", "supported", matters=True)[0].startswith(
        "It matters which: "
    )
    assert told("open", "supported", "contradicted")[0] == (
        "Some differ, but that any two do by 0.1 points of test accuracy, and so that it matters, "
        "is not shown."
    )
    assert told("open", alike, "open")[0] == (
        "That it matters which, by 0.1 points of test accuracy, is neither shown nor excluded."
    )
    assert answer.settled(inputs._replace(findings={})) == []


def test_claims_stand_beside_their_twins(inputs: Inputs) -> None:
    alone = {name: row for name, row in inputs.findings.items() if not name.endswith("_twin")}
    without = inputs._replace(findings=alone)
    assert all(row["other"] is None for row in answer.claims(without))
    name, finding = next(iter(alone.items()))
    twin = finding | {"study": "other", "verdict": "open", "sentence": "Not known there."}
    other = inputs.study_params["norms"] | {"dataset": "fashion_mnist"}
    both = alone | {f"{name}_twin": twin}
    paired = inputs._replace(findings=both, study_params=inputs.study_params | {"other": other})
    first, *others = answer.claims(paired)
    assert (first["name"], first["on"], first["on_other"]) == (name, "MNIST", "Fashion-MNIST")
    assert first["other"] == twin
    assert len(others) == len(alone) - 1
    assert f"| **{finding['verdict']}** | **open** |" in report.readme(paired)
    assert "| claim | MNIST | Fashion-MNIST | in plain words |" in report.readme(paired)


def test_the_short_form_has_a_row_for_each_variant_pair_place_and_claim(inputs: Inputs) -> None:
    made = report.readme(inputs)
    first, where, second = re.split("## Which to take where|## Claims", made)

    def rows(part: str, cells: int) -> list[list[str]]:
        lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line[:2] == "| "]
        return [line for line in lines if len(line) == cells][1:]

    assert [row[0] for row in rows(first, 5)] == list(inputs.variants.values())
    assert [row[3] for row in rows(first, 4)] == [pair["verdict"] for pair in inputs.comparisons]
    assert [row[:2] for row in rows(where, 5)] == [[p.name, p.take] for p in atlas.places(inputs)]

    def expected(finding: Row, other: Row | None, on: str | None) -> list[str]:
        beside, told = "—", finding["sentence"]
        if other and on == "Fashion-MNIST":
            beside, told = f"**{other['verdict']}**", f"{told} On {on}: {other['sentence']}"
        elif other:
            told += (
                f" On MNIST, each with its own rate, **{other['verdict']}**: {other['sentence']}"
            )
        return [f"**{finding['verdict']}**", beside, told]

    assert [row[1:] for row in rows(second, 4)] == [
        expected(row["finding"], row["other"], row["on_other"]) for row in answer.claims(inputs)
    ]
    assert made.endswith("\n")
    assert "\n\n\n" not in made


def test_recipes_are_told_of_with_what_is_chosen(inputs: Inputs, page: str) -> None:
    def section(page: str) -> str:
        found = re.search(r'<section id="recipes">.*?</section>', page, re.DOTALL)
        assert found
        return found[0]

    first, *others = inputs.recipes
    assert len(others) > 3
    told = section(page)
    for row in others:
        difference = formatting.points(row["mean"] - first["mean"])
        assert f"{difference} <span" in told
        assert all(formatting.percent(row[variant]) in told for variant in inputs.variants)
    assert "<code>momentum</code> 0.9," not in told
    assert "<code>momentum</code> 0.9</th>" in told
    assert f"<b>{formatting.percent(first['mean'])}</b>" in told
    assert "None is." in told
    other = [row | {"chosen": row is others[0]} for row in inputs.recipes]
    told = section(report.render(inputs._replace(recipes=other)))
    assert "One is, in bold." in told
    assert f"<b>{formatting.percent(others[0]['mean'])}</b>" in told
    without = report.render(inputs._replace(recipes=[]))
    assert "#recipes" not in without
    assert 'id="recipes"' not in without


def test_what_is_not_known_is_left_out(inputs: Inputs) -> None:
    """One seed, one finding without an interval, a claim with markup in it."""
    summary = inputs.summary.assign(std=np.nan, low=np.nan, high=np.nan)
    name, finding = next(iter(inputs.findings.items()))
    columns = verdicts.OF_FINDINGS.split()
    unknown = dict.fromkeys(columns[columns.index("low") :])
    known = ("smallest_effect", "tests", "level", "sentence")
    claim = {name: finding[name] for name in known} | {"test": "ratio", "unit": "times"}
    claim |= {"claim": "More <b>bold</b> & better", "effect": 3.0}
    findings = dict(inputs.findings) | {name: finding | unknown | claim}
    page = report.render(inputs._replace(summary=summary, findings=findings))
    assert "<b>bold</b>" not in page
    assert "More &lt;b&gt;bold&lt;/b&gt; &amp; better" in page
    assert "nan" not in text(page).lower().split()


def test_of_many_images_that_all_models_miss_the_first_are_shown(inputs: Inputs) -> None:
    made = report.render(inputs._replace(misclassified=all_missed(inputs, 2_475)))
    said = text(made)
    assert "2,475 test images that no model reads right." in said
    assert f"And {2_475 - report.SHOWN:,} more, all in reports/misclassified.csv ." in said
    assert made.count('alt="Test image ') == report.SHOWN
    few = text(report.render(inputs._replace(misclassified=all_missed(inputs, 1))))
    assert "1 test image that no model reads right." in few
    assert " more, all in" not in few


def test_a_single_epoch_makes_a_page_of_the_same_kind(inputs: Inputs, page: str) -> None:
    made = report.render(one_epoch(inputs))
    assert len(made) < 1.1 * len(page)
    said = text(made)
    assert "After 1 epoch each classifies" in said
    assert "95 % interval over seeds and images 0.00 % … 100.00 %" in said
    assert not re.search(r"(?<![\d.])1 epochs", said)
    spec = re.search(r'id="accuracies">.*?json">(.*?)</script>', made, re.DOTALL)
    assert spec
    tables = json.loads(spec[1])["datasets"].values()
    ends = [(row["low"], row["high"]) for rows in tables for row in rows if "low" in row]
    assert ends == [(0, 100)] * len(inputs.variants)


def test_a_study_that_was_not_run_is_named_with_how_to_run_it(inputs: Inputs) -> None:
    others = {name: tables for name, tables in inputs.studies.items() if name != "groups"}
    made = report.render(inputs._replace(studies=others))
    section = re.search(r'<section id="groups">.*?</section>', made, re.DOTALL)
    assert section
    assert "It has not been run here. Rebuild: dvc --cd studies repro score@groups" in text(
        section[0]
    )
    assert "the study of groups" not in made
    assert made.count('class="chart"') < report.render(inputs).count('class="chart"')


def test_one_more_variant_needs_no_change_here(inputs: Inputs) -> None:
    """A copy of the last variant under a key and a label of its own."""
    last, label = list(inputs.variants.items())[-1]

    def also(table: pd.DataFrame) -> pd.DataFrame:
        new = table[table["variant"] == last].replace({last: "rms", label: "RMS norm"})
        return pd.concat([table, new], ignore_index=True)

    names = ("summary", "test_curves", "histories", "parameters", "misclassified")
    tables: dict[str, Any] = {name: also(getattr(inputs, name)) for name in names}
    pair = inputs.comparisons[0] | {"other": "rms", "other_label": "RMS norm"}
    more = inputs._replace(**tables, comparisons=[*inputs.comparisons, pair])
    made = report.render(more)
    assert f"{formatting.within(label)} and RMS norm, and how sure" in text(made)
    assert f"var(--series-{len(inputs.variants)})" in made
    assert "| RMS norm | " in report.readme(more)
    assert f"{formatting.MINUS} RMS norm | " in report.readme(more)


def test_a_single_variant_is_shown_without_a_comparison(inputs: Inputs) -> None:
    one = next(iter(inputs.variants))
    names = ("summary", "test_curves", "histories", "parameters", "misclassified")
    tables = {name: getattr(inputs, name) for name in names}
    own: dict[str, Any] = {name: t[t["variant"] == one] for name, t in tables.items()}
    alone = inputs._replace(**own, comparisons=[], findings={}, studies={})
    said = "One normalization was trained: there is nothing to compare it with."
    assert said in text(report.render(alone))
    made = report.readme(alone)
    assert f"**{said}**" in made
    assert "compared" not in made
    assert "\n\n\n" not in made


def test_readings_name_the_most_frequent_first() -> None:
    assert report.readings({4: 3}, MNIST.names) == "4"
    assert report.readings({9: 1, 4: 2, 7: 0}, MNIST.names) == "4 (2 of 3), 9 (1 of 3)"


def test_a_missing_input_gets_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^reports/summary\.csv: cannot be read: [^\n]+$"):
        stage.main()

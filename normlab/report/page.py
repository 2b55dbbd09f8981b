"""The page and its short form: sentences worked out of the numbers and filled into templates.

Every sentence about a result is made from the numbers, so that it changes with them. Nothing else
enters: no date, no host, no path of this machine. The same inputs give the same bytes.
"""

import base64
import io
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from matplotlib.image import imsave

from normlab import formatting as fmt
from normlab.data import datasets
from normlab.evidence import verdicts
from normlab.network.architecture import REFERENCE
from normlab.report import answer as answers
from normlab.report import atlas, charts, figure_tables, looks, norm_axes, sections
from normlab.report.inputs import Images, Inputs

BADGES = {
    "supported": ("✓", "good"),
    "contradicted": ("✕", "bad"),
    "no effect that matters": ("≈", "even"),
    "open": ("○", "open"),
    "better": ("▲", "good"),
    "worse": ("▼", "bad"),
    "no difference shown": ("○", "open"),
}
"""Sign and tone of each verdict: on claims, and on pairs of variants."""

TESTS = {
    "trend": "Cuzick’s trend test, by permutation",
    "contrast": "permutation test, or of more than two arms Welch’s",
    "non-inferiority": "Welch’s test of the loss that would matter",
}
HARDEST = 8  # images shown of each variant
SHOWN = 40  # images shown of those that all models miss


def render(inputs: Inputs) -> str:
    """Write the page, in one piece."""
    series, found = looks.named(inputs.variants.values()), inputs.findings
    architecture = REFERENCE._replace(**inputs.dataset.asks)
    groups, batch = inputs.params["gn_groups"], inputs.params["batch_size"]
    known = datasets.known()
    ran = [inputs.study_params[study]["dataset"] for study in inputs.studies]
    environment = _environment()
    environment.filters["link"] = lambda study: (
        study if study in inputs.study_params else "parameters"
    )
    page = environment.get_template("page.html.j2")
    return page.render(
        answer=answers.answer(inputs),
        inputs=inputs,
        series=series,
        comparison=sections.comparison(inputs, series),
        effects=on_one_scale(inputs.comparisons, inputs.smallest_difference),
        curves=sections.curve_figures(inputs, series),
        layers=architecture.shapes,
        normalized=norm_axes.normalized(groups, batch, architecture),
        parameters=sections.parameter_figure(inputs, series),
        findings={name: row | {"drawn": effect(row)} for name, row in found.items()},
        claims=answers.claims(inputs),
        places=atlas.places(inputs),
        atlas=atlas.blocks(inputs),
        by_either_rule=atlas.by_either_rule(inputs),
        datasets=known,
        names=list(dict.fromkeys([inputs.dataset.name, *(known[d].name for d in ran)])),
        groups=norm_axes.group_counts(inputs.study_params),
        standings=Counter(finding["registration"] for finding in found.values()),
        easier=sections.easier(inputs),
        verdicts=Counter(sorted((f["verdict"] for f in found.values()), key=list(BADGES).index)),
        studies=sections.studies(inputs),
        missed=missed(inputs),
        packages=packages(inputs.requirements),
        tests=TESTS,
        looks=looks,
        versions={
            "Vega": vl_convert.get_vega_version(),
            "Vega-Lite": charts.VEGA_LITE,
            "Vega-Embed": vl_convert.get_vega_embed_version(),
        },
        bundle=bundle(),
    ).lstrip()


def readme(inputs: Inputs) -> str:
    """Write the short form of the page, in Markdown."""
    template = _environment().get_template("README.md.j2")
    return template.render(
        answer=answers.answer(inputs),
        claims=answers.claims(inputs),
        places=atlas.places(inputs),
        inputs=inputs,
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.filters |= {
        "badge": BADGES.__getitem__,
        "compact": compact,
        "effect": verdicts.effect_text,
        "interval": fmt.interval,
        "many": fmt.many,
        "number": fmt.number,
        "percent": fmt.percent,
        "percents": lambda low, high: fmt.interval(low, high, fmt.percent),
        "png": png,
        "points": fmt.points,
        "within": fmt.within,
    }
    return environment


def effect(finding: Mapping[str, Any]) -> dict[str, float] | None:
    """Place a finding's effect and its interval on a line, in percent of its length.

    Returns
    -------
    Places zero and at, perhaps low and high, perhaps left and right of what is too small to matter;
    None where there is no effect to place. A factor is on a log scale, where no effect is 1.
    """
    scale = math.log if finding["unit"] == "times" else float
    given = {"at": finding["effect"], "low": finding["low"], "high": finding["high"]}
    places = {name: scale(value) for name, value in given.items() if value is not None}
    if "at" not in places:
        return None
    if (smallest := finding["smallest_effect"]) is not None:
        places |= {"left": -abs(scale(smallest)), "right": abs(scale(smallest))}
    return _on_line([places | {"zero": 0.0}])[0]


def on_one_scale(pairs: Sequence[Mapping[str, Any]], smallest: float) -> list[dict[str, float]]:
    """Place the pairs' differences on lines of one scale, as `effect` does."""
    band = {"left": -smallest, "right": smallest, "zero": 0.0}
    return _on_line(
        [band | {"at": m["difference"], "low": m["low"], "high": m["high"]} for m in pairs]
    )


def _on_line(rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    values = [value for row in rows for value in row.values()]
    low, high = min(values, default=0.0), max(values, default=0.0)
    room = 100 / (1.24 * (high - low) or 1.0)
    return [{n: round(50 + room * (v - (low + high) / 2), 2) for n, v in r.items()} for r in rows]


def missed(inputs: Inputs) -> dict[str, Any]:
    """Choose the misread images to show: those that all models miss, and each variant's worst.

    Returns
    -------
    How many `models` there are, the first images that all of them miss and how many `in_all`, and
    of each variant its label, how many images it misses for one seed or more (`any`) and for all
    (`every`), and its `hardest` others. An image has its index, true class, pixels, and what each
    variant reads.
    """
    wrong, names = inputs.misclassified, inputs.dataset.names
    seeds = inputs.test_curves.groupby("series", sort=False)["seed"].nunique()

    def image(index: int) -> dict[str, Any]:
        rows = wrong[wrong["index"] == index]
        true, read = int(rows["true"].iloc[0]), []
        for label, count in seeds.items():
            votes = Counter(rows.loc[rows["series"] == label, "predicted"].tolist())
            votes[true] += count - votes.total()
            read.append(f"{label} reads {readings(votes, names)}")
        return {"index": index, "true": names[true], "read": read, "image": inputs.images[index]}

    times = wrong.groupby("index").size()
    by_all = times.index[times == seeds.sum()]
    rest = wrong[~wrong["index"].isin(by_all)]
    variants = []
    for label, count in seeds.items():
        own = wrong[wrong["series"] == label].groupby("index").size()
        hardest = figure_tables.hardest(rest[rest["series"] == label], HARDEST)["index"]
        variants.append(
            {
                "label": label,
                "any": len(own),
                "every": int((own == count).sum()),
                "hardest": [image(index) for index in hardest.tolist()],
            }
        )
    return {
        "models": seeds.sum(),
        "by_all": [image(index) for index in by_all[:SHOWN].tolist()],
        "in_all": len(by_all),
        "variants": variants,
    }


def readings(votes: Mapping[int, int], names: Sequence[str]) -> str:
    """Say which classes, by their names, the seeds of a variant read, the most frequent first."""
    ranked = sorted(((-count, read) for read, count in votes.items() if count))
    if len(ranked) == 1:
        return names[ranked[0][1]]
    total = sum(votes.values())
    return ", ".join(f"{names[read]} ({-count} of {total})" for count, read in ranked)


def packages(requirements: str) -> list[tuple[str, str, bool]]:
    """Read off a lock file names and versions, and whether it is we who named the package."""
    entry = r"^([\w.\[\]-]+)==([^\s;]+)(.*(?:\n[ #].*)*)"
    found = re.findall(entry, requirements, re.MULTILINE)
    return [(name, version, "normlab (pyproject.toml)" in rest) for name, version, rest in found]


def png(image: Images) -> str:
    """Encode a grey image as the data URI of a PNG, dark on light."""
    buffer = io.BytesIO()
    style: dict[str, Any] = {"cmap": "gray_r", "vmin": 0, "vmax": 255}
    imsave(buffer, image, format="png", metadata={"Software": None}, **style)  # type: ignore[dict-item]
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@cache
def bundle() -> Markup:
    """Give the libraries that draw in the browser, safe inside a script element."""
    code = vl_convert.javascript_bundle(vl_version=charts.VEGA_LITE)  # type: ignore[call-arg]
    # Only inside strings and patterns can these be, and there a backslash changes nothing.
    return Markup(re.sub(r"<(?=/script|!--)", r"\\x3c", code, flags=re.IGNORECASE))  # noqa: S704


def compact(value: Any) -> str:
    """Write a parameter's value as YAML has it, on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""The report: what the page says, worked out of the numbers and filled into a template.

Every sentence about a result is made from the numbers, so that it changes with them. Nothing else
enters: no date, no host, no path of this machine. The same inputs give the same bytes.
"""

import base64
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.image import imsave

from normlab import formatting as fmt
from normlab.evidence import verdicts
from normlab.report import charts, figures, norm_axes, sections
from normlab.report.sections import Images, Inputs
from normlab.studies import STUDIES

SIGNS = {"supported": "✓", "contradicted": "✕", "not shown": "○"}
TESTS = {
    "trend": "Page’s trend test",
    "contrast": "sign-flip test",
    "non-inferiority": "no loss that matters",
    "ratio": "counted",
}
HARDEST = 8  # digits shown of each variant
SHOWN = 40  # digits shown of those that all models miss


def render(inputs: Inputs) -> str:
    """Fill the template: the whole page, in one piece."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.filters |= {
        "percent": fmt.percent,
        "points": fmt.points,
        "interval": fmt.interval,
        "effect": verdicts.effect_text,
        "percents": lambda low, high: fmt.interval(low, high, fmt.percent),
        "png": png,
        "compact": compact,
        "link": lambda study: study if study in STUDIES else "parameters",
        "badge": lambda verdict: SIGNS.get(verdict, "·"),
    }
    series = charts.named(inputs.labels)
    found = inputs.judged
    page = environment.get_template("page.html.j2").render(
        answer=answer(inputs),
        inputs=inputs,
        series=series,
        comparison=sections.comparison(inputs, series),
        effects=[effect(pair, "difference") for pair in inputs.pairs],
        curves=sections.curve_figures(inputs, series),
        layers=norm_axes.SHAPES,
        normalized=norm_axes.normalized(inputs.params["gn_groups"], inputs.params["batch_size"]),
        parameters=sections.parameter_figure(inputs, series),
        family=next(iter(found.values())),
        findings={name: finding | {"drawn": effect(finding)} for name, finding in found.items()},
        verdicts=Counter(
            sorted((finding["verdict"] for finding in found.values()), key=list(SIGNS).index)
        ),
        studies=sections.studies(inputs),
        digits=digits(inputs),
        packages=packages(inputs.requirements),
        ramp_of=list(inputs.labels).index(inputs.studies["groups"]["variant"].iloc[0]),
        within=fmt.within,
        tests=TESTS,
        light=charts.LIGHT,
        dark=charts.DARK,
        ramp=charts.ramp(),
        versions={
            "Vega": vl_convert.get_vega_version(),
            "Vega-Lite": charts.VEGA_LITE,
            "Vega-Embed": vl_convert.get_vega_embed_version(),
        },
        bundle=bundle(),
    )
    return page.lstrip()  # the macros come first and leave their line ends


def readme(inputs: Inputs) -> str:
    """Write the short form of the report, in Markdown."""
    variants = [
        f"| {inputs.labels[name]} | {fmt.percent(m['accuracy']['mean'])} | "
        f"{fmt.interval(m['accuracy']['low'], m['accuracy']['high'], fmt.percent)} | "
        f"{m['loss']['mean']:.4f} | {m['parameters']['mean']:,.0f} |"
        for name, m in inputs.metrics.items()
    ]
    pairs = [
        f"| {m['label']} {fmt.MINUS} {fmt.within(m['other_label'])} | "
        f"{fmt.points(m['difference'])} | {fmt.interval(m['low'], m['high'])} | "
        f"{m['verdict']} |"
        for m in inputs.pairs
    ]
    claims = [
        f"| {row['claim']} ({row['source']}) | **{row['verdict']}** | {row['sentence']} |"
        for row in inputs.judged.values()
    ]
    family = next(iter(inputs.judged.values()))
    first, *rest = answer(inputs)
    lines = [
        "# Which normalization should a small CNN use?",
        "",
        f"**{first}** {' '.join(rest)}",
        "",
        "![Test accuracy, a point per seed, with intervals](figures/accuracies.png)",
        "",
        "| normalization | test accuracy | 95 % interval | loss | parameters |",
        "|---|---|---|---|---|",
        *variants,
        "",
        "| compared, in points of accuracy | difference | 95 % interval | verdict |",
        "|---|---|---|---|",
        *pairs,
        "",
        "What others have found of this network, tested "
        f"({family['tests']} tests, p-values corrected by Holm's method):",
        "",
        "| claim | verdict | in plain words |",
        "|---|---|---|",
        *claims,
        "",
        "[`report.html`](report.html) tells the whole story, with charts that answer to the",
        "pointer: one file, to be downloaded and opened in a browser. `dvc repro reports/dvc.yaml`",
        "rebuilds it, and this short form, from whatever has changed.",
    ]
    return "\n".join(lines) + "\n"


def answer(inputs: Inputs) -> list[str]:
    """Answer the question in sentences, the first of them the answer itself."""
    shown = [m for m in inputs.pairs if m["verdict"] in ("better", "worse")]
    sentences = [_shown(pair) for pair in shown]
    if not shown:
        count = fmt.number(len(inputs.labels))
        sentences.append(f"No difference in accuracy is shown between the {count}.")
    elif len(shown) < len(inputs.pairs):
        sentences.append("Between the others no difference is shown.")
    means = [m["accuracy"]["mean"] for m in inputs.metrics.values()]
    last = fmt.many(inputs.final["epoch"].max(), "epoch")
    of_images = f"of the {inputs.pairs[0]['images']:,} test images" if inputs.pairs else "of them"
    reached = fmt.between(fmt.percent(min(means)), fmt.percent(max(means)))
    sentences.append(
        f"After {last} each classifies {reached} "
        f"{of_images}, on average over {fmt.many(inputs.final['seed'].nunique(), 'seed')}."
    )
    if inputs.pairs and not shown:
        ends = [m[end] for m in inputs.pairs for end in ("low", "high")]
        sentences.append(
            f"All intervals of the differences lie between {fmt.points(min(ends))} and "
            f"{fmt.points(max(ends))} points: a wider gap is unlikely, a narrower one would take "
            "more seeds to show."
        )
    sizes = {inputs.labels[v]: m["parameters"]["mean"] for v, m in inputs.metrics.items()}
    largest = max(sizes, key=lambda label: sizes[label])
    if sizes[largest] > min(sizes.values()):
        factor = sizes[largest] / min(sizes.values())
        sentences.append(
            f"What does differ is the size: {fmt.within(largest)} has "
            f"{sizes[largest]:,.0f} parameters, {factor:.1f} times the fewest."
        )
    return sentences


def _shown(pair: Mapping[str, Any]) -> str:
    """Say which of two variants is better, and by how much."""
    labels = (pair["label"], pair["other_label"])
    first, second = labels if pair["verdict"] == "better" else labels[::-1]
    ends = sorted(abs(pair[end]) for end in ("low", "high"))
    return (
        f"{first} is better than {fmt.within(second)} by "
        f"{abs(100 * pair['difference']):.2f} points of test accuracy "
        f"(95 % interval {100 * ends[0]:.2f} to {100 * ends[1]:.2f})."
    )


def effect(values: Mapping[str, Any], key: str = "effect") -> dict[str, float] | None:
    """Place an effect and its interval on a line, in percent of its length.

    Parameters
    ----------
    values
        The effect under `key`, low and high (which may be None), and perhaps the unit and the
        smallest effect of interest. A factor goes on a log scale, on which no effect is 1.

    Returns
    -------
    Places zero and at, perhaps low and high, perhaps left and right of what is too small to matter;
    None where there is no effect to place.
    """
    factor = values.get("unit") == "times"
    smallest = values.get("smallest_effect")
    given = {"at": values[key], "low": values["low"], "high": values["high"]}
    if factor:
        given = {name: math.log(v) if v else None for name, v in given.items()}
        smallest = math.log(smallest) if smallest else None
    if given["at"] is None:
        return None
    if smallest is not None:
        given |= {"left": -abs(smallest), "right": abs(smallest)}
    places = {"zero": 0.0} | {name: float(v) for name, v in given.items() if v is not None}
    low, high = min(places.values()), max(places.values())
    room = 100 / (1.24 * (high - low) or 1.0)
    return {name: round(50 + room * (v - (low + high) / 2), 2) for name, v in places.items()}


def digits(inputs: Inputs) -> dict[str, Any]:
    """Choose the misread digits to show: those that all models miss, and each variant's worst.

    Returns
    -------
    The count of models, the first digits that all of them miss and how many there are, and for each
    variant its label, how many images it misses for one seed or more and for all seeds, and its
    hardest other digits. A digit has its index, true digit, image and a sentence on what each
    variant reads.
    """
    table, models = inputs.misclassified, inputs.final
    by_index = {int(str(index)): rows for index, rows in table.groupby("index", sort=True)}
    seeds = models.groupby("variant", sort=False)["seed"].agg(list)

    def digit(index: int) -> dict[str, Any]:
        rows = by_index[index]
        true = int(rows["true"].iloc[0])
        wrong = rows.set_index(["variant", "seed"])["predicted"].to_dict()
        said = [
            f"{inputs.labels[str(variant)]} reads "
            f"{readings(wrong.get((variant, seed), true) for seed in own)}"
            for variant, own in seeds.items()
        ]
        return {"index": index, "true": true, "read": said, "image": inputs.images[index]}

    missed = [index for index, rows in by_index.items() if len(rows) == len(models)]
    rest = table[~table["index"].isin(missed)]
    variants = []
    for variant, own in seeds.items():
        times = table[table["variant"] == variant].groupby("index").size()
        hardest = figures.hardest(rest[rest["variant"] == variant], HARDEST)["index"]
        variants.append(
            {
                "label": inputs.labels[str(variant)],
                "any": len(times),
                "every": int((times == len(own)).sum()),
                "hardest": [digit(index) for index in hardest.tolist()],
            }
        )
    return {
        "models": len(models),
        "missed": [digit(index) for index in missed[:SHOWN]],
        "missed_in_all": len(missed),
        "variants": variants,
    }


def readings(values: Iterable[int]) -> str:
    """Say which digits the seeds of a variant read, the most frequent first."""
    counts = Counter(values)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(ranked) == 1:
        return f"{ranked[0][0]}"
    return ", ".join(f"{digit} ({count} of {counts.total()})" for digit, count in ranked)


def packages(requirements: str) -> list[dict[str, Any]]:
    """Read names and versions off a lock file: also where each goes and whether we named it."""
    entries = re.split(r"\n(?=\S)", f"\n{requirements}")
    found = []
    for entry in entries:
        pin = re.match(r"([\w.\[\]-]+)==(\S+?)(?: ; (.*?))? *\\?(?:\n|$)", entry)
        if pin:
            found.append(
                {
                    "name": pin[1],
                    "version": pin[2],
                    "where": pin[3] or "",
                    "ours": "normlab (pyproject.toml)" in entry,
                }
            )
    return found


def png(image: Images) -> str:
    """Encode a grey image as the data URI of a PNG, dark on light."""
    buffer = io.BytesIO()
    style: dict[str, Any] = {"cmap": "gray_r", "vmin": 0, "vmax": 255}
    imsave(buffer, image, format="png", metadata={"Software": None}, **style)  # type: ignore[dict-item]
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def bundle() -> Markup:
    """Give the libraries that draw in the browser, safe inside a script element."""
    code = vl_convert.javascript_bundle(vl_version=charts.VEGA_LITE)  # type: ignore[call-arg]
    # Only inside strings and patterns can these be, and there a backslash changes nothing.
    return Markup(re.sub(r"<(?=/script|!--)", r"\\x3c", code, flags=re.IGNORECASE))  # noqa: S704


def compact(value: Any) -> str:
    """Write a parameter's value as YAML has it, on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

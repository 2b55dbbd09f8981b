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
from normlab.evidence import claims
from normlab.report import charts, figures, norm_axes, sections
from normlab.report.sections import Images, Inputs

SIGNS = {"supported": "✓", "contradicted": "✕", "not shown": "○"}
TESTS = {
    "trend": "Page’s trend test",
    "contrast": "sign-flip test",
    "non-inferiority": "no loss that matters",
    "ratio": "counted",
}
HARDEST = 8  # digits shown of each variant


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
        "effect": claims.effect_text,
        "percents": lambda low, high: fmt.interval(low, high, fmt.percent),
        "png": png,
        "compact": compact,
        "link": lambda study: study if study in sections.STUDIES else "parameters",
        "badge": lambda verdict: SIGNS.get(verdict, "·"),
    }
    series = charts.named({variant: fmt.label(variant) for variant in inputs.variants})
    found = inputs.findings["findings"]
    page = environment.get_template("page.html.j2").render(
        answer=answer(inputs),
        inputs=inputs,
        series=series,
        comparison=sections.comparison(inputs, series),
        effects={pair: effect(values, "difference") for pair, values in inputs.pairs.items()},
        curves=sections.curve_figures(inputs, series),
        layers=norm_axes.SHAPES,
        normalized=norm_axes.normalized(inputs.params["gn_groups"], inputs.params["batch_size"]),
        parameters=sections.parameter_figure(inputs, series),
        findings={name: finding | {"drawn": effect(finding)} for name, finding in found.items()},
        verdicts=Counter(
            sorted((finding["verdict"] for finding in found.values()), key=list(SIGNS).index)
        ),
        studies=sections.studies(inputs),
        digits=digits(inputs),
        packages=packages(inputs.requirements),
        label=fmt.label,
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
        f"| {fmt.label(name)} | {fmt.percent(m['accuracy'])} | "
        f"{fmt.interval(m['accuracy_low'], m['accuracy_high'], fmt.percent)} | "
        f"{m['loss']:.4f} | {m['parameters']:,} |"
        for name, m in inputs.metrics.items()
        if name in inputs.variants
    ]
    pairs = [
        f"| {fmt.label(one)} {fmt.MINUS} {fmt.within(fmt.label(other))} | "
        f"{fmt.points(m['difference'])} | {fmt.interval(m['low'], m['high'])} | "
        f"{m['verdict']} |"
        for (one, other), m in inputs.pairs.items()
    ]
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
        f"({inputs.findings['tests']} tests, p-values corrected by Holm's method):",
        "",
        inputs.findings_table.strip(),
        "",
        "[`report.html`](report.html) tells the whole story, with charts that answer to the",
        "pointer: one file, to be downloaded and opened in a browser. `dvc repro reports/dvc.yaml`",
        "rebuilds it, and this short form, from whatever has changed.",
    ]
    return "\n".join(lines) + "\n"


def answer(inputs: Inputs) -> list[str]:
    """Answer the question in sentences, the first of them the answer itself."""
    metrics, pairs = inputs.metrics, inputs.pairs
    shown = {pair: m for pair, m in pairs.items() if m["verdict"] in ("better", "worse")}
    count = fmt.number(len(inputs.variants))
    sentences = []
    for (one, other), m in shown.items():
        first, second = (one, other) if m["verdict"] == "better" else (other, one)
        ends = sorted(abs(m[end]) for end in ("low", "high"))
        sentences.append(
            f"{fmt.label(first)} is better than {fmt.within(fmt.label(second))} by "
            f"{abs(100 * m['difference']):.2f} points of test accuracy "
            f"(95 % interval {100 * ends[0]:.2f} to {100 * ends[1]:.2f})."
        )
    if not shown:
        sentences.append(f"No difference in accuracy is shown between the {count}.")
    elif len(shown) < len(pairs):
        sentences.append("Between the others no difference is shown.")
    accuracies = [fmt.percent(metrics[variant]["accuracy"]) for variant in inputs.variants]
    low, high = min(accuracies, key=_leading), max(accuracies, key=_leading)
    seeds = inputs.final["seed"].nunique()
    sentences.append(
        f"After {inputs.final['epoch'].max()} epochs each classifies {fmt.between(low, high)} "
        f"of the {len(inputs.predictions):,} test images, on average over "
        f"{fmt.many(seeds, 'seed')}."
    )
    if pairs and not shown:
        ends = [m[end] for m in pairs.values() for end in ("low", "high")]
        sentences.append(
            f"All intervals of the differences lie between {fmt.points(min(ends))} and "
            f"{fmt.points(max(ends))} points: a wider gap is unlikely, a narrower one would take "
            "more seeds to show."
        )
    sizes = {variant: metrics[variant]["parameters"] for variant in inputs.variants}
    largest = max(sizes, key=lambda variant: sizes[variant])
    if sizes[largest] > min(sizes.values()):
        factor = sizes[largest] / min(sizes.values())
        sentences.append(
            f"What does differ is the size: {fmt.within(fmt.label(largest))} has "
            f"{sizes[largest]:,} parameters, {factor:.1f} times the fewest."
        )
    return sentences


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
    The count of models, the digits that all of them miss, and for each variant its label, how many
    images it misses for one seed or more and for all seeds, and its hardest other digits. A digit
    has its index, true digit, image and a sentence on what each variant reads.
    """
    table = inputs.predictions.set_index("index")
    truth, read = table["true"], table.drop(columns="true")
    wrong = read.ne(truth, axis=0)
    models = {v: [c for c in map(str, read) if c.startswith(f"{v}_seed")] for v in inputs.variants}

    def digit(index: int) -> dict[str, Any]:
        row = read.loc[[index]]
        said = [
            f"{fmt.label(variant)} reads {readings(row[columns].to_numpy().ravel().tolist())}"
            for variant, columns in models.items()
        ]
        return {
            "index": index,
            "true": int(truth[index]),
            "read": said,
            "image": inputs.images[index],
        }

    missed = wrong.index[wrong.all(axis=1)].tolist()
    rest = inputs.misclassified[~inputs.misclassified["index"].isin(missed)]
    return {
        "models": read.shape[1],
        "missed": [digit(index) for index in missed],
        "variants": [
            {
                "label": fmt.label(variant),
                "any": int(wrong[columns].any(axis=1).sum()),
                "every": int(wrong[columns].all(axis=1).sum()),
                "hardest": [
                    digit(index)
                    for index in figures.hardest(rest[rest["variant"] == variant], HARDEST)[
                        "index"
                    ].tolist()
                ],
            }
            for variant, columns in models.items()
        ],
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


def _leading(text: str) -> float:
    return float(text.split()[0])

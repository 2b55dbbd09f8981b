"""The answer in sentences, and every claim beside its twin on other images."""

from collections.abc import Mapping
from typing import Any

from normlab import formatting as fmt
from normlab.data import datasets
from normlab.evidence import declared
from normlab.evidence.declared import WORDS
from normlab.evidence.rates import TUNED
from normlab.report.inputs import Inputs


def answer(inputs: Inputs) -> list[str]:
    """Answer the question in sentences, the first of them the answer itself.

    First as the study that has the seeds for it does, then as the main comparison does.
    """
    first, then = settled(inputs), compared(inputs)
    if first:
        seeds = fmt.many(inputs.test_curves["seed"].nunique(), "seed")
        then[0] = f"The comparison below, of {seeds} each: {fmt.within(then[0])}"
    return first + then


def settled(inputs: Inputs) -> list[str]:
    """Say what the study of the three normalizations has found of their accuracy, if it was run."""
    pairs = [
        finding
        for name, finding in inputs.findings.items()
        if finding["study"] == "norms" and finding["quantity"] == WORDS["test_accuracy"]
    ]
    if not pairs:
        return []
    alike = [pair for pair in pairs if pair["verdict"] == "no effect that matters"]
    shown = [pair for pair in pairs if pair["verdict"] in ("supported", "contradicted")]
    unsettled = [pair for pair in pairs if pair["verdict"] == "open"]
    least = f"{100 * pairs[0]['smallest_effect']:.3g} points of test accuracy"
    if len(alike) == len(pairs):
        lead = f"Whichever: no two of them differ by {least}."
    elif any(pair["matters"] for pair in shown):
        lead = "It matters which, if little: " if len(shown) < len(pairs) else "It matters which: "
        lead += fmt.within(shown[0]["sentence"])
    elif shown:
        lead = f"Some differ, but that any two do by {least}, and so that it matters, is not shown."
    else:
        lead = f"That it matters which, by {least}, is neither shown nor excluded."
    told = [pair["sentence"] for pair in [*shown, *alike, *unsettled]]
    told = [sentence for sentence in told if fmt.within(sentence) not in lead]
    own = inputs.study_params["norms"]
    run = f"{fmt.many(own['seeds'], 'seed')} each, trained for {fmt.many(own['epochs'], 'epoch')}"
    return [lead, *told, f"So say {run}."]


def compared(inputs: Inputs) -> list[str]:
    """Say what the main comparison has found."""
    shown = [pair for pair in inputs.comparisons if pair["verdict"] != "no difference shown"]
    sentences = [_shown(pair) for pair in shown]
    if not inputs.comparisons:
        sentences.append("One normalization was trained: there is nothing to compare it with.")
    elif not shown:
        count = fmt.number(len(inputs.variants))
        sentences.append(f"No difference in accuracy is shown between the {count}.")
    elif len(shown) < len(inputs.comparisons):
        sentences.append("Between the others no difference is shown.")
    means = [fmt.percent(m["accuracy"]["mean"]) for m in _by(inputs, "accuracy")]
    images = f"{inputs.comparisons[0]['images']:,} " if inputs.comparisons else ""
    sentences.append(
        f"After {fmt.many(inputs.test_curves['epoch'].max(), 'epoch')} each classifies "
        f"{fmt.between(means[0], means[-1])} of the {images}test images, on average over "
        f"{fmt.many(inputs.test_curves['seed'].nunique(), 'seed')}."
    )
    if inputs.comparisons and not shown:
        ends = [pair[end] for pair in inputs.comparisons for end in ("low", "high")]
        sentences.append(
            f"All intervals of the differences lie between {fmt.points(min(ends))} and "
            f"{fmt.points(max(ends))} points: a wider gap is unlikely, a narrower one would take "
            "more seeds to show."
        )
    sizes = [m["parameters"] for m in _by(inputs, "parameters")]
    least, most = sizes[0]["mean"], sizes[-1]["mean"]
    if most > least:
        sentences.append(
            f"What does differ is the size: {fmt.within(sizes[-1]['label'])} has "
            f"{most:,.0f} parameters, {most / least:.1f} times the fewest."
        )
    return sentences


def _by(inputs: Inputs, measure: str) -> list[dict[str, Any]]:
    return sorted(inputs.metrics.values(), key=lambda m: m[measure]["mean"])


def _shown(pair: Mapping[str, Any]) -> str:
    """Say which of two variants is better, and by how much."""
    labels = (pair["label"], pair["other_label"])
    first, second = labels if pair["verdict"] == "better" else labels[::-1]
    low, high = sorted(100 * abs(pair[end]) for end in ("low", "high"))
    return (
        f"{first} is better than {fmt.within(second)} by "
        f"{abs(100 * pair['difference']):.2f} points of test accuracy "
        f"(95 % interval {low:.2f} to {high:.2f})."
    )


def claims(inputs: Inputs) -> list[dict[str, Any]]:
    """Pair the findings: of each claim its name, what was found, and what was on other images."""
    known, found = datasets.known(), inputs.findings
    twins = {declared.twin_of(name): name for name in found}
    rows = []
    for name, finding in found.items():
        if name in twins:
            continue
        study = inputs.study_params.get(finding["study"])
        twin = found.get(declared.twin_of(name))
        here = known[study["dataset"]].name if study else inputs.dataset.name
        other = known[inputs.study_params[twin["study"]]["dataset"]].name if twin else None
        if twin and twin["study"].startswith(TUNED):
            other = f"{here}, each with its own rate"
        row = {"name": name, "finding": finding, "on": here}
        rows.append(row | {"twin": declared.twin_of(name), "other": twin, "on_other": other})
    return rows

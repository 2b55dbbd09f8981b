"""The templates of `dvc plots` fill as DVC fills them."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from normlab.report import looks

ROOT = Path(__file__).parents[2]


CURVES = pd.DataFrame(
    [("gn", 0, 1, 0.9), ("gn", 1, 1, 0.8), ("ln", 0, 1, 0.7)],
    columns=["variant", "seed", "epoch", "accuracy"],
)
CONFUSION = pd.DataFrame(
    [("gn", 0, 0, 9), ("gn", 0, 1, 1)], columns=["variant", "true", "predicted", "count"]
)


def filled(template: str, rows: pd.DataFrame, x: str, y: str) -> Any:
    """Fill a template as `dvc plots diff` does: CSV fields are strings, `rev` is added."""
    from dvc_render import VegaRenderer  # type: ignore[import-untyped]

    text = rows.astype(str).to_dict("records")
    points = [row | {"rev": rev} for rev in ("workspace", "HEAD") for row in text]
    labels = {"title": "The title", "x_label": "across", "y_label": "up"}
    where = {"template": template, "template_dir": str(ROOT / ".dvc" / "plots")}
    spec = VegaRenderer(points, "plot", x=x, y=y, **labels, **where).get_filled_template()
    assert spec["data"]["values"] == points
    assert spec["title"]["text"] == "The title"
    written = json.dumps(spec | {"data": None})
    assert "DVC_METRIC" not in written
    assert '"across"' in written
    assert '"up"' in written
    return spec


def test_curves_template_fills() -> None:
    """A series is a variant, with whatever a study has changed of it."""
    spec = filled("curves", CURVES, "epoch", "accuracy")
    calculated = {step["as"]: step["calculate"] for step in spec["transform"][:3]}
    series = calculated.pop("series")
    assert calculated == {"x": "toNumber(datum['epoch'])", "y": "toNumber(datum['accuracy'])"}
    assert set(re.findall(r"datum\.(\w+)", series)) == {"variant", "arm"}
    assert spec["encoding"]["color"]["scale"]["range"] == list(looks.COLOURS)
    assert spec["transform"][-1]["groupby"] == ["rev", "series", "x"]


def test_confusion_template_fills() -> None:
    spec = filled("confusion_counts", CONFUSION, "predicted", "true")["spec"]
    assert (spec["encoding"]["x"]["field"], spec["encoding"]["y"]["field"]) == ("predicted", "true")
    filters = [layer["transform"][0]["filter"] for layer in spec["layer"][:2]]
    assert filters == ["datum['predicted'] == datum['true']", "datum['predicted'] != datum['true']"]

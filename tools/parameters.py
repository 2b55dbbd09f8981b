"""docs/parameters.md, from the models that validate the parameters; `make docs` calls this."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from normlab import files, params
from normlab.errors import exit_on_input_error
from normlab.params import Params, Section
from normlab.studies import Settings

PAGE = Path("docs/parameters.md")
HEAD = """# Parameters

<!-- made by `make docs` -->

Change one for a single run with `dvc exp run -S l1_lambda=0.001`. A value that is not allowed is
refused in one line before any work. So is a file of more than 64 KB, and YAML that parameters have
no need of: tags, more than 50 levels, anchors that stand for more than 100,000 values. DVC reads
the file first: what it cannot read it names in words of its own, and anchors of anchors that
multiply it follows for minutes. Nothing here can keep it from that.
"""
TABLES: dict[str, tuple[type[Section], str]] = {
    "params.yaml": (Params, ""),
    "studies/params.yaml": (
        Settings,
        "Whatever a study does not change is as in `params.yaml`.\n\n",
    ),
}


def main() -> None:
    """Write the page."""
    files.write(PAGE, page(Path()).encode())


def page(root: Path) -> str:
    """Lay out the page: a table for each parameter file below `root`.

    Raises
    ------
    InputError
        If a file cannot be read or has a value that is not allowed.
    """
    parts = [HEAD]
    for file, (model, note) in TABLES.items():
        params.load(root / file, model)
        table = "\n".join(rows(model, params.mapping(root / file)))
        parts.append(
            f"\n## `{file}`\n\n{note}"
            f"| key | default | allowed | what it does |\n|---|---|---|---|\n{table}\n"
        )
    return "".join(parts)


def rows(model: type[Section], values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Write a row for each parameter, with the value that it has in the file."""
    for name, field in model.model_fields.items():
        key = prefix + name
        if section := params.section_of(field):
            yield from rows(section, values[name], f"{key}.")
            continue
        default = json.dumps(values[name]).strip('"')
        does = " ".join((field.description or "").split())
        yield f"| `{key}` | `{default}` | {params.allowed_values(field)} | {does} |"


if __name__ == "__main__":
    with exit_on_input_error():
        main()

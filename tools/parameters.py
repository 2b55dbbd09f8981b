"""docs/parameters.md, from the models that validate the parameters; `make docs` calls this."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic.fields import FieldInfo

from normlab import files, params, studies
from normlab.errors import exit_on_input_error
from normlab.params import Params
from normlab.studies import Compared, Study

PAGE = Path("docs/parameters.md")
HEAD = """# Parameters

<!-- made by `make docs` -->

Change one for a single run with `dvc exp run -S l1_lambda=0.001`. A value that is not allowed is
refused in one line before any work. So is a file of more than 64 KB, and YAML that parameters have
no need of: tags, more than 50 levels, anchors that stand for more than 100,000 values. DVC reads
the file first: what it cannot read it names in words of its own, and anchors of anchors that
multiply it follows for minutes. Nothing here can keep it from that.
"""
STUDIES = """
## `studies/params.yaml`

A section for each study. Whatever neither a study nor its arms change is as in `params.yaml`. In
`recipe`, and of every arm, these parameters can be changed: {changes}; and those listed below.

"""


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
    own = params.load(root / "params.yaml").model_dump()
    studies.load(root / "studies/params.yaml")
    first = [
        (f"`{name}`", f"`{_text(own[name])}`", *told(field))
        for name, field in Params.model_fields.items()
    ]
    arm, known = Compared.model_fields, Params.model_fields
    second = [(f"`{name}`", *told(field)) for name, field in Study.model_fields.items()] + [
        (f"`arms.<name>.{name}`", *told(field)) for name, field in arm.items() if name not in known
    ]
    both = ", ".join(f"`{name}`" for name in arm if name in known)
    return (
        f"{HEAD}\n## `params.yaml`\n\n"
        f"{table(('key', 'default', 'allowed', 'what it does'), first)}"
        f"{STUDIES.format(changes=both)}{table(('key', 'allowed', 'what it does'), second)}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def told(field: FieldInfo) -> tuple[str, str]:
    """Say what a parameter may be, and what it does."""
    may_be = "parameters" if params.section_of(field) else params.allowed_values(field)
    return may_be, " ".join((field.description or "").split())


def _text(value: object) -> str:
    return json.dumps(value).strip('"')


if __name__ == "__main__":
    with exit_on_input_error():
        main()

"""The short form of the report becomes the headline of README.md; `make report` calls this."""

import re
from pathlib import Path

from normlab import files
from normlab.errors import InputError, exit_on_input_error

README = Path("README.md")
SHORT = Path("reports/README.md")
MARKS = ("<!-- headline: made by `make report` -->", "<!-- end of the headline -->")


def main() -> None:
    """Put the short form between the marks of the README."""
    readme = files.read_text(README)
    start, end = (readme.find(mark) for mark in MARKS)
    if not 0 <= start < end:
        raise InputError(f"{README}: got no headline to replace, allowed: {' and '.join(MARKS)}")
    before, after = readme[: start + len(MARKS[0])], readme[end:]
    files.write(README, f"{before}\n\n{headline(files.read_text(SHORT))}\n{after}".encode())


def headline(short: str) -> str:
    """Take the short form's first section, links and images as seen from the project's root."""
    _, body = short.partition("\n## ")[0].split("\n", 1)
    return re.sub(r"\]\((?![a-z]+:)", "](reports/", body.strip()) + "\n"


if __name__ == "__main__":
    with exit_on_input_error():
        main()

"""Let `dvc plots` draw without a network: write the page that it fills, with all that draws in it.

DVC's own page loads Vega from the network. This one, `.dvc/plots.html`, holds the libraries that
the report embeds too; `make install` writes it. That DVC uses it is set in `.dvc/config.local`,
which Git ignores like the page: whoever has another kind of environment has DVC's own page. DVC
fails where a page is set and is not there, so both are in one folder, and not in `.venv`, which
people renew.
"""

import os
import subprocess
import sys
from pathlib import Path

from normlab import files
from normlab.errors import exit_on_input_error
from normlab.report import page
from tools.git import PROJECTS

TEMPLATE = Path(".dvc/plots.html")
SETTING = "plots.html_template"  # its paths are seen from .dvc
LICENCES = Path(page.__file__).with_name("licences.html")


def main() -> None:
    """Write the page and, unless a person has set another one, set it in each project."""
    files.write(TEMPLATE, template().encode())
    for project in PROJECTS:
        config = [sys.executable, "-m", "dvc", "--cd", project, "config"]
        listed = [*config, "--list"]
        known = subprocess.run(listed, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603
        if f"\n{SETTING}=" not in f"\n{known}":
            path = os.path.relpath(TEMPLATE, Path(project, ".dvc"))
            subprocess.run([*config, "--local", SETTING, path], check=True)  # noqa: S603


def template() -> str:
    """Make the page, in which DVC puts the charts in the place of `{plot_divs}`.

    It has no `{scripts}`, where DVC would put those that load from the network.
    """
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>DVC Plot</title>
<script>{page.bundle()}</script>
<style>table {{ border-spacing: 15px; }}</style>
</head>
<body>
{{plot_divs}}
{files.read_text(LICENCES)}</body>
</html>
"""


if __name__ == "__main__":
    with exit_on_input_error():
        main()

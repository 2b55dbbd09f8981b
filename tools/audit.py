"""Are vulnerabilities known of what the lock files hold? No answer is not taken for a no.

    python -m tools.audit

`pip-audit` asks the database OSV, or the copy of it that `OSV_URL` names, for every version of
every package, also for those of other systems and Pythons. The exit code is 1 if one has a known
vulnerability, or could not be asked for.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from normlab import files
from normlab.errors import InputError, exit_on_input_error

PIN = re.compile(r"(?m)^([a-z0-9-]+)==([^ ]+)")


def main() -> None:
    """Audit the lock files of the working directory; a line for each known vulnerability."""
    locks = sorted(Path().glob("requirements*.lock"))
    pins = sorted({pin for lock in locks for pin in PIN.findall(files.read_text(lock))})
    if not pins:
        raise InputError("requirements*.lock: got no packages, allowed: what `make lock` writes")
    versions = defaultdict(list)
    for name, version in pins:
        versions[name].append(f"{name}=={version}")
    # A lock may have two versions of a package, for different Pythons; `pip-audit` takes one.
    rounds = [list(filter(None, one)) for one in zip_longest(*versions.values())]
    answers = [answer for one in rounds for answer in ask(one)]
    known = [
        f"{one['name']} {one['version']}: {vulnerability['id']}, "
        f"fixed in {', '.join(vulnerability['fix_versions']) or 'no version'}"
        for one in answers
        for vulnerability in one["vulns"]
    ]
    print(*known, sep="\n", end="\n" * bool(known))
    print(f"{len(pins)} packages in {len(locks)} lock files: {len(known)} known vulnerabilities")
    sys.exit(bool(known))


def ask(pins: list[str]) -> list[dict[str, Any]]:
    """Return what `pip-audit` says of packages, each `name==version`.

    Raises
    ------
    InputError
        If the database cannot be asked, or has not been asked for every package.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(pins))
        requirements.flush()
        command = [sys.executable, "-m", "pip_audit", "--requirement", requirements.name]
        command += ["--no-deps", "--disable-pip", "--vulnerability-service", "osv"]
        command += ["--format", "json", "--progress-spinner", "off"]
        if url := os.environ.get("OSV_URL"):
            command += ["--osv-url", url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        answers: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise InputError(f"not audited, nothing is known of the packages: {reason}") from None
    answered = {f"{one['name']}=={one['version']}" for one in answers if "vulns" in one}
    if missing := sorted({*pins} - answered):
        raise InputError(f"not audited, got no answer for: {', '.join(missing)}")
    return answers


if __name__ == "__main__":
    with exit_on_input_error():
        main()

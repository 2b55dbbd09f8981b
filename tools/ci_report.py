"""What a branch changes, as Markdown: what one decides by, then the tables, then the figures.

    python -m tools.ci_report BASE

compares the files that are here with those of the newest commit that BASE and this branch have in
common. The report goes to build/report.md, to standard output and, in a job of GitHub's, to the
job's summary. PR_HEAD names the commit whose pictures are shown, if it is not HEAD.
"""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from yaml import YAMLError

from normlab import files, yaml12
from normlab.errors import InputError, exit_on_input_error
from normlab.formatting import percent, points
from tools.git import PROJECTS, git

REPORT = Path("build/report.md")
FIGURES = "reports/figures"
METRICS = "reports/metrics.json"
NOTHING = "no change"
MOST_ROWS = 50

Read = Callable[[str], str | None]
"""Gives the text of a file by its path, or None if there is no such file."""


class Results(NamedTuple):
    """What is compared of a version; empty where the version has no such file.

    `accuracies`: mean test accuracy, a fraction, by variant. `labels`: what to call a variant.
    `verdicts`: by the pair that was compared, or by the claim. `stages`: the record that a lock
    file has of a stage, by the stage's name.
    """

    accuracies: dict[str, float]
    labels: dict[str, str]
    verdicts: dict[str, str]
    stages: dict[str, dict[str, Any]]


def main() -> None:
    """Write the report against the revision that the command line names."""
    (revision,) = sys.argv[1:]
    text = report(revision, common_commit(revision))
    files.write(REPORT, text.encode())
    print(text, end="")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(text)


def report(revision: str, base: str) -> str:
    """Compare what is here with the commit `base`, which `revision` comes from."""
    committed = git("ls-tree", "-r", "--name-only", base).splitlines()
    present = git("ls-files", "-co", "--exclude-standard").splitlines()
    old, new = results(partial(file_at, base), committed), results(file_here, present)
    tables = {kind: dvc_tables(kind, base) for kind in ("params", "metrics")}
    figures = changed_figures(base)
    same = old == new and not figures and not any(tables.values())
    return "\n\n".join(
        [
            f"## {'No change' if same else 'What changes'}, against {revision}",
            accuracies(old, new),
            verdicts(old.verdicts, new.verdicts),
            stages(old.stages, new.stages),
            *(f"### {kind.capitalize()}\n\n{table or NOTHING}" for kind, table in tables.items()),
            f"### Figures\n\n{pictures(figures, base) or NOTHING}",
            f"Compared with commit {base[:10]}.\n",
        ]
    )


def results(read: Read, paths: Iterable[str]) -> Results:
    """Read the results of a version whose files have these paths.

    An older version may lack files, or keys in them: nothing is compared with those.
    """
    measured = parsed(read, METRICS, checked_accuracies) or {}
    summary = parsed(read, "reports/summary.csv", rows) or []
    compared = parsed(read, "reports/comparisons.csv", rows) or []
    found = parsed(read, "studies/reports/findings.csv", rows) or []
    of_pairs = {f"{row['label']} less {row['other_label']}": row["verdict"] for row in compared}
    records: dict[str, Any] = {}
    for path in paths:
        if Path(path).name == "dvc.lock":
            lock = parsed(read, path, yaml12.load) or {}
            folder = path.removesuffix("dvc.lock")
            records |= {f"{folder}{name}": stage for name, stage in lock.get("stages", {}).items()}
    return Results(
        measured,
        {row["variant"]: row["label"] for row in summary},
        of_pairs | {row["claim"]: row["verdict"] for row in found},
        records,
    )


def parsed(read: Read, path: str, parse: Callable[[str], Any]) -> Any:
    """Read and parse a file; None if there is none."""
    text = read(path)
    try:
        return None if text is None else parse(text)
    except (ValueError, YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None


def checked_accuracies(text: str) -> dict[str, float]:
    """Read the accuracies among metrics, by variant; older metrics may have none."""
    metrics = json.loads(text)
    if not (isinstance(metrics, dict) and metrics):
        raise InputError(f"{METRICS}: got {text.strip()[:60]}, allowed: an object of metrics")
    found: dict[str, float] = metrics.get("accuracy", {})
    if not isinstance(found, dict) or {type(one) for one in found.values()} - {float, int}:
        got = json.dumps(found)[:60]
        raise InputError(f"{METRICS}: accuracy: got {got}, allowed: a number for each variant")
    return found


def rows(table: str) -> list[dict[str, str]]:
    """Read the rows of a CSV file, each by the names of its columns."""
    return list(csv.DictReader(io.StringIO(table)))


def accuracies(old: Results, new: Results) -> str:
    """Make a table of the mean test accuracies, those that do not differ included."""
    variants = dict.fromkeys([*old.accuracies, *new.accuracies])
    lines = ["| test accuracy | before | now | points |", "|---|---|---|---|"]
    for variant in variants:
        before, now = old.accuracies.get(variant), new.accuracies.get(variant)
        change = "—" if before is None or now is None else points(now - before)
        label = (old.labels | new.labels).get(variant, variant)
        lines.append(
            f"| {label} | {percent(before)} | {percent(now)} | "
            f"{NOTHING if before == now else change} |"
        )
    return "\n".join(lines) if variants else "Test accuracy: not measured."


def verdicts(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Make a table of the verdicts that differ."""
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    if not names:
        return f"Verdicts: {NOTHING} in {len(new)}."
    lines = [f"| {name} | {old.get(name, '—')} | **{new.get(name, '—')}** |" for name in names]
    return "\n".join(["| verdict on | before | now |", "|---|---|---|", *lines])


def stages(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say which stages have run: those whose records in the lock files differ."""
    ran = [name for name in new if new[name] != old.get(name)]
    alike = [name for name in ran if name in old and outputs(new[name]) == outputs(old[name])]
    gone = [name for name in old if name not in new]
    said = [f"Stages that ran: {', '.join(ran) or 'none'}."]
    if alike:
        said.append(f"With the outputs that they had before: {', '.join(alike)}.")
    if gone:
        said.append(f"Stages that are gone: {', '.join(gone)}.")
    return " ".join(said)


def outputs(stage: Mapping[str, Any]) -> dict[str, str]:
    """MD5 of every output of a stage by its path."""
    return {out["path"]: out["md5"] for out in stage.get("outs", [])}


def dvc_tables(kind: str, base: str) -> str:
    """Tabulate how `params` or `metrics` differ from a commit, in each DVC project."""
    found = [dvc_table(kind, base, one) for one in PROJECTS if (Path(one) / ".dvc").is_dir()]
    return "\n\n".join(filter(None, found))


def dvc_table(kind: str, base: str, project: str) -> str:
    """Let DVC tabulate how `params` or `metrics` differ from a commit; empty if they do not."""
    done = run(sys.executable, "-m", "dvc", "--cd", project, kind, "diff", "--md", base[:10])
    # DVC goes on with what it can read, and exits with 0.
    if done.returncode or "failed to load " + kind in done.stderr:
        raise InputError(f"dvc {kind} diff: {' '.join(done.stderr.split())}")
    # DVC pads every column to its longest value; GitHub takes 65,536 characters.
    head, rule, *found = re.sub(" {2,}", " ", done.stdout.strip()).splitlines() or ("", "")
    if not found:
        return ""
    more = len(found) - MOST_ROWS
    command = f"dvc {'' if project == '.' else f'--cd {project} '}{kind} diff {base[:10]}"
    rest = [f"\nAnd {more} more: `{command}`."] if more > 0 else []
    return "\n".join([head, re.sub("-{2,}", "---", rule), *found[:MOST_ROWS], *rest])


def changed_figures(base: str) -> list[str]:
    """Name the figures that are not those of a commit, those that are new or gone included."""
    changed = git("diff", "--name-only", base, "--", FIGURES)
    untracked = git("ls-files", "--others", "--exclude-standard", "--", FIGURES)
    return sorted({*changed.splitlines(), *untracked.splitlines()})


def pictures(figures: Iterable[str], base: str) -> str:
    """Show figures beside what they were; empty if there are none.

    GitHub can show what has been committed. A figure that was only drawn here is named.
    """
    head = os.environ.get("PR_HEAD", "HEAD")
    lines = []
    for path in figures:
        now = picture(path, head)
        if not Path(path).exists():
            now = "gone"
        elif git("status", "--porcelain", "--", path):
            now = "not committed: `make repro` draws it"
        lines += [f"| **{Path(path).stem}** | |", f"| {picture(path, base)} | {now} |"]
    return "\n".join(["| before | now |", "|---|---|", *lines]) if lines else ""


def picture(path: str, commit: str) -> str:
    """Show a picture as it is at a commit: by its address, if this is a job of GitHub's."""
    if file_hash(commit, path) is None:
        return "—"
    repository = os.environ.get("GITHUB_REPOSITORY")
    if repository is None:
        return f"`{path}` at {commit[:10]}"
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    return f"![{Path(path).stem}]({server}/{repository}/blob/{commit}/{path}?raw=true)"


def common_commit(revision: str) -> str:
    """Find the newest commit that a revision and this branch have in common.

    Raises
    ------
    InputError
        If there is none, or no such revision.
    """
    try:
        return git("merge-base", "--", revision, "HEAD").strip()
    except InputError:
        raise InputError(
            f"BASE: got {revision}, allowed: a branch, tag or commit with history in common with "
            "this branch"
        ) from None


def file_hash(commit: str, path: str) -> str | None:
    """Git's hash of a file at a commit; None if the commit has no such file."""
    found = git("ls-tree", commit, "--", path).split()  # mode, type, hash, path
    return found[2] if found else None


def file_at(commit: str, path: str) -> str | None:
    """Read a file as it is at a commit."""
    found = file_hash(commit, path)
    return git("cat-file", "blob", found) if found else None


def file_here(path: str) -> str | None:
    """Read a file as it is here."""
    return files.read_text(Path(path)) if Path(path).exists() else None


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


if __name__ == "__main__":
    with exit_on_input_error():
        main()

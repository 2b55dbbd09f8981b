"""What Git's history shows of a registration: whether it was there before the results."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Standing = Literal["registered", "post hoc", "cannot be seen"]


def standing(digest: str, params: Path, seeds: Sequence[int], table: Path) -> Standing:
    """Say whether the commit that set a digest comes before the first with results.

    Parameters
    ----------
    digest
        Of a claim, as `params` has it now.
    params
        The file of parameters that it was committed in.
    seeds
        Those that come from it.
    table
        Of the trials, a row for each, with its seed between commas.

    Returns
    -------
    "registered", also where the results have not been committed yet; "post hoc" where the digest
    has not, or came with the results or after them; "cannot be seen" where that is older than what
    the clone has of the history, or there is no history.
    """
    old = _boundary()
    if old is None:
        return "cannot be seen"
    registered = _first_with(digest, params)
    if registered is None:
        return "post hoc"
    any_seed = f",({'|'.join(map(str, seeds))}),"
    ran = _first_with(any_seed, table)
    if registered in old or ran in old:
        return "cannot be seen"
    if ran is None:
        return "registered"
    before = ran != registered and _git("merge-base", "--is-ancestor", registered, ran) is not None
    return "registered" if before else "post hoc"


def _boundary() -> set[str] | None:
    """Name the commits whose parents a shallow clone lacks; None where there is no history."""
    shallow = _git("rev-parse", "--git-path", "shallow")
    if shallow is None or _git("rev-parse", "--verify", "HEAD") is None:
        return None
    path = Path(shallow.strip())
    return set(path.read_text().split()) if path.exists() else set()


def _first_with(pattern: str, path: Path) -> str | None:
    """Find the first commit that has lines with a pattern in a file: of several, the oldest."""
    words = ["log", "--format=%H", "--reverse", "--topo-order", "--full-history", "-E"]
    found = _git(*words, f"-G{pattern}", "--", str(path))
    return found.split()[0] if found else None


def _git(*words: str) -> str | None:
    """Return what Git prints; None where it fails, or is not there."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        return None
    return None if done.returncode else done.stdout

"""The project's claims about itself, checked without running the pipeline."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from stages.__main__ import WORKERS_IMPORT
from tools import verify
from tools.git import PROJECTS

ROOT = Path(__file__).parents[2]
PIPELINES = verify.STUDIES


def declared(pipeline: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Stages by name, those of the studies below their folder's, each `foreach` unrolled."""
    folder = "studies/" if pipeline.startswith("studies/") else ""
    for name, stage in YAML(typ="safe").load(ROOT / pipeline)["stages"].items():
        if "foreach" not in stage:
            yield f"{folder}{name}", stage
            continue
        items, text = stage["foreach"], json.dumps(stage["do"])
        for key in items:
            one = text.replace("${item}", key).replace("${key}", key)
            for inner, value in items[key].items() if isinstance(items, dict) else ():
                one = one.replace(f"${{item.{inner}}}", value)
            yield f"{folder}{name}@{key}", json.loads(one)


STAGES = {name: stage for pipeline in PIPELINES for name, stage in declared(pipeline)}
ENTRY = "stages/__main__.py"
CLUSTER = "normlab/training/cluster.py"
TEMPLATES = {".css", ".html", ".j2", ".js"}
LOCKS = [f"requirements{of}.lock" for of in ("", "-dev", "-s3", "-ssh", "-audit")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS = PROJECT["dependency-groups"]
DEVELOPMENT = [item for item in GROUPS["dev"] if isinstance(item, str)]
STUDIES = ["norms", "groups", "l1", "batch_size", "reference"]
STUDIES += ["norms_fashion", "groups_fashion", "l1_fashion"]
RATES, TUNED = ([f"{name}_{size}" for size in ("1k", "10k", "55k")] for name in ("rates", "tuned"))


def own_module(name: str) -> str | None:
    for path in (f"{name.replace('.', '/')}.py", f"{name.replace('.', '/')}/__init__.py"):
        if (ROOT / path).is_file():
            return path
    return None


def imported(path: Path) -> set[str]:
    """Modules, and names in them, that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@cache
def imports(path: str) -> frozenset[str]:
    """Our own files that a file imports."""
    names = [name.split(".") for name in imported(ROOT / path)]
    parents = {".".join(parts[:i]) for parts in names for i in range(1, 9)}
    return frozenset(file for name in parents if (file := own_module(name)))


def closure(path: str) -> set[str]:
    seen: set[str] = set()
    waiting = {path}
    while waiting:
        seen.add(current := waiting.pop())
        waiting |= imports(current) - seen
    return seen


def code_of(stage: str) -> set[str]:
    """Our own files that a stage runs, imported or beside those; a package's mark is not one."""
    module = re.fullmatch(r"exec stages/python -m stages (\w+)( [\w.]+)*", STAGES[stage]["cmd"])
    assert module
    modules = closure(f"stages/{module[1]}.py") | closure("stages/provenance.py") | {ENTRY}
    beside = [f for m in modules for f in (ROOT / m).parent.glob(f"{Path(m).stem}.*")]
    if "normlab/report/page.py" in modules:
        beside += [f for f in (ROOT / "normlab/report").iterdir() if f.suffix in TEMPLATES]
    files = {str(f.relative_to(ROOT)) for f in beside if f.suffix != ".pyc"}
    return {file for file in files if not file.endswith("__init__.py")}


def files_below(dep: str) -> set[str]:
    """The files that a dep of code stands for: itself, or those in the folder."""
    if (ROOT / dep).is_file():
        return {dep}
    found = {str(f.relative_to(ROOT)) for f in (ROOT / dep).rglob("*") if f.is_file()}
    return {file for file in found if "__" not in file}


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_are_the_import_closure(stage: str) -> None:
    """A folder counts as all that is in it, so it stands only where all of it is imported."""
    deps = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("normlab/", "stages/"))]
    assert sorted(file for dep in deps for file in files_below(dep)) == sorted(code_of(stage))


def test_what_marks_a_package_holds_a_docstring_and_no_code() -> None:
    for path in (ROOT / "normlab").rglob("__init__.py"):
        (only,) = ast.parse(path.read_text()).body
        assert isinstance(only, ast.Expr)


def test_workers_are_prepared_for_the_stages_that_have_them() -> None:
    modules = {stage: STAGES[stage]["cmd"].split()[4] for stage in STAGES}
    with_workers = {m for stage, m in modules.items() if CLUSTER in code_of(stage)}
    assert with_workers == set(WORKERS_IMPORT)
    for stage, module in modules.items():
        if preloaded := own_module(WORKERS_IMPORT.get(module, "")):
            assert preloaded in code_of(stage)


def test_the_import_closure_sees_imports_inside_functions(tmp_path: Path) -> None:
    inner = tmp_path / "inner.py"
    inner.write_text("def f():\n    from normlab import params\n")
    assert imports(str(inner)) == {"normlab/__init__.py", "normlab/params.py"}


def test_no_stage_that_trains_depends_on_test_images() -> None:
    scores = [f"studies/score@{study}" for study in [*STUDIES, *TUNED]]
    readers = [
        name
        for name, stage in STAGES.items()
        if any(dep.startswith("data/") and dep.endswith("/test") for dep in stage.get("deps", []))
    ]
    assert readers == ["evaluate", *scores]
    training = [n for n, stage in STAGES.items() if "normlab/training" in stage.get("deps", [])]
    searches = [name.replace("_", "@") for name in (*RATES, *TUNED)]
    own = [f"studies/{name}" for name in [*STUDIES, "recipes", *searches]]
    assert training == ["train_bn_l1", "train_gn", "train_ln", *own]
    for name in training:
        of = "fashion_mnist/" if "fashion" in name else "mnist/" if name in own else ""
        deps = STAGES[name]["deps"]
        data = [d for d in deps if not d.startswith(("normlab/", "stages/"))]
        others = ["models/norms", "reports/norms_history.csv"]
        assert data[0] == f"data/{of}train"
        if name.startswith("studies/tuned@"):
            assert data[1:] == ["reports/rates.csv"]
        else:
            assert [d.replace("_fashion", "") for d in data[1:]] in ([], others)
    for chooser, searched in (("choose", RATES), ("choose_recipe", ["recipes"])):
        deps = STAGES[f"studies/{chooser}"]["deps"]
        choosing = [dep for dep in deps if dep.startswith(("data/", "reports/"))]
        assert sorted(choosing) == sorted(f"reports/{name}_history.csv" for name in searched)


def test_the_run_cache_has_every_stage_but_the_first_and_the_last() -> None:
    """DVC keeps no stage with an output that persists, or is neither cached nor drawn."""
    for name, stage in STAGES.items():
        outs = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
        options = [next(iter(out.values())) for out in outs if isinstance(out, dict)]
        downloads = name.startswith(("download", "studies/download"))
        assert any("persist" in option for option in options) == downloads
        kept = [out for out in stage.get("outs", []) if isinstance(out, dict)]
        assert bool(kept) == (downloads or name == "report"), name


def test_every_stage_is_described_and_the_stages_are_these() -> None:
    trained = ["train_bn_l1", "train_gn", "train_ln"]
    downloads = ["download@mnist", "download@fashion_mnist"]
    rates, tuned = ([name.replace("_", "@") for name in names] for names in (RATES, TUNED))
    scores = [f"score@{study}" for study in [*STUDIES, *TUNED]]
    searches = ["recipes", "choose_recipe", *rates, "choose"]
    own = [*downloads, *STUDIES, *searches, *tuned, *scores, "judge"]
    assert list(STAGES) == [
        *("download", *trained, "evaluate", "plot"),
        *(f"studies/{name}" for name in own),
        "report",
    ]
    assert all(stage["desc"] for stage in STAGES.values())


def test_what_computes_and_draws_from_tables_does_not_import_torch() -> None:
    script = (
        "import sys, stages.plot, stages.judge, stages.report; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_the_lock_and_the_reports_match_the_code_and_the_parameters() -> None:
    """Nothing has changed since the committed run; in a fresh clone, cached outputs are absent."""
    locked: dict[str, Any] = {}
    for pipeline in PIPELINES:
        folder = "studies/" if pipeline.startswith("studies/") else ""
        locked |= {f"{folder}{name}": s for name, s in verify.locked(ROOT, pipeline).items()}
    assert set(locked) == set(STAGES)
    files = [file for stage in locked.values() for file in stage.get("deps", []) + stage["outs"]]
    versions = {(file["path"], file["md5"]) for file in files}
    assert len(versions) == len({path for path, _ in versions}), (
        "stages saw different versions, run: make repro studies report"
    )
    status: dict[str, Any] = {}
    for project in PROJECTS:
        with Repo(str(ROOT / project)) as repo:
            status |= {f"{project}/{name}": found for name, found in repo.status().items()}
    changes = [
        (stage, path, state)
        for stage, entries in status.items()
        for entry in entries
        for kind in (entry.values() if isinstance(entry, dict) else [entry])
        for path, state in (kind.items() if isinstance(kind, dict) else [(kind, "changed")])
    ]
    cached, absent = re.compile(r"(studies/)?(data|models)\b"), {"deleted", "not in cache"}
    changed = [c for c in changes if not (cached.match(c[1]) and c[2] in absent)]
    assert changed == [], "run: make repro studies report"


def packages(requirements: Iterable[str]) -> set[str]:
    """Names of packages, spelt as the index spells them."""
    names = (re.match(r"[\w.-]+", requirement) for requirement in requirements)
    return {re.sub(r"[-_.]+", "-", name[0]).lower() for name in names if name}


def pins(lock: str) -> set[str]:
    """`name==version` of all that a lock file holds with at least one hash."""
    pin = r"^([a-z0-9-]+==\S+)(?: ; .*)? \\\n    --hash=sha256:[0-9a-f]{64}\b"
    return set(re.findall(pin, (ROOT / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_is_hashed_and_names_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert set(re.findall(r"^\S+", text, re.MULTILINE)) == pins(lock)


def test_the_lock_files_hold_what_the_project_names_and_agree() -> None:
    runs, develops, s3, ssh, audits = (pins(lock) for lock in LOCKS)
    assert packages(PROJECT["project"]["dependencies"] + GROUPS["install"]) <= packages(runs)
    assert packages(DEVELOPMENT) <= packages(runs | develops)
    for name, extra in (("s3", s3), ("ssh", ssh), ("audit", audits)):
        assert packages(GROUPS[name]) <= packages(extra)
    assert packages(develops | audits) & packages(runs) == set()
    assert s3 | ssh <= develops
    assert {pin for pin in audits if packages([pin]) <= packages(develops)} <= develops


@pytest.mark.parametrize(
    ("folders", "extra"),
    [(["benchmarks", "normlab", "stages"], []), (["tests"], DEVELOPMENT)],
    ids=["run", "test"],
)
def test_what_the_code_imports_the_project_names(folders: list[str], extra: list[str]) -> None:
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    modules = {name.split(".")[0] for file in files for name in imported(file)}
    foreign = {m for m in modules - sys.stdlib_module_names if not (ROOT / m).is_dir()}
    assert "torch" in foreign
    named = packages(PROJECT["project"]["dependencies"] + extra)
    homes = packages_distributions()
    assert {m for m in foreign if not packages(homes.get(m, [])) & named} == set()


def test_torch_trains_without_triton_which_the_lock_leaves_out() -> None:
    assert "triton" not in packages(pin for lock in LOCKS for pin in pins(lock))
    script = """
import importlib.util, torch, torchvision
from normlab.network import networks
from torchvision.transforms import functional
assert importlib.util.find_spec("triton") is None, "triton is installed"
network = networks.build("bn_l1").train()
before = [p.clone() for p in network.parameters()]
optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True)
pixels = functional.affine(torch.rand(8, 1, 28, 28), 5, [1, 1], 0.9, [3])
torch.nn.functional.cross_entropy(network(pixels), torch.arange(8)).backward()
optimizer.step()
assert not any(torch.equal(*pair) for pair in zip(before, network.parameters()))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

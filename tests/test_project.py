"""The project's claims about itself, checked without running the pipeline."""

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from normlab.params import Params

ROOT = Path(__file__).parent.parent
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def own_module(name: str) -> str | None:
    for path in (f"{name.replace('.', '/')}.py", f"{name.replace('.', '/')}/__init__.py"):
        if (ROOT / path).is_file():
            return path
    return None


@cache
def imports(path: str) -> frozenset[str]:
    """Our own files that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        parents = [".".join(name.split(".")[:i]) for name in names for i in range(1, 9)]
        found |= {file for name in parents if (file := own_module(name))}
    return frozenset(found)


def closure(path: str) -> set[str]:
    seen: set[str] = set()
    waiting = {path}
    while waiting:
        seen.add(current := waiting.pop())
        waiting |= imports(current) - seen
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_are_the_import_closure(stage: str) -> None:
    module = re.fullmatch(r"stages/python -m stages\.(\w+)( \w+)*", STAGES[stage]["cmd"])
    assert module
    code = [dep for dep in STAGES[stage]["deps"] if dep.endswith((".py", ".c"))]
    modules = closure(f"stages/{module[1]}.py")
    sources = {
        str(c.relative_to(ROOT)) for m in modules if (c := (ROOT / m).with_suffix(".c")).exists()
    }
    assert sorted(code) == sorted(modules | sources)


def test_the_import_closure_sees_imports_inside_functions(tmp_path: Path) -> None:
    inner = tmp_path / "inner.py"
    inner.write_text("def f():\n    from normlab import mnist\n")
    assert imports(str(inner)) == {"normlab/__init__.py", "normlab/mnist.py"}


def test_only_evaluate_reads_the_test_split() -> None:
    assert [name for name, stage in STAGES.items() if "data/test" in stage.get("deps", [])] == [
        "evaluate"
    ]
    for name, stage in STAGES.items():
        if name.startswith("train"):
            assert [d for d in stage["deps"] if d.startswith(("data", "reports"))] == ["data/train"]


def test_every_stage_is_described_and_the_stages_are_these() -> None:
    trained = ["train_bn_l1", "train_gn", "train_ln"]
    assert list(STAGES) == ["download", *trained, "evaluate", "plot"]
    assert all(stage["desc"] for stage in STAGES.values())


def test_statistics_and_figures_do_not_import_torch() -> None:
    script = "import sys, stages.plot, normlab.statistics; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_the_lock_and_the_reports_match_the_code_and_the_parameters() -> None:
    """Nothing has changed since the committed run; in a fresh clone, cached outputs are absent."""
    locked = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]
    assert set(locked) == set(STAGES)
    files = [file for stage in locked.values() for file in stage.get("deps", []) + stage["outs"]]
    versions = {(file["path"], file["md5"]) for file in files}
    assert len(versions) == len({path for path, _ in versions}), "stages saw different versions"
    with Repo(str(ROOT)) as repo:
        status: dict[str, Any] = repo.status()
    changes = [
        (stage, path, state)
        for stage, entries in status.items()
        for entry in entries
        for kind in entry.values()
        for path, state in (kind.items() if isinstance(kind, dict) else [(kind, "changed")])
    ]
    cached, absent = ("data/", "models/"), {"deleted", "not in cache"}
    assert [c for c in changes if not (c[1].startswith(cached) and c[2] in absent)] == []


def test_the_readme_names_every_parameter_with_its_default() -> None:
    readme = (ROOT / "README.md").read_text()
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    for name in Params.model_fields:
        shown = json.dumps(values[name]).strip('"')
        assert f"| `{name}` | `{shown}` |" in readme, name


def test_the_readmes_headline_is_the_committed_result() -> None:
    readme = (ROOT / "README.md").read_text()
    metrics = json.loads((ROOT / "reports/metrics.json").read_text())
    for variant in ("bn_l1", "gn", "ln"):
        m = metrics[variant]
        interval = f"{m['accuracy_low']:.2%} … {m['accuracy_high']:.2%}"
        row = f"| {m['accuracy']:.2%} | {interval} | {m['loss']:.4f} | {m['parameters']:,} |"
        assert row.replace("%", " %") in readme
    for pair in ("bn_l1_vs_gn", "bn_l1_vs_ln", "gn_vs_ln"):
        m = metrics[pair]
        points = [f"{100 * m[key]:+.2f}" for key in ("difference", "low", "high")]
        row = f"| {points[0]} | {points[1]} … {points[2]} | {m['verdict']} |"
        assert row.replace("-", "\N{MINUS SIGN}") in readme


def test_the_lock_file_of_requirements_is_hashed_and_names_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    pins = re.findall(r"^([a-z0-9-]+)==.*?((?:\n    --hash=sha256:[0-9a-f]{64}.*)+)", text, re.M)
    assert len(pins) == len(re.findall(r"^\S", text, re.M)) - len(re.findall(r"^#", text, re.M))
    assert {"torch", "torchvision", "dvc", "uv"} <= {name for name, _ in pins}


def test_actions_are_pinned_by_commit() -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    uses = re.findall(r"uses: (\S+)", workflow)
    assert uses
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in uses)

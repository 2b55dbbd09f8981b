"""What SECURITY.md says of the code and has no test elsewhere."""

import ast
import re
from pathlib import Path

from tests.pipeline.test_project import imported

ROOT = Path(__file__).parents[1]
CODE = [file for folder in ("normlab", "stages", "tools") for file in (ROOT / folder).rglob("*.py")]
# Modules that read objects from bytes, and so may run code, and functions of others that do.
MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
FUNCTIONS = {("np", "load"), ("pd", "read_pickle"), ("torch", "load"), ("yaml", "unsafe_load")}


def test_nothing_is_unpickled_but_checked_arrays_and_what_a_run_sends_to_itself() -> None:
    found = {
        (str(file.relative_to(ROOT)), module)
        for file in CODE
        for module in {name.split(".")[0] for name in imported(file)} & MODULES
    }
    others = {one for one in found if not one[0].startswith("normlab/training/")}
    assert others == {("normlab/data/sources.py", "pickle")}
    assert {module for _, module in found - others} == {"cloudpickle"}
    calls = {
        (node.value.id, node.attr)
        for file in CODE
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert calls & FUNCTIONS == set()


def test_packages_are_installed_by_hash_but_where_their_hashes_are_found() -> None:
    text = (ROOT / "Makefile").read_text().replace("\\\n", "")
    targets = re.findall(r"(?m)^([\w$()-]+)[^\n=]*:[^=\n]*\n((?:\t[^\n]*\n)+)", text)
    without = [
        (target, line.strip())
        for target, recipe in targets
        for line in recipe.splitlines()
        if "pip install" in line and "--require-hashes" not in line
    ]
    assert [target for target, _ in without] == ["lock"]
    assert len(re.findall("pip install .*--require-hashes", text)) >= 3

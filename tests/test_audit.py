"""What the lock files hold: known vulnerabilities, a bill of materials, newer versions."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from normlab.params import mapping
from tests.pipeline.copies import link_environment, make
from tools import audit

ROOT = Path(__file__).parents[1]
FIXED = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}
AFFECTED = [{"package": {"name": "one", "ecosystem": "PyPI"}, "ranges": [FIXED]}]
ANSWERS = {("one", "1.1"): {"vulns": [{"id": "GHSA-1", "summary": "Bad", "affected": AFFECTED}]}}
LOCK = """\
one==1.0 ; python_full_version < '3.0' \\
    --hash=sha256:{0}
one==1.1 ; sys_platform == 'never' \\
    --hash=sha256:{0}
two==3.0 \\
    --hash=sha256:{0}
    # via one
""".format("0" * 64)


class Database(BaseHTTPRequestHandler):
    """Answers as the database OSV does, from `ANSWERS`; of what is not there it knows nothing."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = ANSWERS.get((asked["package"]["name"], asked["version"]), {})
        body = json.dumps(answer).encode()
        self.send_response(500 if self.path == "/broken" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Database)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def audited(folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.audit"]
    environment = {**os.environ, "OSV_URL": url, "PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_known_vulnerability_fails_and_is_named(tmp_path: Path, database: str) -> None:
    (tmp_path / "requirements.lock").write_text(LOCK)
    (tmp_path / "requirements-dev.lock").write_text(LOCK.replace("one==1.1", "one==1.2"))
    done = audited(tmp_path, database)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "one 1.1: GHSA-1, fixed in 2.0",
        "4 packages in 2 lock files: 1 known vulnerabilities",
    ]
    (tmp_path / "requirements.lock").unlink()
    done = audited(tmp_path, database)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "3 packages in 1 lock files: 0 known vulnerabilities\n"


def test_no_answer_is_not_taken_for_a_no(tmp_path: Path, database: str) -> None:
    (tmp_path / "requirements.lock").write_text(LOCK)
    for url in ("http://127.0.0.1:9", f"{database}/broken"):
        done = audited(tmp_path, url)
        assert (done.returncode, done.stdout) == (1, "")
        line = r"error: not audited, nothing is known of the packages: \S.*\n"
        assert re.fullmatch(line, done.stderr), done.stderr
    (tmp_path / "requirements.lock").write_text("")
    done = audited(tmp_path, database)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: requirements*.lock: got no packages, allowed: ")


def test_the_bill_of_materials_is_that_of_the_lock_and_of_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    locks = [path.name for path in ROOT.glob("requirements*.lock")]
    for name in ("Makefile", "pyproject.toml", "README.md", "tools/supported.py", *locks):
        shutil.copy(ROOT / name, tmp_path / name)
    link_environment(tmp_path)
    made = make(tmp_path, "sbom")
    assert made.returncode == 0, made.stderr  # the tool holds what it writes to the schema
    bill = json.loads((tmp_path / "build/sbom.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "normlab"
    lock = (ROOT / "requirements.lock").read_text()
    parts = bill["components"]
    assert sorted((p["name"], p["version"]) for p in parts) == sorted(audit.PIN.findall(lock))
    assert all(p["purl"].startswith(f"pkg:pypi/{p['name']}@{p['version']}") for p in parts)
    hashes = [h for p in parts for r in p["externalReferences"] for h in r["hashes"]]
    assert {h["content"] for h in hashes} == set(re.findall(r"sha256:(\w+)", lock))
    # Nothing of it is of a day or of a run.
    assert {"serialNumber", "timestamp"} & {*bill, *bill["metadata"]} == set()


def test_dependabot_looks_after_actions_and_packages_once_a_week() -> None:
    updates = {
        one["package-ecosystem"]: one for one in mapping(ROOT / ".github/dependabot.yml")["updates"]
    }
    assert set(updates) == {"github-actions", "uv"}
    for one in updates.values():
        assert (one["directory"], one["schedule"]) == ("/", {"interval": "weekly"})
        (group,) = one["groups"].values()
        assert group == {"patterns": ["*"]}

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from normlab.network import compiled
from tests.network import harness


@pytest.fixture(scope="session")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> harness.Run:
    """What does the work of `library.run` on an emulated arm64 processor."""
    if not shutil.which("qemu-aarch64"):
        pytest.skip("needs qemu-aarch64, of Debian's qemu-user")
    compiler = (*harness.ZIG, "-target", "aarch64-linux-musl", "-static")
    folder = tmp_path_factory.mktemp("arm64")
    return harness.runner(folder, compiled.ARM64, compiler, ["qemu-aarch64"])


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """A cache folder and a temporary folder in a place that others can reach but not change."""
    with tempfile.TemporaryDirectory(prefix="normlab-test-") as folder:
        home, temporary = Path(folder) / "home", Path(folder) / "tmp"
        Path(folder).chmod(0o755)
        home.mkdir(0o755)
        temporary.mkdir()
        temporary.chmod(0o1777)
        monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        yield home / "cache/normlab", temporary / f"normlab-{os.getuid()}"

"""Where the compiled library is kept, and whom it is trusted from."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from normlab.errors import InputError
from normlab.network import compiled
from tests.network.answer import OTHER, SOURCE, answer, libraries

NOBODY = 65534

as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user as well")


def plant(folder: Path) -> None:
    """Put another library, with its hash, under the name of the right one."""
    assert answer() == 42
    (library,) = libraries(folder)
    made = subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", *compiled.FLAGS, "-xc", "-", "-o", library],
        input=OTHER.encode(),
        check=True,
    )
    assert made.returncode == 0
    command = f"sha256sum {library} | cut -c1-64 | tr -d '\\n' > {library.with_suffix('.sha256')}"
    subprocess.run(["sh", "-c", command], check=True)


def test_a_folder_that_others_may_write_to_is_not_used(places: tuple[Path, Path]) -> None:
    plant(places[0])
    for mode in (0o777, 0o770, 0o722):
        places[0].chmod(mode)
        assert answer() == 42
        assert libraries(places[1])
    places[0].chmod(0o700)
    places[0].parent.chmod(0o777)
    assert answer() == 42


def test_a_symbolic_link_is_not_followed(places: tuple[Path, Path]) -> None:
    plant(places[0])
    (library,) = libraries(places[0])
    elsewhere = places[0].parent / "elsewhere"
    places[0].rename(elsewhere)
    places[0].symlink_to(elsewhere)
    assert answer() == 42
    assert libraries(places[1])
    places[0].unlink()
    places[0].mkdir(0o700)
    for suffix in (".so", ".sha256"):
        (places[0] / library.name).with_suffix(suffix).symlink_to(
            (elsewhere / library.name).with_suffix(suffix)
        )
    assert answer() == 42
    assert not libraries(places[0])[0].is_symlink()


@as_root
def test_what_another_user_put_there_is_not_used(places: tuple[Path, Path]) -> None:
    plant(places[0])
    (library,) = libraries(places[0])
    os.chown(library, NOBODY, NOBODY)
    assert answer() == 42
    assert library.stat().st_uid == 0
    plant(places[0])
    library.chmod(0o666)
    assert answer() == 42
    plant(places[0])
    os.chown(places[0], NOBODY, NOBODY)
    assert answer() == 42
    assert libraries(places[1])


@as_root
def test_another_user_cannot_take_the_place_in_the_temporary_folder(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    places[0].parent.write_text("no folder")
    subprocess.run(["mkdir", "-m", "777", places[1]], user=NOBODY, check=True)
    with pytest.raises(InputError) as refused:
        answer()
    line = str(refused.value)
    assert "\n" not in line
    assert f"{places[0]}: " in line
    assert f"{places[1]}: {places[1]} belongs to another user" in line
    assert "XDG_CACHE_HOME or TMPDIR" in line
    monkeypatch.setattr(tempfile, "tempdir", str(places[0].parent.parent))
    assert answer() == 42


@as_root
def test_another_user_has_a_library_of_their_own(places: tuple[Path, Path]) -> None:
    assert answer() == 42
    script = (
        "from normlab.network import compiled; import tempfile;"
        f"print(compiled.load({SOURCE!r}, compiled.processor()).answer())"
    )
    root = Path(__file__).parents[2]
    readable = all(p.stat().st_mode & 0o005 for p in (root, *root.parents, Path(sys.prefix)))
    interpreter = Path(sys.executable).resolve()
    if not readable or not all(p.stat().st_mode & 0o001 for p in interpreter.parents):
        pytest.skip("another user cannot read this project or its Python")
    done = subprocess.run(
        [sys.executable, "-c", script],
        user=NOBODY,
        cwd="/",
        env={**os.environ, "HOME": "/nonexistent", "TMPDIR": str(places[1].parent)}
        | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("42\n", 0), done.stderr
    assert libraries(places[1].parent / f"normlab-{NOBODY}")


@pytest.mark.parametrize("home", ["a file", "a pipe", "nothing"])
def test_the_temporary_folder_is_the_second_choice(
    places: tuple[Path, Path], home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    where = places[0].parent / "no-home"
    places[0].parent.mkdir()
    if home == "a file":
        where.write_text("")
    if home == "a pipe":
        os.mkfifo(where)
    if home == "nothing":
        where = Path("/proc/nothing")
    monkeypatch.setenv("HOME", str(where))
    assert answer() == 42
    assert libraries(places[1])


@as_root
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
@pytest.mark.parametrize(("options", "reason"), [("noexec", "failed to map"), ("size=16k", "")])
def test_a_folder_without_execution_or_space_is_left_for_the_next(
    places: tuple[Path, Path], options: str, reason: str
) -> None:
    cache, temporary = places
    cache.parent.mkdir()
    script = (
        "import sys; from normlab.network import compiled\n"
        f"try: print(compiled.load({SOURCE!r}, compiled.processor()).answer())\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = os.environ | {
        "XDG_CACHE_HOME": str(cache.parent),
        "TMPDIR": str(temporary.parent),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }

    def mounted(*folders: Path) -> str:
        mounts = "; ".join(f"mount -t tmpfs -o {options} none {folder}" for folder in folders)
        command = ["unshare", "-m", "sh", "-ec", f'{mounts}; exec "$0" -c "$1"']
        done = subprocess.run(
            [*command, sys.executable, script],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if "unshare" in done.stderr or "mount" in done.stderr:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        return done.stdout

    assert mounted(cache.parent) == "42\n"
    refused = mounted(cache.parent, temporary.parent)
    assert refused.startswith("InputError engine: cannot be compiled and loaded here (")
    assert refused.count("\n") == 1
    assert reason in refused

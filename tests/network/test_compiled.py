"""Where the compiled library lives, and whom it is trusted from."""

import ctypes
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from normlab.errors import InputError
from normlab.network import compiled

SOURCE = "int answer(void) { return 42; }\n"
PLANTED = "int answer(void) { return 666; }\n"
NOBODY = 65534

as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user as well")


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


def answer() -> int:
    found: int = compiled.load(SOURCE, compiled.processor()).answer()
    return found


def libraries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.so"))


def test_it_is_compiled_once_into_the_users_cache(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answer() == 42
    (library,) = libraries(places[0])
    assert sorted(p.suffix for p in places[0].iterdir()) == [".sha256", ".so"]
    assert stat.S_IMODE(places[0].stat().st_mode) == 0o700
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert answer() == 42
    assert libraries(places[0]) == [library]
    assert not places[1].exists()


@pytest.mark.parametrize("damage", ["empty", "truncated", "altered", "no hash", "other hash"])
def test_a_damaged_library_is_compiled_anew(places: tuple[Path, Path], damage: str) -> None:
    assert answer() == 42
    (library,) = libraries(places[0])
    content = library.read_bytes()
    hashed = library.with_suffix(".sha256")
    library.unlink()  # what is loaded stays as it is
    library.write_bytes(content)
    if damage == "empty":
        library.write_bytes(b"")
    if damage == "truncated":
        library.write_bytes(content[:-100])
    if damage == "altered":
        library.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    if damage == "no hash":
        hashed.unlink()
    if damage == "other hash":
        hashed.write_bytes(b"\xff\xfe")
    assert answer() == 42
    assert library.read_bytes() == content
    assert len(hashed.read_text()) == 64


def plant(folder: Path) -> None:
    """Put another library, with its hash, under the name of the right one."""
    assert answer() == 42
    (library,) = libraries(folder)
    made = subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", *compiled.FLAGS, "-xc", "-", "-o", library],
        input=PLANTED.encode(),
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


def test_a_compiler_that_does_not_end_is_given_up(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "SECONDS", 0.001)
    with pytest.raises(InputError, match=r"the compiler did not end within 0.001 s"):
        answer()
    assert not libraries(places[0])
    assert not any(path.is_dir() for path in places[0].iterdir())


def test_a_source_that_does_not_compile_is_one_line(places: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=r"^engine: cannot be compiled: engine\.c:1:.*error"):
        compiled.load("not C", compiled.processor())
    assert not libraries(places[0])


def test_a_compilation_that_was_killed_leaves_nothing_that_matters(
    places: tuple[Path, Path],
) -> None:
    places[0].mkdir(0o700, parents=True)
    (places[0] / "tmpabc").mkdir()
    (places[0] / "tmpabc/engine.so").write_bytes(b"half")
    assert answer() == 42


def test_several_processes_may_compile_at_once(places: tuple[Path, Path]) -> None:
    script = (
        "from normlab.network import compiled;"
        f"print(compiled.load({SOURCE!r}, compiled.processor()).answer())"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(4)
    ]
    assert [process.communicate()[0] for process in processes] == ["42\n"] * 4
    assert len(libraries(places[0])) == 1
    assert len(list(places[0].iterdir())) == 2


def test_another_kind_of_machine_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(InputError, match=r"^engine: got a riscv64 processor, allowed: x86-64 or"):
        compiled.processor()


@pytest.mark.parametrize(
    ("absent", "expected"),
    [
        ((), compiled.AVX512),
        (("avx512_dq",), compiled.AVX2),
        (("avx512_f", "avx2"), compiled.X86_64),
        (("fma3",), compiled.X86_64),
    ],
)
def test_the_processor_is_what_all_of_its_instructions_say(
    absent: tuple[str, ...], expected: compiled.Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("avx2", "fma3", *(f"avx512_{name}" for name in ("f", "vl", "dq", "bw")))
    found = {name: name not in absent for name in names}
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: found)
    assert compiled.processor() == expected


@pytest.mark.parametrize("system", ["darwin", "linux"])
def test_every_target_is_compiled_for_by_name(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    magic = {"darwin": b"\xcf\xfa\xed\xfe", "linux": b"\x7fELF"}[system]
    for kind in (compiled.AVX512, compiled.AVX2, compiled.X86_64, compiled.ARM64):
        command = ["cc", "-target", compiled.target(kind), *kind.flags, *compiled.FLAGS]
        compiled._compile(SOURCE, command, tmp_path / f"{kind.name}.so")
        assert (tmp_path / f"{kind.name}.so").read_bytes().startswith(magic)


def test_the_library_is_that_of_its_source() -> None:
    assert isinstance(compiled.load(SOURCE, compiled.processor()), ctypes.CDLL)
    assert compiled.load(PLANTED, compiled.processor()).answer() == 666

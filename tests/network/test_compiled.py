"""A C source is compiled once, for the processor at hand, and whole or not at all."""

import ctypes
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from normlab.errors import InputError
from normlab.network import compiled
from tests.network.answer import OTHER, SOURCE, answer, libraries


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


def test_a_compiler_that_does_not_end_is_given_up(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "TIMEOUT", 0.001)
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
    assert compiled.load(OTHER, compiled.processor()).answer() == 666

"""What tests of the engine share: kinds of processor, plans, and the engine as a program."""

import ctypes
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from normlab.network import compiled, library, plans
from normlab.network.architecture import REFERENCE
from normlab.network.compiled import Processor

NATIVE = compiled.processor()
KINDS = [
    kind
    for kind in (compiled.AVX512, compiled.AVX2, compiled.X86_64, compiled.ARM64)
    if kind == NATIVE
    or (NATIVE.name != "arm64" and kind.width < NATIVE.width and kind.registers == 16)
]
"""What this processor can run: its own kind and those before it."""

ZIG = (sys.executable, "-m", "ziglang", "cc")
FLAGS = [flag for flag in compiled.FLAGS if flag not in ("-shared", "-nostdlib", "-ffreestanding")]
FUNCTIONS = ("train", "predict", "score", "operate")
HERE = Path(__file__).parent
ARRAYS = [n for n, kind in library.MEMBERS.items() if kind.endswith("*") and n != "memory"]
OPERATIONS = (HERE / "operations.c").read_text()

Run = Callable[[str, plans.Plan, Any], None]
"""As `library.run`."""


def use(kind: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine take this machine for one of another kind."""
    monkeypatch.setattr(compiled, "processor", lambda: kind)


def plan_of(network: nn.Sequential, side: int = 28) -> plans.Plan:
    found = plans.plan(network, REFERENCE._replace(side=side))
    assert isinstance(found, plans.Plan), found
    return found


def runner(
    folder: Path, kind: Processor, compiler: Sequence[str] = ZIG, emulator: Sequence[str] = ()
) -> Run:
    """Give what does the work of `library.run` by a program that is built in `folder`."""

    @cache
    def program(source: str) -> Path:
        return build(source, folder, kind, compiler)

    def run(function: str, plan: plans.Plan, job: Any) -> None:
        arrays = [job.arrays.get(name) for name in ARRAYS]
        content = [np.int64(FUNCTIONS.index(function)).tobytes(), bytes(job)]
        for array in arrays:
            size = -1 if array is None else array.nbytes
            content += [np.int64(size).tobytes(), b"" if array is None else array.tobytes()]
        (folder / "in").write_bytes(b"".join(content))
        built = program(library.source(plan, kind))
        subprocess.run([*emulator, built, folder / "in", folder / "out"], check=True)
        result = (folder / "out").read_bytes()
        done = type(job).from_buffer_copy(result)
        job.loss, job.correct = done.loss, done.correct
        at = ctypes.sizeof(job)
        for array in arrays:
            if array is not None:
                array[...] = np.frombuffer(result, array.dtype, array.size, at).reshape(array.shape)
                at += array.nbytes
        assert at == len(result)

    return run


def build(engine: str, folder: Path, kind: Processor, compiler: Sequence[str]) -> Path:
    """Build a program of the engine's source, operations.c and harness.c."""
    number = len(list(folder.glob("*.c")))
    source, built = folder / f"{number}.c", folder / f"{number}"
    each = " ".join(f"DO({i}, {name})" for i, name in enumerate(ARRAYS))
    source.write_text(
        f"{engine}\n#define ARRAYS {len(ARRAYS)}\n#define FOR_EACH_ARRAY(DO) {each}\n"
        f"{OPERATIONS}{(HERE / 'harness.c').read_text()}"
    )
    flags = [*kind.flags, *FLAGS, "-Wno-psabi"]
    subprocess.run([*compiler, *flags, source, "-o", built], check=True)
    return built

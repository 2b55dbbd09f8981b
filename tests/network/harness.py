"""The engine as a program of its own, by any compiler, for any processor."""

import ctypes
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from normlab.network import compiled, engine, plans, tiles
from normlab.network.compiled import Processor

ZIG = (sys.executable, "-m", "ziglang", "cc")
FLAGS = [flag for flag in compiled.FLAGS if flag not in ("-shared", "-nostdlib", "-ffreestanding")]
FUNCTIONS = ("train", "predict", "score", "operate")
HERE = Path(__file__).parent
ARRAYS = [n for n, kind in engine.MEMBERS.items() if kind.endswith("*") and n != "memory"]
OPERATIONS = (HERE / "operations.c").read_text()


def runner(
    folder: Path, kind: Processor, compiler: Sequence[str] = ZIG, emulator: Sequence[str] = ()
) -> Callable[[str, plans.Plan, Any], None]:
    """Give what does `engine.run`'s work by a program built in `folder`."""

    @cache
    def program(text: str) -> Path:
        number = len(list(folder.glob("*.c")))
        source, built = folder / f"{number}.c", folder / f"{number}"
        each = " ".join(f"DO({i}, {name})" for i, name in enumerate(ARRAYS))
        source.write_text(
            f"{text}\n#define ARRAYS {len(ARRAYS)}\n"
            f"#define EACH_ARRAY(DO) {each}\n{OPERATIONS}{(HERE / 'harness.c').read_text()}"
        )
        command: list[str | Path] = [
            *compiler,
            *kind.flags,
            *FLAGS,
            "-Wno-psabi",
            source,
            "-o",
            built,
        ]
        subprocess.run(command, check=True)
        return built

    def run(name: str, found: plans.Plan, job: Any) -> None:
        built, held = program(tiles.source(found, kind, engine.MEMBERS)), job.held
        content = [np.int64(FUNCTIONS.index(name)).tobytes(), bytes(job)]
        for array in (held.get(name) for name in ARRAYS):
            size = -1 if array is None else array.nbytes
            content += [np.int64(size).tobytes(), b"" if array is None else array.tobytes()]
        (folder / "in").write_bytes(b"".join(content))
        subprocess.run([*emulator, built, folder / "in", folder / "out"], check=True)
        result = (folder / "out").read_bytes()
        done = type(job).from_buffer_copy(result)
        job.loss, job.correct = done.loss, done.correct
        at = ctypes.sizeof(job)
        for name in ARRAYS:
            if (array := held.get(name)) is not None:
                array[...] = np.frombuffer(result, array.dtype, array.size, at).reshape(array.shape)
                at += array.nbytes
        assert at == len(result)

    return run

"""The engine as a program of its own, by any compiler, for any processor."""

import ctypes
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from normlab import compiled, engine
from normlab.compiled import Processor

ZIG = (sys.executable, "-m", "ziglang", "cc")
FLAGS = [flag for flag in compiled.FLAGS if flag not in ("-shared", "-nostdlib", "-ffreestanding")]
FUNCTIONS = ("train", "predict", "score", "operate")
HERE = Path(__file__).parent
OPERATIONS = (HERE / "operations.c").read_text()


def runner(
    folder: Path, kind: Processor, compiler: Sequence[str] = ZIG, emulator: Sequence[str] = ()
) -> Callable[[str, engine.Plan, engine.Job], None]:
    """Give what does `engine._run`'s work by a program built in `folder`."""

    @cache
    def program(shapes: engine.Plan) -> Path:
        number = len(list(folder.glob("*.c")))
        source, built = folder / f"{number}.c", folder / f"{number}"
        names = list(engine.POINTERS_TO_ARRAYS)
        each = " ".join(f"DO({i}, {name})" for i, name in enumerate(names))
        source.write_text(
            f"{engine.source(shapes, kind)}\n#define ARRAYS {len(names)}\n"
            f"#define EACH_ARRAY(DO) {each}\n{OPERATIONS}{(HERE / 'harness.c').read_text()}"
        )
        command = [*compiler, *kind.flags, *FLAGS, "-Wno-psabi", source, "-o", built]
        subprocess.run(command, check=True)
        return built

    def run(name: str, found: engine.Plan, job: engine.Job) -> None:
        shapes = tuple(layer._replace(norm=0, groups=0) for layer in found.layers)
        built = program(found._replace(layers=shapes, parameters=(), statistics=()))
        held = getattr(job, "held", {})
        content = [np.int64(FUNCTIONS.index(name)).tobytes(), bytes(job)]
        for array in (held.get(name) for name in engine.POINTERS_TO_ARRAYS):
            size = -1 if array is None else array.nbytes
            content += [np.int64(size).tobytes(), b"" if array is None else array.tobytes()]
        (folder / "in").write_bytes(b"".join(content))
        subprocess.run([*emulator, built, folder / "in", folder / "out"], check=True)
        result = (folder / "out").read_bytes()
        done = engine.Job.from_buffer_copy(result)
        job.loss, job.correct = done.loss, done.correct
        at = ctypes.sizeof(engine.Job)
        for name in engine.POINTERS_TO_ARRAYS:
            if (array := held.get(name)) is not None:
                array[...] = np.frombuffer(result, array.dtype, array.size, at).reshape(array.shape)
                at += array.nbytes
        assert at == len(result)

    return run

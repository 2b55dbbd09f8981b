"""A C source, compiled once for this user and kind of processor, and loaded.

The compiler is a locked package, reads no header of the system and knows its target by name, so
what is installed beside it does not matter. The library stays in the user's cache folder or, where
that cannot be used, in the temporary folder; it is loaded only if nobody else can have put it there
and it is, byte for byte, what was compiled.
"""

import ctypes
import hashlib
import os
import platform
import stat
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import platformdirs
import torch

from normlab.errors import InputError

FLAGS = (
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-strict-aliasing",
    "-ffreestanding",
    "-nostdlib",
    "-fPIC",
    "-shared",
    "-g0",
)
TIMEOUT = 600
"""Seconds until a compiler that does not return is given up: emulated, it may take minutes."""


class Processor(NamedTuple):
    """What the compiler has to know of a processor."""

    name: str
    flags: tuple[str, ...]
    width: int
    """float32 values in a vector register."""
    registers: int
    """Vector registers."""


AVX512 = Processor(
    "AVX-512",
    (
        "-mavx2",
        "-mfma",
        "-mavx512f",
        "-mavx512vl",
        "-mavx512dq",
        "-mavx512bw",
        "-mprefer-vector-width=512",
    ),
    width=16,
    registers=32,
)
AVX2 = Processor("AVX2", ("-mavx2", "-mfma"), width=8, registers=16)
X86_64 = Processor("x86-64", (), width=4, registers=16)
ARM64 = Processor("arm64", (), width=4, registers=32)


def processor() -> Processor:
    """Find the kind of the processor this runs on.

    Raises
    ------
    InputError
        If it is none that the engine is written for.
    """
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        return ARM64
    if machine not in ("x86_64", "amd64"):
        raise InputError(
            f"engine: got a {machine} processor, allowed: x86-64 or arm64 (or device: cuda)"
        )
    found = torch.cpu.get_capabilities()
    if all(found.get(f"avx512_{name}") for name in ("f", "vl", "dq", "bw")) and found.get("fma3"):
        return AVX512
    return AVX2 if found.get("avx2") and found.get("fma3") else X86_64


def target(kind: Processor) -> str:
    """Name the system to compile for, as `x86_64-linux-gnu`, for `kind` on this system."""
    machine = "aarch64" if kind is ARM64 else "x86_64"
    return f"{machine}-macos" if sys.platform == "darwin" else f"{machine}-linux-gnu"


def load(source: str, kind: Processor) -> ctypes.CDLL:
    """Load the library of a C source, compiling it unless that has been done.

    Parameters
    ----------
    source
        C, which may use the headers that come with a compiler and no others.
    kind
        Of processor: one that this machine has.

    Raises
    ------
    InputError
        If no place lets the library be compiled, kept and loaded; one line that names each place
        and what is wrong with it.
    """
    command = ["cc", "-target", target(kind), *kind.flags, *FLAGS]
    made_of = "\0".join([source, *command, version("ziglang")])
    name = f"{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    refused = []
    for place in _places():
        try:
            folder = _private(place)
            if not _intact(folder / name):
                _compile(source, command, folder / name)
            return ctypes.CDLL(str(folder / name))
        except _CompileError as error:
            raise InputError(f"engine: cannot be compiled: {error}") from None
        except OSError as error:
            reason = error.strerror or str(error).splitlines()[0]
            refused.append(f"{place}: {reason}")
    raise InputError(
        f"engine: cannot be compiled and loaded here ({'; '.join(refused)}), allowed: a folder of "
        "your own, writable by nobody else, that programs may run from, named by XDG_CACHE_HOME or "
        "TMPDIR (or device: cuda)"
    )


class _CompileError(Exception):
    pass


def _places() -> list[Path]:
    owner = f"normlab-{os.getuid()}"
    return [Path(platformdirs.user_cache_dir("normlab")), Path(tempfile.gettempdir()) / owner]


def _private(place: Path) -> Path:
    """Make a folder, unless it is there, and see that nobody else can change what is in it.

    Raises
    ------
    OSError
        If it cannot be made, or another user could have put something there: it or a folder above
        it belongs to another, or others may write to it (above, that is well where they may not
        take away what is not theirs, as in /tmp).
    """
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if place.is_symlink():
        raise OSError("is a symbolic link")
    folder = place.resolve(strict=True)
    for one in (folder, *folder.parents):
        found = one.stat()
        if found.st_uid not in (0, os.getuid()) or (one == folder and found.st_uid != os.getuid()):
            raise OSError(f"{one} belongs to another user")
        sticky = one != folder and found.st_mode & stat.S_ISVTX
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
            raise OSError(f"others may write to {one}")
    return folder


def _intact(library: Path) -> bool:
    """Whether a library is a file of ours, whole, as its hash beside it says."""
    try:
        for path in (library, _hash_of(library)):
            found = path.lstat()
            ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()
            if not ours or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return False
        content = library.read_bytes()
        return _hash_of(library).read_text() == hashlib.sha256(content).hexdigest()
    except (FileNotFoundError, UnicodeDecodeError):
        return False


def _hash_of(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _compile(source: str, command: list[str], library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        # The compiler keeps a cache, at home unless it is told otherwise.
        caches = dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), scratch)
        (Path(scratch) / "engine.c").write_text(source)
        try:
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-m", "ziglang", *command, "engine.c", "-o", "engine.so"],
                cwd=scratch,
                env=os.environ | caches,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"the compiler did not end within {TIMEOUT} s") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            line = next((text for text in said if "error" in text), said[-1] if said else "")
            # Where the source is at fault another folder will not help.
            if "engine.c:" in line:
                raise _CompileError(line)
            raise OSError(f"the compiler said: {line or f'exit code {done.returncode}'}")
        content = (Path(scratch) / "engine.so").read_bytes()
        (Path(scratch) / "hash").write_text(hashlib.sha256(content).hexdigest())
        (Path(scratch) / "engine.so").chmod(0o700)
        (Path(scratch) / "hash").chmod(0o600)
        (Path(scratch) / "engine.so").replace(library)
        (Path(scratch) / "hash").replace(_hash_of(library))

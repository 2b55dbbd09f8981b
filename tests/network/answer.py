"""The smallest library there is, whose function answers 42, for tests of where it is kept."""

from pathlib import Path

from normlab.network import compiled

SOURCE = "int answer(void) { return 42; }\n"
OTHER = "int answer(void) { return 666; }\n"


def answer() -> int:
    found: int = compiled.load(SOURCE, compiled.processor()).answer()
    return found


def libraries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.so"))

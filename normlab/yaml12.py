"""YAML as DVC reads it: version 1.2, where `1e-4` is a number and `no` a word.

PyYAML's fast loader with the scalars of YAML 1.2 (chapter 10.3.2 of its specification, and what
ruamel.yaml, which DVC uses, takes beside them). What a file of parameters needs nothing of, and
somebody could do harm with, is refused before anything is made of it: tags, an anchor within
itself, keys that come twice, deep nesting, aliases that stand for more than the file could hold.
"""

import re
from collections.abc import Hashable
from typing import Any, ClassVar

import yaml

LARGEST = 2**20
"""Bytes of a file."""
DEEPEST = 50
"""Lists and mappings within each other."""
MOST = 100_000
"""Values, those of an anchor counted again wherever it is named."""
LONGEST = 100
"""Characters of a whole number."""

SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?0b[01_]+|[-+]?0o?[0-7_]+|[-+]?[0-9_]+|[-+]?0x[0-9a-fA-F_]+", "-+0123456789"),
    (
        "float",
        r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("merge", r"<<", "<"),
)


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads YAML 1.2 and refuses keys that come twice."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Make a dictionary of a mapping; a key that comes twice raises a `MarkedYAMLError`."""
        seen = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                problem = f"found duplicate key {key.value}"
                raise yaml.MarkedYAMLError(None, None, problem, key.start_mark)
            seen.add(name)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        """Make a whole number: decimal, or with 0b, 0o or 0x in another base."""
        text = self.construct_scalar(node).replace("_", "")
        if len(text) > LONGEST:
            problem = f"a number of {len(text):,} characters, allowed: at most {LONGEST}"
            raise yaml.MarkedYAMLError(None, None, problem, node.start_mark)
        based = re.match(r"[-+]?0[box]", text)
        return int(text, 0) if based else int(text)

    def construct_real(self, node: yaml.ScalarNode) -> float:
        """Make a number with a point or an exponent."""
        try:
            return float(super().construct_yaml_float(node))
        except ValueError:
            problem = f"not a number: {node.value}"
            raise yaml.MarkedYAMLError(None, None, problem, node.start_mark) from None


for name, pattern, first in SCALARS:
    resolver = re.compile(rf"^(?:{pattern})$")
    firsts = [*first, ""] if name == "null" else list(first)  # nothing at all is null too
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", resolver, firsts)
Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_whole)
Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_real)


def load(text: str) -> Any:
    """Read a document.

    Raises
    ------
    yaml.YAMLError
        If it is not YAML, or has what is refused.
    """
    _refuse(text)
    return yaml.load(text, Loader)  # noqa: S506  it is a safe loader


def _refuse(text: str) -> None:
    """Refuse what the events of a document tell of: tags, depth, and what aliases stand for."""
    sizes: dict[str | None, int] = {}
    collections: list[tuple[str | None, int]] = []  # those open: anchor, values before it
    count = 0
    event: Any
    for event in yaml.parse(text, Loader):
        problem, tag = None, getattr(event, "tag", None)
        anchor = getattr(event, "anchor", None)
        if tag not in (None, "!"):
            problem = f"a tag, {tag}, allowed: none"
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = collections.pop()
            sizes[anchor] = count - before
        elif isinstance(event, yaml.AliasEvent):
            if anchor in [name for name, _ in collections]:
                problem = f"*{anchor} within itself"
            count += sizes.get(anchor, 1)
        elif isinstance(event, yaml.NodeEvent):
            if isinstance(event, yaml.CollectionStartEvent):
                collections.append((anchor, count))
            else:
                sizes[anchor] = 1
            count += 1
        if len(collections) > DEEPEST:
            problem = f"nested more than {DEEPEST} deep"
        if count > MOST:
            problem = f"more than {MOST:,} values, those that aliases stand for among them"
        if problem:
            raise yaml.MarkedYAMLError(None, None, problem, event.start_mark)

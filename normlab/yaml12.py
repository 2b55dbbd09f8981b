"""YAML as DVC reads it: version 1.2, where `1e-4` is a number and `no` a word.

PyYAML's fast loader with the scalars of YAML 1.2 (chapter 10.3.2 of its specification, and what
ruamel.yaml, which DVC uses, takes beside them). What a file of parameters needs nothing of, and
somebody could do harm with, is refused: tags, an anchor within itself, keys that come twice.
"""

import re
from collections.abc import Hashable
from typing import Any, ClassVar

import yaml

LARGEST = 2**24
"""Characters."""

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
        based = re.match(r"[-+]?0[box]", text)
        return int(text, 0) if based else int(text)


for name, pattern, first in SCALARS:
    resolver = re.compile(rf"^(?:{pattern})$")
    firsts = [*first, ""] if name == "null" else list(first)  # nothing at all is null too
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", resolver, firsts)
Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_whole)


def load(text: str) -> Any:
    """Read a document.

    Raises
    ------
    yaml.YAMLError
        If it is not YAML, is larger than `LARGEST`, or has what is refused.
    """
    if len(text) > LARGEST:
        raise yaml.MarkedYAMLError(None, None, f"larger than {LARGEST:,} characters")
    _refuse(text)
    return yaml.load(text, Loader)  # noqa: S506  it is a safe loader


def _refuse(text: str) -> None:
    """Refuse tags, and aliases within what they name."""
    open_anchors: list[str | None] = []
    event: Any
    for event in yaml.parse(text, Loader):
        problem, tag = None, getattr(event, "tag", None)
        if tag not in (None, "!"):
            problem = f"a tag, {tag}, allowed: none"
        if isinstance(event, yaml.AliasEvent) and event.anchor in open_anchors:
            problem = f"*{event.anchor} within itself"
        if problem:
            raise yaml.MarkedYAMLError(None, None, problem, event.start_mark)
        if isinstance(event, yaml.CollectionStartEvent):
            open_anchors.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            open_anchors.pop()

"""YAML as people mean it, for files that they write: grids, tables and `dataset.yaml`.

YAML 1.1, which PyYAML reads, takes 010 for 8, 1e-4 and 1_16 for a text and a number, `no` and `on`
for bools, 1:30 for 90. Here values are those of YAML 1.2, and 010 is ten.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import yaml
from yaml.error import MarkedYAMLError

_VALUES = {
    "bool": r"true|True|TRUE|false|False|FALSE",
    "null": r"~|null|Null|NULL|",
    "int": r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
    "merge": r"<<",
}


def yaml_problem(error: Exception) -> str:
    """What is wrong with a text that is no YAML, and where, in one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:  # a character that no text may hold
        return str(getattr(error, "reason", error))
    said = str(problem).replace("'<stream end>'", "the end of the file")
    said = said.replace("found character '\\t' that cannot start any token", "a tab as indent")
    return f"{said} (line {mark.line + 1}, column {mark.column + 1})"


class _Loader(yaml.SafeLoader):
    """A loader with the values above."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML copies it for each class


def load_yaml(
    content: str,
    *,
    texts: Collection[str] = (),
    keys_are_texts: bool = False,
    check: Callable[[Any], None] = lambda node: None,
) -> Any:
    """What a YAML text says.

    Args:
        content: the text.
        texts: keys whose values are texts, whatever they look like: a label 1.50 stays so.
        keys_are_texts: the same for all keys.
        check: called with the tree of nodes, which still holds keys that stand twice.

    Raises:
        yaml.YAMLError: it is no YAML, a key is a list or a mapping, or an alias stands for what
            holds it.
    """
    loader = _Loader(content)
    try:
        node = loader.get_single_node()
        _refuse_odd(node, [])
        check(node)
        for mapping in _mappings(node):
            for key, value in mapping.value:
                if keys_are_texts:
                    _be_text(key)
                if key.value in texts:
                    _be_texts(value)
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_odd(node: Any, above: Sequence[Any]) -> None:
    """Raise a YAMLError where a key is no single value, or a node holds itself (`&a [*a]`)."""
    if node in above:
        raise MarkedYAMLError(problem="an alias stands for what holds it", problem_mark=_mark(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise MarkedYAMLError(problem="a key is one value", problem_mark=_mark(key))
            _refuse_odd(value, [*above, node])
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_odd(value, [*above, node])


def _mark(node: yaml.Node) -> yaml.Mark:
    mark: yaml.Mark = node.start_mark
    return mark


def _mappings(node: Any) -> Iterator[yaml.MappingNode]:
    """Every mapping of a tree."""
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from _mappings(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _mappings(value)


def _be_texts(node: Any) -> None:
    """Mark a value, the entries of a list, or the values of a mapping as texts."""
    for item in [node] if isinstance(node, yaml.ScalarNode) else node.value:
        _be_text(item[1] if isinstance(item, tuple) else item)


def _be_text(node: Any) -> None:
    if isinstance(node, yaml.ScalarNode) and not node.tag.endswith((":null", ":merge")):
        node.tag = "tag:yaml.org,2002:str"


def _whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(node.value, 0) if node.value[:2] in ("0x", "0o") else int(node.value)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(node.value.replace(".inf", "inf").replace(".nan", "nan"))


for _name, _pattern in _VALUES.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern})$"), None
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)

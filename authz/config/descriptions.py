"""Descriptions of keys: the docstrings below the fields of the models, read from the source files.

pydantic can read them itself (`use_attribute_docstrings`), but does so at import, which is a tenth of the time in which a node
starts. Only the published schema and the error for a missing key need them.
"""

import ast
import inspect
import sys
from functools import cache
from typing import Any, Final

from pydantic import BaseModel

__all__ = ["describe"]

_PACKAGE: Final = "authz.config"


def describe(schema: dict[str, Any], root: type[BaseModel]) -> None:
    """Add the descriptions of all keys that have none.

    Args:
        schema: JSON Schema of `root`, with a definition for each model that is named as the model. It is changed.
        root: The model.
    """
    models = {model.__name__: model for model in _models(BaseModel)}
    for name, definition in ((root.__name__, schema), *schema["$defs"].items()):
        if (model := models.get(name)) is None:
            continue
        docstrings = _docstrings(model)
        for key, value in definition.get("properties", {}).items():
            if key in docstrings:
                value.setdefault("description", docstrings[key])


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    below = [inner for child in model.__subclasses__() for inner in _models(child)]
    return [model, *below] if model.__module__.startswith(_PACKAGE) else below


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring of each field, also of inherited ones."""
    docstrings: dict[str, str] = {}
    for ancestor in reversed(model.__mro__):
        if ancestor.__module__.startswith(_PACKAGE):
            docstrings |= _docstrings_of_module(ancestor.__module__).get(ancestor.__name__, {})
    return docstrings


@cache
def _docstrings_of_module(module: str) -> dict[str, dict[str, str]]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return {node.name: _docstrings_of_class(node) for node in classes}


def _docstrings_of_class(node: ast.ClassDef) -> dict[str, str]:
    docstrings = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(docstring))),
            ):
                docstrings[name] = inspect.cleandoc(docstring)
    return docstrings

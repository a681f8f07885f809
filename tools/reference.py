"""What the reference shows of classes beside their methods: fields, with what the source says of them.

mkdocstrings inspects running objects, since public names are imported at their first use; those have forgotten the text
below a field. Settings have theirs from pydantic. mkdocs.yml names this file as an extension of Griffe.
"""

import ast
import inspect
import textwrap
from typing import Any

from griffe import Attribute, Class, Docstring, Extension


class Fields(Extension):
    """Adds the fields that have a text of their own, and leaves out those whose text is that of their value's type."""

    def on_class_members(self, *, node: Any, cls: Class, **_: Any) -> None:
        found = getattr(node, "obj", None)
        if not (inspect.isclass(found) and found.__module__.startswith("relin")):
            return
        for name, member in list(cls.members.items()):
            if not member.is_alias and member.is_attribute and "property" not in member.labels:
                cls.del_member(name)
        made = cls.members.get("__init__")
        if made is not None and not made.is_alias and inspect.getdoc(found.__init__) == inspect.getdoc(object.__init__):
            made.docstring = None
        for name, text in texts(found).items():
            if not name.startswith("_") and name not in cls.members:
                cls.set_member(name, Attribute(name, docstring=Docstring(text), runtime=True))


def texts(found: type) -> dict[str, str]:
    """The text of each field that a class defines itself, by name."""
    settings = {name: field.description or "" for name, field in getattr(found, "model_fields", {}).items()}
    if settings:
        inherited = {name for base in found.__bases__ for name in getattr(base, "model_fields", {})}
        return {name: text for name, text in settings.items() if text and name not in inherited}
    body = ast.parse(textwrap.dedent(inspect.getsource(found))).body[0]
    assert isinstance(body, ast.ClassDef)
    below = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                below[name] = inspect.cleandoc(words)
    return below

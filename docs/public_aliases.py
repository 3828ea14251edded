"""Shows `from x import A as A` on the API pages: that form makes a name public."""

import ast
from typing import Any

import griffe


class PublicAliases(griffe.Extension):
    """Marks alias re-exports as public for griffe, which reads without importing."""

    def on_module_members(
        self, *, node: ast.AST | griffe.ObjectNode, mod: griffe.Module, **_: Any
    ) -> None:
        """Called by griffe when a module has been read."""
        if not isinstance(node, ast.Module):
            return
        for statement in node.body:
            if isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    if alias.asname == alias.name and alias.name in mod.members:
                        mod.members[alias.name].public = True

"""Shapes that annotations name, checked by jaxtyping and beartype when a function is called; mypy checks the rest.

jaxtyping's own import hook checks every argument of every function, which is a fifth of the suite's time, and makes
all checks when modules are imported. This one checks functions and dataclasses with shapes, and makes a check when it
is first needed.
"""

import ast
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

import beartype
import jaxtyping

NAME = "_checked"


def checked(target: Any) -> Any:
    """A function that checks shapes of its arguments and result, or a dataclass that checks those of its fields."""
    if not isinstance(target, type):
        return _checked_function(target) if _has_shapes(target) else target
    if dataclasses.is_dataclass(target) and _has_shapes(target):
        target.__init__ = _checked_function(target.__init__)  # type: ignore[misc]
    return target


def _has_shapes(target: Any) -> bool:
    return any("jaxtyping." in repr(hint) for hint in target.__annotations__.values())


def _checked_function(function: Callable[..., Any]) -> Callable[..., Any]:
    check: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal check
        if check is None:
            check = jaxtyping.jaxtyped(beartype.beartype(function), typechecker=None)
        return check(*arguments, **named)

    return call


class _Decorating(ast.NodeTransformer):
    """Functions are decorated before all else, classes after all else: dataclass has written `__init__` by then."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list.append(_decorator(node))
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list.insert(0, _decorator(node))
        return self.generic_visit(node)


def _decorator(node: ast.AST) -> ast.expr:
    return ast.copy_location(ast.Name(NAME, ast.Load()), node)


class _Loader(SourceFileLoader):
    """Bytecode is kept under a name of its own."""

    def source_to_code(self, data: Any, path: Any, *, _optimization: int = -1) -> Any:  # type: ignore[override]
        tree = _Decorating().visit(ast.parse(data, path))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimization)

    def get_data(self, path: str) -> bytes:
        return super().get_data(_kept_at(path))

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        super().set_data(_kept_at(path), data, _mode=_mode)  # type: ignore[call-arg]

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__[NAME] = checked
        super().exec_module(module)


def _kept_at(path: str) -> str:
    return path.removesuffix(".pyc") + ".checked.pyc" if path.endswith(".pyc") else path


class _Finder(MetaPathFinder):
    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = tuple(f"{package}." for package in packages)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module as it would be found otherwise, to be loaded with checks."""
        if not name.startswith(self._packages):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install(*packages: str) -> None:
    """Check every function and dataclass in the modules of these packages that are imported from now on."""
    sys.meta_path.insert(0, _Finder(packages))

"""Small wrong changes to a module's syntax tree, one at a time: the mutants of scripts/mutants.py.

Changed are comparisons, arithmetic, constants, boolean operators and conditions, bounds of slices, dtypes and casts,
pairs of opposite functions; removed are calls, assignments to attributes and items, `raise`, `continue` and `break`.
What is only text is left alone: docstrings, strings, annotations, messages of errors and notes, `__repr__`.
"""

import ast
import builtins
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_PAIRS = [
    ("min", "max"),
    ("amin", "amax"),
    ("argmin", "argmax"),
    ("any", "all"),
    ("sum", "mean"),
    ("floor", "ceil"),
    ("zeros", "ones"),
    ("float32", "float16"),
    ("float64", "float32"),
    ("int64", "int32"),
]
_NAMES = {**{b: a for a, b in _PAIRS}, **dict(_PAIRS), "sorted": "list"}
_BUILTINS = {"min", "max", "any", "all", "sorted"}
_CASTS = {"float", "double", "half", "long", "int", "bool", "to", "astype", "clone", "detach", "copy"}
_NOTES = {"note", "warn", "warning", "info", "debug", "advance", "sleep"}
"""Calls that only inform people, or wait."""
_LIMITS = re.compile(r"_?(MOST|LARGEST|LONGEST|LEAST)_\w+\b|\w+_AT_ONCE\b|_BLOCK\b")
"""Names of constants that bound memory or the size of one step; no result depends on their exact value."""
_TEXT = (ast.JoinedStr, ast.Assert, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)
_TEXT_FIELDS = {"annotation", "returns", "decorator_list", "type_params", "ctx"}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change: `new` takes the place of a node, a field or an element of the field `field` of `parent`."""

    path: str
    """Of the module, relative to the root of the repository."""
    function: str
    """Qualified name of the outermost function; empty if the line runs when the module is imported."""
    first_line: int
    lines: range
    """Lines that run the changed code; a test that runs none of them cannot notice."""
    before: str
    after: str
    parent: ast.AST
    field: str
    index: int | None
    new: ast.AST

    @property
    def name(self) -> str:
        return f"{self.path} | {self.function or '(module)'} | {self.before} -> {self.after}"

    def put(self, node: ast.AST) -> ast.AST:
        """Put `node` in the changed place of the module's tree; return what was there."""
        if self.index is None:
            old: ast.AST = getattr(self.parent, self.field)
            setattr(self.parent, self.field, node)
        else:
            old = getattr(self.parent, self.field)[self.index]
            getattr(self.parent, self.field)[self.index] = node
        return old


@dataclass(frozen=True, kw_only=True)
class _Scope:
    """Where the walk is: names of the classes and functions around, the outermost function, and the statement."""

    names: tuple[str, ...] = ()
    function: ast.AST | None = None
    function_name: str = ""
    statement: ast.AST | None = None


def mutants(path: str, tree: ast.Module) -> list[Mutant]:
    """All mutants of a module, in the order of its lines. They share `tree`, which is unchanged between `put`s."""
    return list(_visit(path, tree, _Scope()))


def _visit(path: str, node: ast.AST, scope: _Scope) -> Iterator[Mutant]:
    for field, value in list(ast.iter_fields(node)):
        if field in _TEXT_FIELDS or _is_zips_strict(node, field):
            continue
        outside = field == "args" and node is scope.function  # defaults are computed at the definition
        here = _Scope(names=scope.names[:-1], statement=scope.statement) if outside else scope
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not _is_text(child):
                yield from _child(path, node, field, index, child, _inside(child, here))


def _child(path: str, parent: ast.AST, field: str, index: int | None, node: ast.AST, scope: _Scope) -> Iterator[Mutant]:
    for new in _replacements(node, parent, field):
        mutant = _mutant(path, parent, field, index, ast.copy_location(new, node), scope)
        if mutant.before != mutant.after:
            yield mutant
    if not isinstance(node, ast.Raise) and not _is_note(node):
        yield from _visit(path, node, scope)


def _inside(node: ast.AST, scope: _Scope) -> _Scope:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        names = (*scope.names, node.name)
        if scope.function is None and not isinstance(node, ast.ClassDef):
            return _Scope(names=names, function=node, function_name=".".join(names), statement=node)
        return replace(scope, names=names, statement=node)
    return replace(scope, statement=node) if isinstance(node, ast.stmt) else scope


def _mutant(path: str, parent: ast.AST, field: str, index: int | None, new: ast.AST, scope: _Scope) -> Mutant:
    statement = scope.statement
    assert isinstance(statement, ast.stmt)
    body = getattr(statement, "body", None)
    last = body[0].lineno - 1 if body else statement.end_lineno
    mutant = Mutant(
        path=path,
        function=scope.function_name,
        first_line=getattr(scope.function, "lineno", 0),
        lines=range(statement.lineno, max(last or 0, statement.lineno) + 1),
        before=_header(statement),
        after="",
        parent=parent,
        field=field,
        index=index,
        new=new,
    )
    old = mutant.put(new)
    after = _header(new if isinstance(new, ast.stmt) else statement)
    mutant.put(old)
    return replace(mutant, after=after)


def _header(statement: ast.stmt) -> str:
    """The statement on one line, without the body of a compound one."""
    short = copy.copy(statement)
    for field in ("body", "orelse", "finalbody", "handlers", "cases", "decorator_list"):
        if isinstance(getattr(short, field, None), list):
            setattr(short, field, [])
    return " ".join(ast.unparse(short).split())


def _is_text(node: ast.AST) -> bool:
    """Whether changes in a node would not be wrong results: text, types, and limits of memory."""
    if isinstance(node, ast.FunctionDef) and node.name in ("__repr__", "__str__"):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Assign | ast.AnnAssign) and _LIMITS.match(ast.unparse(node)):
        return True
    if isinstance(node, ast.IfExp) and any(isinstance(part, ast.JoinedStr) for part in (node.body, node.orelse)):
        return True
    return isinstance(node, _TEXT) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))


def _is_zips_strict(node: ast.AST, field: str) -> bool:
    """Whether a field has the `strict` of a `zip`: as an `assert`, it is about what is always so."""
    return field == "keywords" and isinstance(node, ast.Call) and ast.unparse(node.func) == "zip"


def _is_note(node: ast.AST) -> bool:
    call = node.value if isinstance(node, ast.Expr) else node
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in _NOTES


def _replacements(node: ast.AST, parent: ast.AST, field: str) -> Iterator[ast.AST]:
    if isinstance(node, ast.stmt):
        yield from _removals(node)
    elif isinstance(node, ast.expr):
        yield from _changes(node, parent, field)


def _removals(node: ast.stmt) -> Iterator[ast.AST]:
    if isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets
    ):
        yield ast.Pass()
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        if not _is_note(node):
            yield ast.Pass()
    elif isinstance(node, ast.Continue):
        yield ast.Break()
    elif isinstance(node, ast.Break):
        yield ast.Pass()
    elif isinstance(node, ast.AugAssign):
        yield ast.Pass()
        if type(node.op) in _ARITHMETIC:
            yield ast.AugAssign(target=node.target, op=_ARITHMETIC[type(node.op)](), value=node.value)


def _changes(node: ast.expr, parent: ast.AST, field: str) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for number, operator in enumerate(node.ops):
            ops = [*node.ops[:number], _COMPARISONS[type(operator)](), *node.ops[number + 1 :]]
            yield ast.Compare(left=node.left, ops=ops, comparators=node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC and not _joins_text(node):
        yield ast.BinOp(left=node.left, op=_ARITHMETIC[type(node.op)](), right=node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(op=ast.Or() if isinstance(node.op, ast.And) else ast.And(), values=node.values)
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.UAdd):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _other_constants(node.value)
    elif isinstance(node, ast.Slice):
        if node.lower is not None:
            yield ast.Slice(lower=None, upper=node.upper, step=node.step)
        if node.upper is not None:
            yield ast.Slice(lower=node.lower, upper=None, step=node.step)
    elif isinstance(node, ast.Attribute) and node.attr in _NAMES and isinstance(node.ctx, ast.Load):
        yield ast.Attribute(value=node.value, attr=_NAMES[node.attr], ctx=node.ctx)
    elif isinstance(node, ast.Name) and node.id in _BUILTINS and isinstance(parent, ast.Call):
        yield ast.Name(id=_NAMES[node.id], ctx=node.ctx)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CASTS:
        yield node.func.value
    if field in ("test", "ifs") and isinstance(node, ast.Name | ast.Call | ast.Attribute):
        yield ast.UnaryOp(op=ast.Not(), operand=node)


def _joins_text(node: ast.BinOp) -> bool:
    """Whether an operand is text or a type: `folder / "name"` and `int | None` are no arithmetic."""
    return any(_is_string(side) or _is_type(side) for side in (node.left, node.right))


def _is_string(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_type(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    if name:
        is_class_name = name[0].isupper() and not name.isupper()
        return is_class_name or isinstance(getattr(builtins, name, None), type)
    return isinstance(node, ast.Constant) and node.value is None


def _other_constants(value: object) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(value=not value)
    elif isinstance(value, int):
        yield ast.Constant(value=value + 1)
    elif isinstance(value, float):
        yield ast.Constant(value=2 * value if value else 1.0)

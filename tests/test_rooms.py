"""The rooms of the package: no circles, few modules in each, one meaning for each name, all in docs/layout.md."""

import ast
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = ("commands", "pipeline", "student", "teacher_cache")
MOST_MODULES = 14


def module_of(path: Path) -> tuple[str, ...]:
    return path.relative_to(ROOT).with_suffix("").parts


@cache
def modules() -> dict[tuple[str, ...], Path]:
    """Every module of the floors; the `__init__` of a room is its door and belongs to no circle."""
    paths = (path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
    return {module_of(path): path for path in paths if path.name != "__init__.py"}


def imports_of(path: Path) -> set[tuple[str, ...]]:
    """The modules that a file imports from, at any depth of its code."""
    package = module_of(path)[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else ()))
            found |= {base, *((*base, alias.name) for alias in node.names)}
    return found & set(modules())


@cache
def neighbors() -> dict[tuple[str, ...], dict[tuple[str, ...], set[tuple[str, ...]]]]:
    """For each room, which of its modules and rooms imports which other one of them."""
    edges = defaultdict(lambda: defaultdict(set))
    for one, path in modules().items():
        for other in imports_of(path):
            same = next(place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
            edges[one[:same]][one[: same + 1]].add(other[: same + 1])
    return edges


def reachable(start: tuple[str, ...], edges: dict[tuple[str, ...], set[tuple[str, ...]]]) -> set[tuple[str, ...]]:
    seen, open_ = set(), [*edges.get(start, ())]
    while open_:
        here = open_.pop()
        if here not in seen:
            seen.add(here)
            open_ += edges.get(here, ())
    return seen


def test_nothing_imports_what_imports_it():
    circles = {"/".join(one) for edges in neighbors().values() for one in edges if one in reachable(one, edges)}
    assert circles == set()
    assert sum(len(others) for edges in neighbors().values() for others in edges.values()) > 300


def test_a_room_has_few_modules():
    sizes = Counter(module[:-1] for module in modules())
    assert {"/".join(room): size for room, size in sizes.items() if size > MOST_MODULES} == {}


def test_no_two_modules_share_a_name():
    names = Counter(module[-1] for module in modules() if module[0] != "commands")
    assert {name: number for name, number in names.items() if number > 1} == {}


def test_every_folder_of_modules_is_a_room():
    folders = {path.parent for path in modules().values()}
    assert {str(folder) for folder in folders if not (folder / "__init__.py").exists()} == set()


def test_the_page_lists_every_room_with_its_first_sentence():
    page = (ROOT / "docs" / "layout.md").read_text()
    listed = dict(re.findall(r"^\| \[([\w/]+)/\]\(\S+\) \| (.*) \|$", page, re.MULTILINE))
    rooms = {path.parent for floor in FLOORS for path in (ROOT / floor).rglob("__init__.py")}
    said = {
        room.relative_to(ROOT).as_posix(): ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
        for room in rooms
    }
    assert {
        room: (doc or "").split("\n")[0].replace("|", "\\|") for room, doc in said.items()
    }.items() <= listed.items()

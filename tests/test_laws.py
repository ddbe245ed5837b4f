"""The two laws of the design: training never sees a teacher, and the command line starts without torch or zarr."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("api", "commands", "pipeline", "teacher_cache", "student")
LEAVES = ("medalign.atomic", "medalign.choices", "medalign.digests", "medalign.errors", "medalign.file_kinds",
          "medalign.path_checks", "medalign.plain_text", "medalign.progress", "medalign.saved_records",
          "medalign.suggestions")  # fmt: skip
MAY_IMPORT = {
    "student": (*LEAVES, "medalign.student", "medalign.teacher_cache.images", "medalign.teacher_cache.geometry",
                "medalign.teacher_cache.geometry.cosines", "medalign.teacher_cache.store"),
    "teacher_cache": (*LEAVES, "medalign.teacher_cache"),
    "pipeline": (*LEAVES, "medalign.pipeline", "medalign.teacher_cache", "medalign.student"),
    "commands": (*LEAVES, "medalign.commands", "medalign.pipeline"),
    "api": (*LEAVES, "medalign.api", "medalign.pipeline", "medalign.teacher_cache", "medalign.student"),
}  # fmt: skip
TEACHER_MODULES = ("open_clip", "timm", "medalign.teacher_cache.teachers", "medalign.teacher_cache.extraction")


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Absolute names of everything a file imports, at any depth of the code."""
    package = ["medalign", *path.relative_to(ROOT).parent.parts]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module} if node.module else {f"{module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room):
    allowed = MAY_IMPORT[room]
    broken = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(room)
        for name in imported(path)
        if name.split(".")[0] == "medalign"
        and name not in ("medalign", "medalign.__version__")
        and not any(name == good or name.startswith(good + ".") for good in allowed)
    }
    assert not broken
    assert len(modules(room)) > 3


def module_name(path: Path) -> str:
    return ".".join(("medalign", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def dependencies() -> dict[str, set[str]]:
    """The modules of the package that each of them imports, inside functions too.

    The version is not counted: it stands in the package's door, which exports names of every room when asked for them.
    """
    paths = {module_name(path): path for room in ROOMS for path in modules(room)}
    paths |= {module_name(path): path for path in ROOT.glob("*.py")}
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        found[module] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
                names = {f"{base}.{alias.name}" for alias in node.names}
                found[module] |= {name if name in paths else base for name in names - {"medalign.__version__"}}
    return found


def test_no_imports_run_in_a_circle():
    """Of two modules that import each other, neither can be read or moved without the other."""
    graph = dependencies()
    assert "medalign.student.alignment.attention_rows" in graph["medalign.student.alignment.observation"]
    assert "medalign.pipeline.training.train" in graph["medalign.commands.student"], "imports inside functions count"
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


def test_no_student_module_names_a_teacher():
    broken = {
        f"{path.name} imports {name}"
        for path in modules("student")
        for name in imported(path)
        if any(name == teacher or name.startswith(teacher + ".") for teacher in TEACHER_MODULES)
    }
    assert not broken


def test_commands_import_the_work_only_when_they_run():
    broken = [
        f"{path.name}: {ast.unparse(node)}"
        for path in [ROOT / "cli.py", *modules("commands")]
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom) and node.level and "pipeline" in (node.module or "").split(".")
    ]
    assert not broken


def loaded_after(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of the named modules a fresh interpreter has loaded after running `code`."""
    probe = f"import sys\n{code}\nprint(' '.join(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """What one interpreter has loaded after importing the check of a store, and then also all of training.

    One start of torch for both; nothing that the first loads can be missing in the second.
    """
    names = [module_name(path) for path in modules("student")] + ["medalign.pipeline.training.train"]
    of_training = (*TEACHER_MODULES, "torch")
    of_checking = (*of_training, "zarr")
    code = (
        "import importlib\n"
        "import medalign.pipeline.stores.verify\n"
        f"checking = [name for name in {of_checking!r} if name in sys.modules]\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "print(*checking, '|')"
    )
    checking, training = " ".join(loaded_after(code, of_training)).split("|")
    return {"checking": checking.split(), "training": training.split()}


def test_the_training_process_loads_no_teacher(loaded):
    assert loaded["training"] == ["torch"]


def test_checking_a_store_loads_no_teacher(loaded):
    assert loaded["checking"] == ["torch"]


def test_the_command_line_starts_without_torch_or_zarr():
    heavy = ("torch", "zarr", "transformers", "polars", "numpy", "pydantic")
    assert loaded_after("import medalign.cli", (*heavy, "typer")) == ["typer"]
    shown = (
        "from typer.testing import CliRunner\nimport medalign.cli\n"
        "assert 'teacher' in CliRunner().invoke(medalign.cli.app, ['--help']).output"
    )
    assert loaded_after(shown, heavy) == []


PRIVATE = {
    "student/compat/transformers.py": {
        "ALL_ATTENTION_FUNCTIONS", "ALL_MASK_ATTENTION_FUNCTIONS", "_attn_implementation", "_n_gpu",
        "mm_encoder_outputs", "past_key_values", "activation_checkpointing_enable", "enable_input_require_grads",
        "_get_train_sampler", "_get_eval_sampler", "_get_grad_norm",
        "_load_from_checkpoint", "_save_checkpoint", "_prepare_inputs",
        "_save_optimizer_and_scheduler", "_load_optimizer_and_scheduler", "compute_loss_context_manager",
    },
    "student/compat/peft.py": {"LoraLayer", "get_base_layer", "active_adapters"},
    "student/compat/accelerate.py": {"DistributedType", "fsdp_plugin", "distributed_type"},
    "teacher_cache/compat/aiobotocore.py": {"_response_class", "_get_session"},
    "teacher_cache/compat/zarr.py": {"BloscCodec", "Crc32cCodec"},
}  # fmt: skip
"""Private or young names of other libraries, and the one module that may use each."""


@cache
def names_used(path: Path) -> set[str]:
    """Every identifier, attribute, keyword, function name and whole string of a file."""
    used: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        for field in ("id", "attr", "arg", "name", "value"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                used.add(value)
    return used


def test_private_names_of_other_libraries_stay_in_one_module_each():
    strays = {
        f"{file} uses {sorted(stray)}, which belongs in {home}"
        for room in ROOMS
        for path in modules(room)
        for home, private in PRIVATE.items()
        if (file := str(path.relative_to(ROOT))) != home and (stray := names_used(path) & private)
    }
    assert strays == set()


@pytest.mark.parametrize("home", PRIVATE)
def test_every_private_name_in_the_list_is_used(home):
    assert PRIVATE[home] <= names_used(ROOT / home)

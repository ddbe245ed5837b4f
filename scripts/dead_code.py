"""List functions, methods, classes and imports of the package that nothing in it uses, by vulture.

usage: python scripts/dead_code.py

Use in tests does not count. vulture's reports of unused variables and attributes are left out: most are fields of
reports, which `asdict` reads, and settings of other libraries' objects.
"""

from pathlib import Path

from vulture import Vulture

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("api", "commands", "pipeline", "student", "teacher_cache", "scripts", "examples")
KINDS = {"class", "function", "import", "method", "property", "unreachable_code"}
DECORATORS = ["@app.command", "@*.command", "@field_*", "@model_*", "@_template"]
CALLED_FROM_OUTSIDE = [
    *(
        "on_*",
        "create_optimizer",
        "create_scheduler",
        "save_model",
        "prediction_step",
        "_get_*_sampler",
        "_load_from_checkpoint",
    ),
    *("__getattr__", "__dir__"),  # by Python, of a module
    *("readable", "seekable", "readinto", "writelines", "find_class"),  # by io and pickle
    *("pipe_file", "put_file", "_fetch_range", "lemmas"),  # by fsspec and nltk
    *("generate_answers", "rgb", "for_image", "ask_batch", "attend"),  # by users, from Python
    "pytest_*",
]
"""Names that only others call, those of the first lines transformers' Trainer."""


def main() -> None:
    checker = Vulture(ignore_names=CALLED_FROM_OUTSIDE, ignore_decorators=DECORATORS)
    checker.scavenge([*ROOT.glob("*.py"), *(ROOT / room for room in ROOMS)])
    unused = [item for item in checker.get_unused_code(min_confidence=60) if item.typ in KINDS]
    for item in unused:
        print(f"{item.filename.relative_to(ROOT)}:{item.first_lineno}: {item.message}")
    if unused:
        raise SystemExit(f"{len(unused)} unused: delete them, or say in {Path(__file__).name} who calls them")


if __name__ == "__main__":
    main()

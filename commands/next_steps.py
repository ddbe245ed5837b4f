"""The next step after a command, printed below its summary."""

from typing import Final

from ..plain_text import as_typed, shown

_STEPS: Final = {
    "import": "`medalign teacher extract --teacher NAME --weights FILE --manifest {manifest} --out STORE.zarr`",
    "extract": "`medalign student train CONFIG.yaml --set data.store={store} --out ADAPTER`; "
    "`medalign config list` shows configurations",
    "pack": "send the recipients both digests, claimed root sha256 and sha256, separately from the file, so that they "
    "can check what arrives",
    "push": "send the recipients the root digest, claimed root sha256, through a channel other than the store, so that "
    "they can check what they pull",
    "look": "`medalign teacher preview {store} --images FOLDER --out REPORT` to see what it holds, and whether its "
    "rows belong to your images",
    "receive": "`medalign store verify {store} --expect-root DIGEST` to recompute the root digest and compare it with "
    "the one from the sender",
    "receive part": "`medalign store verify {store}` to check every byte. Unless it has all images, its root digest is "
    "not that of the whole store; train with it on a manifest of its images",
    "preview": "`medalign student train CONFIG.yaml --set data.store={store} --dry-run` to check that it fits your "
    "questions and student",
    "init": "`medalign student train CONFIG.yaml --set student.path={student} --out ADAPTER`; "
    "`medalign config list` shows configurations",
    "plan": "run the same command with --out FOLDER in place of --dry-run to train",
    "train": "`medalign student evaluate --student {adapter} --manifest {manifest} --out RESULTS`",
    "align": "`medalign student evaluate --student {adapter} --manifest MANIFEST --out RESULTS`; to train on labels "
    "from here, `medalign student train CONFIG.yaml --set student.path={adapter} --out ADAPTER`",
    "evaluate": "`medalign student compare SPEC.yaml --out COMPARISON` to compare it with other students; "
    "`medalign config copy comparisons/phantoms` copies an example of SPEC.yaml",
    "attend": "`medalign student ground --student {student} --manifest MANIFEST --out GROUNDING` to measure attention "
    "on annotated regions",
    "inspect": "`medalign student attend --student {student} --image IMAGE --question QUESTION --out ATTENTION` to see "
    "where a student looks in one image",
    "compare": "`medalign student export ADAPTER --out MODEL` to merge the best adapter into its base",
    "development": "`medalign study {spec} --out {out} --read-test` to answer the test questions, once",
    "study": "`medalign report draw {out}` draws the figures again from their data",
    "demo": "`medalign data import table YOUR.csv --out MANIFEST.parquet` to start with your own data; "
    "`medalign data import --help` lists other data sets",
}
"""Upper case stands for what the user chooses."""


def show_next(command: str, *, as_json: bool, **paths: object) -> None:
    """Print the step that usually follows `command`; nothing with --json, and under torchrun only in one process."""
    from ..pipeline.devices import is_first_process

    if not as_json and is_first_process():
        text = _STEPS[command].format(**{name: as_typed(str(path)) for name, path in paths.items()})
        print(f"next: {shown(text)}")

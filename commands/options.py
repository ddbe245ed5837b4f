"""Options, choices and output that several commands share."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import choices
from ..choices import DataUse, DtypeChoice, EngineName, OutputFormat
from ..errors import SettingsError
from ..plain_text import as_typed

Out = Annotated[Path, typer.Option("--out", help="Output folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
RowFormat = Annotated[
    OutputFormat | None, typer.Option("--format", help="Print rows as a table (default), json, csv or jsonl.")
]
ManifestFile = Annotated[Path, typer.Option("--manifest", help="Manifest (see `medalign data import`).")]
ImageRoot = Annotated[
    Path | None,
    typer.Option("--root", help="Folder that image paths are relative to; default: the one in the manifest."),
]
ImagesManifest = Annotated[Path | None, typer.Option("--manifest", help="Manifest that lists the images.")]
ImagesFolder = Annotated[Path | None, typer.Option("--images", help="Folder of images, including subfolders.")]
ImagesDataUse = Annotated[
    DataUse | None,
    typer.Option("--data-use", help="Data-use class of --images (a manifest has its own); default: private."),
]
Weights = Annotated[str, typer.Option("--weights", help="The teacher's weights: a file, a folder, or hf-hub:ID.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Worker processes, each with a copy of the teacher.")]
DecodeWorkers = Annotated[
    int | None,
    typer.Option(
        "--decode-workers",
        min=1,
        help="Image-decoding processes per worker; default: all cores but one on a GPU, threads on a CPU.",
    ),
]
Engine = Annotated[
    EngineName, typer.Option("--engine", help="local, or ray: Ray actors on the cluster at RAY_ADDRESS.")
]
HashKeyFile = Annotated[Path | None, typer.Option("--hash-key", help="Key file of a store with keyed image hashes.")]
StorePath = Annotated[Path, typer.Argument(help="Teacher store.")]
StoreLocation = Annotated[str, typer.Argument(help="Teacher store: a folder, or a URL such as s3://bucket/name.zarr.")]
StudentFolder = Annotated[Path, typer.Option("--student", help="Base model folder, or an adapter from `train`.")]
AdapterFolder = Annotated[Path | None, typer.Option("--adapter", help="Adapter folder, if --student is its base.")]
Adapters = Annotated[
    list[Path] | None, typer.Option("--adapter", help="Adapter of the same base, to compare with it. Repeatable.")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 or mps; default: the best available.")]
Grid = Annotated[str, typer.Option("--grid", help="Grid of the student's image tokens, ROWSxCOLUMNS.")]
Geometry = Annotated[choices.Geometry, typer.Option("--geometry", help="pad (as the student sees images) or crop.")]
JpegScale = Annotated[
    choices.JpegScale | None,
    typer.Option(
        "--jpeg-scale", help="full, or reduced: decode large JPEGs at a smaller size; faster, but changes the rows."
    ),
]
Profile = Annotated[
    choices.Profile | None, typer.Option("--profile", help="How rows are stored (docs/stores.md); default: float16.")
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance", min=0, help="Largest max|dS| of a row; a shard that exceeds it is stored in a wider profile."
    ),
]
ImageBatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Images per forward pass; default: 16, or 64 on a GPU.")
]
WorkerThreads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads per worker; default: cores / workers.")
]
ShardRows = Annotated[
    int | None, typer.Option("--shard-rows", min=1, help="Images per shard; default: depends on the number of images.")
]
ShardTask = Annotated[
    str | None,
    typer.Option("--task", help="I/N: only part I of N, counted from 0; run `medalign teacher finish` last."),
]
ImageLimit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Extract only the first N images; `extend` adds the rest.")
]
Dtype = Annotated[choices.Dtype, typer.Option("--dtype", help="Precision of the forward pass.")]
InferenceDtype = Annotated[
    DtypeChoice,
    typer.Option("--dtype", help="Precision of the forward pass; auto: that of the adapter, else of the checkpoint."),
]
KeepLoraApart = Annotated[
    bool,
    typer.Option("--keep-lora-apart", help="Keep LoRA separate instead of merging it into the weights (slower)."),
]
ShareWorkers = Annotated[
    int, typer.Option("--workers", min=1, help="Worker processes, each with a copy of the student (or use torchrun).")
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads per process; default: cores / processes."),
]
TaskPart = Annotated[
    str | None, typer.Option("--task", help="I/N: only part I of N, counted from 0; --finish joins the parts.")
]
Finish = Annotated[
    bool,
    typer.Option("--finish", help="Check that all tasks are done and write the results, without loading a student."),
]
StoredDtype = Annotated[
    choices.Dtype | None, typer.Option("--dtype", help="Precision of the written weights; default: that of the input.")
]
Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        help="Prompt template: plain, vicuna_v1, huatuo_v1, mistral_instruct, huatuo or chat; default: the student's.",
    ),
]
Decode = Annotated[str, typer.Option("--decode", help="Decoding method (see `medalign student decodings`).")]
DecodeSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Setting of the decoding method, such as decode.alpha=0.5. Repeatable."),
]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Maximum length of an answer, in tokens.")]
Split = Annotated[str, typer.Option("--split", help="Split of the manifest.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Evaluate only the first N questions.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Questions per forward pass.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Random seed.")]


def _named(out: Path) -> Path:
    if not out.name:
        raise typer.BadParameter(f"{str(out)!r} does not end in a name; pass a new file or folder in it.")
    return out


NamedOut = Annotated[Path, typer.Option("--out", callback=_named, help="New output file or folder.")]


def output_format(as_json: bool, row_format: OutputFormat | None) -> OutputFormat:
    """The format of a command that prints rows, from --json and --format.

    Raises:
        SettingsError: They contradict each other.
    """
    if as_json and row_format not in (None, "json"):
        raise SettingsError(f"--json and --format {row_format} are incompatible: pass only one of them")
    return "json" if as_json else row_format or "table"


@contextmanager
def progress_bars() -> Iterator[Any]:
    """Progress bars on the terminal while the block runs; under torchrun only in the first process."""
    from ..pipeline.devices import is_first_process
    from ..pipeline.terminal import Bars
    from ..progress import Silent

    if not is_first_process():
        yield Silent()
        return
    with Bars() as bars:
        yield bars


def show_report(
    title: str,
    report: Any,
    as_json: bool,
    table: Callable[[], Mapping[str, object]] | None = None,
    *,
    more: Mapping[str, object] | None = None,
) -> None:
    """Print a report as a table or one JSON object; under torchrun only in the first process.

    The table shows `table()` if it is given, else the summary; then `more`, of which only JSON has the nulls.
    """
    from ..pipeline.devices import is_first_process
    from ..pipeline.terminal import show_summary

    if is_first_process():
        values = report.summary if as_json or table is None else table
        added = {name: value for name, value in (more or {}).items() if as_json or value is not None}
        show_summary(title, {**values(), **added}, as_json=as_json)


def write_run_page(out: Path, progress: Any, *, again: bool = True) -> dict[str, str | None]:
    """Write the report of a finished run to its folder, unless reports are off; returns its path for the summary.

    Under torchrun only the first process writes. A report that cannot be written is noted, and the run is not lost.
    Without `again`, an existing report is kept.
    """
    from ..pipeline.devices import is_first_process
    from ..pipeline.reports.switch import no_report_note, reports_are_on

    if not is_first_process():
        return {"report": None}
    if not reports_are_on():
        progress.note(no_report_note(f"medalign report make {as_typed(out)}"))
        return {"report": None}
    if not again and (out / "report.html").is_file():
        return {"report": str(out / "report.html")}
    from ..pipeline.reports.runs.run_report import try_run_report

    page = try_run_report(out, progress)
    return {"report": None if page is None else str(page)}


def work_request(engine: EngineName, workers: int, threads: int | None, task: str | None, finish: bool) -> Any:
    """The processes of a run, and which part it computes."""
    from ..pipeline.evaluation.batches.dispatch import WorkRequest

    return WorkRequest(engine=engine, workers=workers, threads=threads, task=task, finish=finish)

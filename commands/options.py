"""Options, their choices and the output that several commands share."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class DataUse(StrEnum):
    """Whether data, and what is derived from it, may be passed on."""

    public = "public"
    credentialed = "credentialed"
    private = "private"


class GeometryName(StrEnum):
    """How the teacher sees an image that is not square."""

    pad = "pad"
    crop = "crop"


class JpegScaleName(StrEnum):
    """At which size large JPEGs are decoded."""

    full = "full"
    reduced = "reduced"


class DtypeName(StrEnum):
    """Precision of a forward pass."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class DtypeChoice(StrEnum):
    """Precision of a student's forward pass."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class EngineName(StrEnum):
    """What runs the workers of stage one."""

    local = "local"
    ray = "ray"


class ProfileName(StrEnum):
    """How rows of a store become bytes."""

    float16 = "float16"
    native = "native"
    int8 = "int8"
    gram16 = "gram16"
    gram12 = "gram12"
    float32 = "float32"


Out = Annotated[Path, typer.Option("--out", help="Where the result goes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
ManifestFile = Annotated[Path, typer.Option("--manifest", help="Manifest (see `medalign data import`).")]
ImageRoot = Annotated[
    Path | None, typer.Option("--root", help="Folder that image paths start from; default: as the manifest says.")
]
ImagesManifest = Annotated[Path | None, typer.Option("--manifest", help="Images of this manifest.")]
ImagesFolder = Annotated[Path | None, typer.Option("--images", help="All images under this folder.")]
ImagesDataUse = Annotated[
    DataUse | None,
    typer.Option("--data-use", help="Data-use class of --images, default private; a manifest has its own."),
]
Weights = Annotated[str, typer.Option("--weights", help="The teacher's weights: a file, a folder, or hf-hub:ID.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes that compute, each with the teacher.")]
DecodeWorkers = Annotated[
    int | None,
    typer.Option(
        "--decode-workers",
        min=1,
        help="Processes of each worker that decode images; default: all cores but one on a GPU, threads on a CPU.",
    ),
]
Engine = Annotated[EngineName, typer.Option("--engine", help="local, or ray: actors, on RAY_ADDRESS's cluster.")]
HashKeyFile = Annotated[Path | None, typer.Option("--hash-key", help="Key file of a store with keyed image hashes.")]
StorePath = Annotated[Path, typer.Argument(help="Teacher store.")]
StoreLocation = Annotated[str, typer.Argument(help="Teacher store: a folder, or a URL such as s3://bucket/name.zarr.")]
StudentFolder = Annotated[Path, typer.Option("--student", help="Base model folder, or an adapter from `train`.")]
AdapterFolder = Annotated[Path | None, typer.Option("--adapter", help="Adapter folder, when --student is its base.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps; default: the best present.")]
Grid = Annotated[str, typer.Option("--grid", help="The student's image tokens, ROWSxCOLUMNS.")]
Geometry = Annotated[GeometryName, typer.Option("--geometry", help="pad (as the student) or crop.")]
JpegScale = Annotated[
    JpegScaleName | None,
    typer.Option("--jpeg-scale", help="full, or reduced: decode large JPEGs smaller; faster, changes the rows."),
]
Profile = Annotated[
    ProfileName | None, typer.Option("--profile", help="How rows become bytes (docs/stores.md); default: float16.")
]
Tolerance = Annotated[
    float | None,
    typer.Option("--tolerance", min=0, help="Largest max|dS| of a row; a shard that misses it is stored wider."),
]
ImageBatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Images in one forward pass; default: 16, 64 on a GPU.")
]
WorkerThreads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads of each worker (default: cores / workers).")
]
ShardRows = Annotated[
    int | None, typer.Option("--shard-rows", min=1, help="Images in one shard; default: by the number of images.")
]
ShardTask = Annotated[
    str | None, typer.Option("--task", help="I/N: only the I-th of N parts, from 0; `medalign teacher finish` last.")
]
ImageLimit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Extract only the first N images; `extend` adds the rest.")
]
Dtype = Annotated[DtypeName, typer.Option("--dtype", help="Precision of the forward pass.")]
InferenceDtype = Annotated[
    DtypeChoice,
    typer.Option("--dtype", help="Precision of the forward pass; auto: the adapter's, else the checkpoint's."),
]
KeepLoraApart = Annotated[
    bool,
    typer.Option("--keep-lora-apart", help="Compute LoRA beside the weights instead of merging it into them: slower."),
]
ShareWorkers = Annotated[
    int, typer.Option("--workers", min=1, help="Processes that compute, each with the student (or use torchrun).")
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads of each process (default: cores / processes)."),
]
TaskPart = Annotated[
    str | None, typer.Option("--task", help="I/N: only the I-th of N parts, from 0; --finish joins them.")
]
Finish = Annotated[
    bool, typer.Option("--finish", help="Check that all tasks are done and write the results; load no student.")
]
StoredDtype = Annotated[
    DtypeName | None, typer.Option("--dtype", help="Precision of the written weights; default: as they are stored.")
]
Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        help="Prompt template: plain, vicuna_v1, huatuo_v1, mistral_instruct, huatuo, chat; default: its own.",
    ),
]
Decode = Annotated[str, typer.Option("--decode", help="Decoding method (see `medalign student decodings`).")]
DecodeSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the decoding: decode.alpha=0.5. Can be repeated."),
]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")]
Split = Annotated[str, typer.Option("--split", help="Split of the manifest.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many questions.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Questions in one forward pass.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of everything random.")]


def _named(out: Path) -> Path:
    if not out.name:
        raise typer.BadParameter(f"{str(out)!r} has no name of its own: give a new file or folder in it.")
    return out


NamedOut = Annotated[Path, typer.Option("--out", callback=_named, help="Where the result goes: a new name.")]


@contextmanager
def progress_bars() -> Iterator[Any]:
    """Progress on the terminal, for the time of the block; under torchrun the first process alone shows it."""
    from ..pipeline.devices import is_first_process
    from ..pipeline.terminal import Bars
    from ..progress import Silent

    if not is_first_process():
        yield Silent()
        return
    with Bars() as bars:
        yield bars


def show_report(title: str, report: Any, as_json: bool) -> None:
    """Print the summary of a report: a table, or one JSON object; under torchrun in the first process alone."""
    from ..pipeline.devices import is_first_process
    from ..pipeline.terminal import show_summary

    if is_first_process():
        show_summary(title, report.summary(), as_json=as_json)


def work_request(engine: EngineName, workers: int, threads: int | None, task: str | None, finish: bool) -> Any:
    """Who shall compute, and which part."""
    from ..pipeline.evaluation.batches.dispatch import WorkRequest

    return WorkRequest(engine=engine.value, workers=workers, threads=threads, task=task, finish=finish)

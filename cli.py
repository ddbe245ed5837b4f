"""The command line: parse, delegate, render. Importing this loads neither torch nor zarr.

Exit codes: 0 done; 1 a bug or another failure; 2 a wrong option or setting; 3 a bad input; 4 a store that is
unfinished, damaged or does not fit; 5 finished, but some inputs failed and are listed; 130 interrupted.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from . import __version__
from .errors import MedalignError, SettingsError

INTERRUPTED = 130


_AFTER_INTERRUPT = {
    "extract": "finished shards are kept: repeat the command with --resume to go on",
    "train": "checkpoints in --out are kept: repeat the command, with --resume where there is one, to go on",
    "evaluate": "finished answers are kept: repeat the command with --resume to go on",
    "phantom": "images drawn so far stay in --out: remove it before drawing again",
    "demo": "finished steps are kept: repeat the command to go on",
}
"""What an interrupted command leaves behind; the others leave nothing."""


class _ErrorBoundary(TyperGroup):
    """Turns errors that users can act on into one message and their exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MedalignError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from error


class _Command(TyperCommand):
    """Says after Ctrl-C what is kept and how to go on."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            told = _AFTER_INTERRUPT.get(self.name or "", "nothing was written")
            print(f"interrupted; {told}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_ErrorBoundary,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich's markdown alone takes longer to import than everything else here
    help="Alignment distillation from medical CLIP teachers into medical vision-language students.",
)
data = typer.Typer(no_args_is_help=True, help="Manifests: which images and questions a run is about.")
teacher = typer.Typer(no_args_is_help=True, help="Stage one: run a teacher once, keep its targets in a store.")
student = typer.Typer(no_args_is_help=True, help="Stage two: train, ask and evaluate students.")
app.add_typer(data, name="data")
app.add_typer(teacher, name="teacher")
app.add_typer(student, name="student")


class DataUse(StrEnum):
    """Whether data, and what is derived from it, may be passed on."""

    public = "public"
    credentialed = "credentialed"
    private = "private"


class DecodeName(StrEnum):
    """How answers are searched for."""

    greedy = "greedy"
    beam = "beam"
    nucleus = "nucleus"


class GeometryName(StrEnum):
    """How the teacher sees an image that is not square."""

    pad = "pad"
    crop = "crop"


class DtypeName(StrEnum):
    """Precision of a forward pass."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


Out = Annotated[Path, typer.Option("--out", help="Where the result goes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
ManifestFile = Annotated[Path, typer.Option("--manifest", help="Manifest (see `medalign data import`).")]
ImageRoot = Annotated[
    Path | None, typer.Option("--root", help="Folder that image paths start from; default: as the manifest says.")
]
StorePath = Annotated[Path, typer.Argument(help="Teacher store.")]
StudentFolder = Annotated[Path, typer.Option("--student", help="Base model folder, or an adapter from `train`.")]
AdapterFolder = Annotated[Path | None, typer.Option("--adapter", help="Adapter folder, when --student is its base.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps; default: the best present.")]
Dtype = Annotated[DtypeName, typer.Option("--dtype", help="Precision of the forward pass.")]
Template = Annotated[
    str | None, typer.Option("--template", help="Prompt template: plain, vicuna_v1, chat; default: the student's own.")
]
Decode = Annotated[DecodeName, typer.Option("--decode", help="How answers are searched for.")]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")]
NumBeams = Annotated[
    int | None, typer.Option("--num-beams", help="Beams of `--decode beam`, 2 or more; default: 5, as the paper.")
]
TopP = Annotated[
    float | None, typer.Option("--top-p", help="Probability mass that `--decode nucleus` samples from; default: 0.9.")
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", help="Of `--decode nucleus`: below 1 sharper, above 1 flatter; default: 1."),
]
DecodeSeed = Annotated[int | None, typer.Option("--seed", help="Seed of `--decode nucleus`; default: 0.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]


@contextmanager
def _progress() -> Iterator[Any]:
    from .pipeline.terminal import Bars

    with Bars() as bars:
        yield bars


def _show(title: str, report: Any, as_json: bool) -> None:
    from .pipeline.terminal import show_summary

    show_summary(title, report.summary(), as_json=as_json)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"medalign {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Alignment distillation from medical CLIP teachers into medical vision-language students."""


@app.command(cls=_Command)
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the demo's results.")] = Path("medalign-demo"),
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Both stages on drawn images: extract, train three arms, evaluate, one table."""
    from .pipeline.demo.run import run_demo
    from .pipeline.demo.table import show_demo

    with _progress() as progress:
        report = run_demo(out, seed, progress)
    show_demo(report, as_json=as_json)


@app.command(cls=_Command)
def doctor(as_json: AsJson = False) -> None:
    """What this machine has, what is missing, and what to do about it."""
    from .pipeline.doctor import examine, show_doctor

    show_doctor(examine(), as_json=as_json)


@data.command("import", cls=_Command)
def import_data(
    kind: Annotated[str, typer.Argument(help="vqa-rad, llava-json, folder or nih-cxr.")],
    source: Annotated[Path, typer.Argument(help="The data set's folder or file.")],
    out: Out,
    split: Annotated[str | None, typer.Option("--split", help="Split of all rows, where the source has none.")] = None,
    data_use: Annotated[
        DataUse | None, typer.Option("--data-use", help="Data-use class; default: what is known of the source.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the images, where it is not the source's own.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of what nih-cxr draws: splits and questions; default: 0.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a data set into a manifest."""
    from .pipeline.importing import import_manifest

    with _progress() as progress:
        report = import_manifest(
            kind,
            source,
            out,
            split=split,
            data_use=data_use.value if data_use else None,
            images=images,
            seed=seed,
            progress=progress,
        )
    _show("manifest", report, as_json)


@data.command("phantom", cls=_Command)
def draw_phantoms(
    out: Out,
    images: Annotated[int, typer.Option("--images", min=1, help="How many to draw.")] = 200,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Draw test images with organs and lesions, their masks, questions and reports."""
    from .pipeline.phantoms.dataset import make_phantoms

    with _progress() as progress:
        report = make_phantoms(out, images, seed, progress)
    _show("phantoms", report, as_json)


@teacher.command("list", cls=_Command)
def list_teachers(as_json: AsJson = False) -> None:
    """The teachers medalign knows and the weights file each wants."""
    from .pipeline.extraction import show_teachers

    show_teachers(as_json=as_json)


@teacher.command(cls=_Command)
def extract(
    out: Out,
    teacher_name: Annotated[str, typer.Option("--teacher", help="Name of the teacher (`medalign teacher list`).")],
    weights: Annotated[str, typer.Option("--weights", help="Its weights: a file, a folder, or hf-hub:ID.")],
    manifest: Annotated[Path | None, typer.Option("--manifest", help="Images of this manifest.")] = None,
    images: Annotated[Path | None, typer.Option("--images", help="All images under this folder.")] = None,
    root: ImageRoot = None,
    grid: Annotated[str, typer.Option("--grid", help="The student's image tokens, ROWSxCOLUMNS.")] = "24x24",
    geometry: Annotated[
        GeometryName, typer.Option("--geometry", help="pad (as the student) or crop.")
    ] = GeometryName.pad,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images in one forward pass.")] = 16,
    shard_rows: Annotated[
        int | None, typer.Option("--shard-rows", min=1, help="Images in one shard; default: by the number of images.")
    ] = None,
    device: Device = None,
    dtype: Dtype = DtypeName.float32,
    data_use: Annotated[
        DataUse | None,
        typer.Option("--data-use", help="Data-use class of --images, default private; a manifest has its own."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted extraction.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a teacher over every image once and write E_v and E_a to a store."""
    from .pipeline.extraction import ExtractionRequest, run_extraction

    request = ExtractionRequest(
        teacher=teacher_name,
        weights=weights,
        out=out,
        manifest=manifest,
        images=images,
        root=root,
        grid=grid,
        geometry=geometry.value,
        batch_size=batch_size,
        shard_rows=shard_rows,
        device=device,
        dtype=dtype.value,
        data_use=data_use.value if data_use else None,
        resume=resume,
    )
    with _progress() as progress:
        report = run_extraction(request, progress)
    _show("store", report, as_json)
    report.raise_for_failures()


@teacher.command(cls=_Command)
def info(store: StorePath, as_json: AsJson = False) -> None:
    """Whose targets a store holds, of how many images, in which form."""
    from .pipeline.extraction import describe_store

    _show("store", describe_store(store), as_json)


@teacher.command(cls=_Command)
def verify(store: StorePath, as_json: AsJson = False) -> None:
    """Check every byte of a store against its ledger; needs no images and no teacher."""
    from .pipeline.extraction import verify_store

    with _progress() as progress:
        report = verify_store(store, progress)
    _show("verification", report, as_json)
    report.raise_for_problems()


@student.command(cls=_Command)
def init(
    llm: Annotated[Path, typer.Option("--llm", help="Causal language model folder, or a GGUF file.")],
    vision: Annotated[
        str, typer.Option("--vision", help="CLIP vision tower folder, or `tiny` for a small random one.")
    ],
    out: Out,
    image_tokens: Annotated[
        int, typer.Option("--image-tokens", min=1, help="Image tokens, a square number: 576 is 24x24.")
    ] = 576,
    gguf_file: Annotated[
        str | None, typer.Option("--gguf-file", help="Which GGUF file of the folder --llm, where it has several.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the projector and of the `tiny` tower.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make a LLaVA from a causal language model and a vision tower; its projector is untrained."""
    from .pipeline.making import make_student

    with _progress() as progress:
        report = make_student(
            llm, vision, out, image_tokens=image_tokens, gguf_file=gguf_file, seed=seed, progress=progress
        )
    _show("student", report, as_json)


@student.command(cls=_Command)
def train(
    config: Annotated[Path, typer.Argument(help="YAML configuration (docs/training.md).")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the adapter goes; only --dry-run can do without.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a setting: alignment.beta=0.06. Can be repeated.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, train nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a LoRA student (with W and the alignment losses) from a finished teacher store."""
    from .pipeline.settings import load_settings

    if out is None and not dry_run:
        raise SettingsError("--out is missing: give the adapter a folder, or --dry-run to check everything first")
    settings = load_settings(config, overrides or ())  # before torch: a wrong key is told at once
    from .pipeline.training import check_out, plan_training, run_training

    if out is not None:
        check_out(out, resume=resume)
    if dry_run or out is None:
        _show("plan", plan_training(settings), as_json)
        return
    with _progress() as progress:
        report = run_training(settings, out, progress, resume=resume)
    _show("training", report, as_json)
    if report.result.interrupted:
        print("interrupted; repeat the command with --resume to go on", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)


@student.command(cls=_Command)
def generate(
    student_folder: StudentFolder,
    image: Annotated[list[Path], typer.Option("--image", help="An image; can be repeated.")],
    question: Annotated[str, typer.Option("--question", help="What to ask.")],
    adapter: AdapterFolder = None,
    decode: Decode = DecodeName.greedy,
    max_new_tokens: MaxNewTokens = 128,
    num_beams: NumBeams = None,
    top_p: TopP = None,
    temperature: Temperature = None,
    seed: DecodeSeed = None,
    template: Template = None,
    device: Device = None,
    dtype: Dtype = DtypeName.float32,
    as_json: AsJson = False,
) -> None:
    """Ask one question about one or more images."""
    from .pipeline.asking import ask, choose_decoding

    decoding = choose_decoding(
        decode.value,
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        top_p=top_p,
        temperature=temperature,
        seed=seed,
    )
    report = ask(
        student_folder,
        adapter,
        image,
        question,
        decoding=decoding,
        template=template,
        device=device,
        dtype=dtype.value,
    )
    if as_json:
        _show("answer", report, as_json)
    else:
        print(report.answer)


@student.command(cls=_Command)
def evaluate(
    student_folder: StudentFolder,
    manifest: ManifestFile,
    out: Out,
    adapter: AdapterFolder = None,
    split: Annotated[str, typer.Option("--split", help="Split of the manifest.")] = "test",
    root: ImageRoot = None,
    decode: Decode = DecodeName.greedy,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Questions answered at once.")] = 8,
    max_new_tokens: MaxNewTokens = 128,
    num_beams: NumBeams = None,
    top_p: TopP = None,
    temperature: Temperature = None,
    seed: DecodeSeed = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many questions.")] = None,
    template: Template = None,
    device: Device = None,
    dtype: Dtype = DtypeName.float32,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted evaluation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Answer a split's questions and score the answers in both readings."""
    from .pipeline.evaluation import EvaluationRequest, run_evaluation

    request = EvaluationRequest(
        student=student_folder,
        adapter=adapter,
        manifest=manifest,
        root=root,
        split=split,
        decode=decode.value,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        top_p=top_p,
        temperature=temperature,
        seed=seed,
        limit=limit,
        template=template,
        device=device,
        dtype=dtype.value,
        resume=resume,
    )
    with _progress() as progress:
        report = run_evaluation(request, out, progress)
    _show("evaluation", report, as_json)

"""`medalign student`: stage two."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import SettingsError
from ..plain_text import as_typed, message, shown
from .base.base_command import Command
from .base.command_group import CommandGroup
from .base.error_output import Interrupted
from .next_steps import show_next
from .options import (
    AdapterFolder,
    AsJson,
    BatchSize,
    Decode,
    DecodeSettings,
    Device,
    Engine,
    Finish,
    HashKeyFile,
    ImageRoot,
    InferenceDtype,
    KeepLoraApart,
    Limit,
    ManifestFile,
    MaxNewTokens,
    Out,
    Resume,
    RowFormat,
    ShareWorkers,
    Split,
    StoredDtype,
    StudentFolder,
    TaskPart,
    Template,
    Threads,
    output_format,
    progress_bars,
    show_report,
    work_request,
    write_run_page,
)

app = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Stage two: train, ask and evaluate students.")


@app.command(cls=Command)
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
        str | None, typer.Option("--gguf-file", help="GGUF file to use, if the folder --llm has several.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the projector and of the `tiny` tower.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Build a LLaVA model with an untrained projector from a causal language model and a vision tower."""
    from ..pipeline.model_folders import make_student

    with progress_bars() as progress:
        report = make_student(
            llm, vision, out, image_tokens=image_tokens, gguf_file=gguf_file, seed=seed, progress=progress
        )
    show_report("student", report, as_json)
    show_next("init", as_json=as_json, student=out)


@app.command(cls=Command)
def convert(
    source: Annotated[Path, typer.Argument(help="LLaVA-Med-1.5, HuatuoGPT-Vision or LLaVA-1.5 folder, as published.")],
    out: Out,
    dtype: StoredDtype = None,
    as_json: AsJson = False,
) -> None:
    """Convert an original LLaVA checkpoint to transformers' format, for use outside medalign."""
    from ..pipeline.model_folders import convert_student

    with progress_bars() as progress:
        report = convert_student(source, out, dtype=dtype, progress=progress)
    show_report("student", report, as_json)


@app.command(cls=Command)
def export(
    adapter: Annotated[Path, typer.Argument(help="Adapter folder from `train`.")],
    out: Out,
    student_folder: Annotated[
        Path | None, typer.Option("--student", help="The adapter's base; default: the path recorded in the adapter.")
    ] = None,
    dtype: StoredDtype = None,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option("--evaluation", help="Output folder of `evaluate`, for the model card. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Merge an adapter into its base: one folder in transformers' format, with W and a model card."""
    from ..pipeline.model_folders import export_student

    with progress_bars() as progress:
        report = export_student(
            adapter,
            out,
            base=student_folder,
            dtype=dtype,
            evaluations=evaluation or (),
            progress=progress,
        )
    show_report("student", report, as_json)


@app.command(cls=Command)
def train(
    config: Annotated[
        Path | None,
        typer.Argument(help="YAML configuration (docs/training.md); default with --resume: the one saved in --out."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Output folder of the adapter; optional only with --dry-run.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a setting: alignment.beta=0.06. Repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print the plan without training.")
    ] = False,
    card: Annotated[
        str | None,
        typer.Option(
            "--card", help="With --dry-run: compare the plan with a GPU that has this much memory, such as 24GB."
        ),
    ] = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train a LoRA student (with W and the alignment losses) from a finished teacher store."""
    from ..pipeline.training.resume import load_run_settings

    if out is None and not dry_run:
        raise SettingsError("--out is missing: pass a folder for the adapter, or --dry-run to only check everything")
    if card is not None and not dry_run:
        raise SettingsError(
            f"--card {card} only applies to the plan: add --dry-run (training uses the GPU of this machine)"
        )
    # Before importing torch, to report an unknown key at once.
    settings = load_run_settings(config, out, overrides or (), resume=resume)
    from ..pipeline.devices import is_first_process
    from ..pipeline.training.gpu_memory import parse_card
    from ..pipeline.training.loss_log import show_loss_curves
    from ..pipeline.training.plan import plan_training
    from ..pipeline.training.train import check_out, run_training

    if out is not None:
        check_out(out, resume=resume)
    if dry_run or out is None:
        plan = plan_training(settings, None if card is None else parse_card(card))
        show_report("plan", plan, as_json)
        if is_first_process():
            print(message(plan.not_checked()), file=sys.stderr)
        show_next("plan", as_json=as_json)
        return
    with progress_bars() as progress:
        report = run_training(settings, out, progress, resume=resume)
        whole = not report.result.interrupted
        page = write_run_page(out, progress, again=not report.was_finished) if whole else {"report": None}
    show_report("training", report, as_json, report.table, more=page)
    if is_first_process() and not as_json:
        show_loss_curves(out)
    if report.was_finished and is_first_process():
        print(message(report.ending()), file=sys.stderr)
    if report.result.interrupted:
        print(f"interrupted; continue with `medalign student train --resume --out {as_typed(out)}`", file=sys.stderr)
        raise typer.Exit(Interrupted.exit_code)
    show_next("train", as_json=as_json, adapter=out, manifest=settings.data.manifest)


@app.command(cls=Command)
def align(
    config: Annotated[
        Path | None,
        typer.Argument(help="YAML configuration (docs/align.md); default with --resume: the one saved in --out."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Output folder of the adapter; optional only with --dry-run.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a setting: translation.keep=1. Repeatable.")
    ] = None,
    control: Annotated[
        Literal["random-teacher"] | None,
        typer.Option("--control", help="Run the control: random features of the pixels instead of the teacher's."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print the plan without training.")
    ] = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train the vision tower without labels, toward teacher features translated into the student's tokens."""
    from ..pipeline.align.align_settings import load_align_settings, with_control

    if out is None and not dry_run:
        raise SettingsError("--out is missing: pass a folder for the adapter, or --dry-run to only check everything")
    settings = load_align_settings(config, out, with_control(overrides or (), control), resume=resume)
    from ..pipeline.align.align_plan import plan_align
    from ..pipeline.align.align_student import check_align_out, continue_command, run_align
    from ..pipeline.devices import is_first_process
    from ..pipeline.inspection.student_changes import measure_changes
    from ..pipeline.training.loss_log import show_loss_curves

    if out is not None:
        check_align_out(out, resume=resume)
    if dry_run or out is None:
        show_report("plan", plan_align(settings), as_json)
        show_next("plan", as_json=as_json)
        return
    with progress_bars() as progress:
        report = run_align(settings, out, progress, resume=resume, measure=measure_changes)
        whole = not report.result.training.interrupted
        page = write_run_page(out, progress, again=not report.was_finished) if whole else {"report": None}
    show_report("alignment", report, as_json, report.table, more=page)
    if is_first_process() and not as_json:
        show_loss_curves(out)
    if report.was_finished and is_first_process():
        print(f"the run in {out} is finished; nothing was changed", file=sys.stderr)
    if report.result.training.interrupted:
        print(f"interrupted; continue with `{continue_command(out)}`", file=sys.stderr)
        raise typer.Exit(Interrupted.exit_code)
    show_next("align", as_json=as_json, adapter=out)


@app.command(cls=Command)
def generate(
    student_folder: StudentFolder,
    image: Annotated[list[Path], typer.Option("--image", help="Image file. Repeatable.")],
    question: Annotated[str, typer.Option("--question", help="The question.")],
    adapter: AdapterFolder = None,
    decode: Decode = "greedy",
    overrides: DecodeSettings = None,
    max_new_tokens: MaxNewTokens = 128,
    template: Template = None,
    device: Device = None,
    dtype: InferenceDtype = "auto",
    keep_lora_apart: KeepLoraApart = False,
    as_json: AsJson = False,
) -> None:
    """Answer one question about one or more images."""
    from ..pipeline.evaluation.generate import ask

    report = ask(
        student_folder,
        adapter,
        image,
        question,
        decode=decode,
        overrides=overrides or (),
        max_new_tokens=max_new_tokens,
        template=template,
        device=device,
        dtype=dtype,
        keep_lora_apart=keep_lora_apart,
    )
    if as_json:
        show_report("answer", report, as_json)
        return
    for line in report.warnings:
        print(f"warning: {message(line)}", file=sys.stderr)
    print(shown(report.answer, lines=True))


@app.command(cls=Command)
def evaluate(
    student_folder: StudentFolder,
    manifest: ManifestFile,
    out: Out,
    adapter: AdapterFolder = None,
    split: Split = "test",
    root: ImageRoot = None,
    store: Annotated[
        str | None,
        typer.Option("--store", help="Teacher store of the images; only for `alignment.image_tokens: teacher`."),
    ] = None,
    hash_key: HashKeyFile = None,
    decode: Decode = "greedy",
    overrides: DecodeSettings = None,
    batch_size: BatchSize = 8,
    max_new_tokens: MaxNewTokens = 128,
    limit: Limit = None,
    template: Template = None,
    device: Device = None,
    dtype: InferenceDtype = "auto",
    keep_lora_apart: KeepLoraApart = False,
    workers: ShareWorkers = 1,
    engine: Engine = "local",
    threads: Threads = None,
    task: TaskPart = None,
    finish: Finish = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Answer the questions of a split and score the answers, as `reference` and as `strict`."""
    from ..pipeline.devices import is_first_process
    from ..pipeline.evaluation.batches.array_tasks import PartReport
    from ..pipeline.evaluation.evaluate import EvaluationRequest, run_evaluation

    request = EvaluationRequest(
        student=student_folder,
        adapter=adapter,
        manifest=manifest,
        root=root,
        split=split,
        decode=decode,
        overrides=tuple(overrides or ()),
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        limit=limit,
        template=template,
        device=device,
        dtype=dtype,
        keep_lora_apart=keep_lora_apart,
        store=store,
        hash_key=hash_key,
        work=work_request(engine, workers, threads, task, finish),
        resume=resume,
    )
    with progress_bars() as progress:
        report = run_evaluation(request, out, progress)
        page = {} if isinstance(report, PartReport) else write_run_page(out, progress)
    if isinstance(report, PartReport):
        show_report("task", report, as_json)
        return
    show_report("evaluation", report, as_json, report.table, more=page)
    if is_first_process() and not as_json:
        for line in report.example_lines():
            print(shown(line), file=sys.stderr)
    show_next("evaluate", as_json=as_json)


@app.command(cls=Command)
def decodings(as_json: AsJson = False, row_format: RowFormat = None) -> None:
    """List the decoding methods with their papers, settings and defaults."""
    from ..pipeline.evaluation.decoding_list import decoding_rows, list_decodings, show_decodings
    from ..pipeline.row_output import show_in_format

    methods = list_decodings()
    chosen = output_format(as_json, row_format)
    show_in_format(chosen, partial(decoding_rows, methods), partial(show_decodings, methods))

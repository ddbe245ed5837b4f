"""The demo's report: what medalign does, and whether it worked here, for readers who know neither."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ...choices import AnswerState
from ...plain_text import as_typed
from ...progress import Progress
from ...student.file_errors import read_object
from ...student.inputs.collation import Sample as AskedQuestion
from ...teacher_cache.geometry.patch_grid import PatchGrid
from ...teacher_cache.images.canonical import read_image
from ..data import saved_tables
from ..data.manifest import Manifest
from ..data.samples import manifest_samples
from ..evaluation.scoring import PREDICTIONS_FILE
from ..reports.figures.figure_files import FOLDER, remove_other_figures
from ..reports.figures.overlays import small_jpeg
from ..reports.page import REPORT_FILE, Page, Sample, SampleAnswer, Section, write_page
from ..reports.runs.run_report import demo_command, try_report
from ..reports.studies.primary_findings import finding_tables
from ..reports.switch import no_report_note, reports_are_on
from .demo import SCORED_FILE, STUDY_FILE, DemoReport
from .demo_arms import ARMS, BASE, GRID
from .demo_changes import about_attention, about_similarity, measure_tables, verdict, whether_it_worked
from .demo_figures import attention_figure, losses_figure, measures_figure

_CARDS: Final = 24
_SIDE: Final = 160
Row = dict[str, object]
"""One row of a table of predictions."""
_INTRODUCTION: Final = (
    "Medical vision-language models answer questions about images, and sometimes invent what they see, because their "
    "visual features and their attention are poor. MEDALIGN teaches such a student two things that a medical CLIP, the "
    "teacher, does better: which patches of an image belong together (the loss L_vis compares the cosine matrices of "
    "their features), and where to look (the loss L_att compares the attention on the image). Both act at one layer "
    "while LoRA, small trainable matrices beside the student's frozen weights, is trained on questions and answers. W "
    "is a trainable matrix that rotates the image tokens at that layer. The label-free stage, align, comes before "
    "that and needs no questions: it translates the teacher's features into the student's own image tokens, on images "
    "that the student reads well, and trains the student's vision tower to see the others like that.",
    "medalign does this in stages. The first runs the teacher once over every image and stores its features, E_v, "
    "and its attention, E_a. All others train students from that store, so the teacher never needs memory on the GPU "
    "again, and laboratories can share the store.",
    "This demo drew synthetic images with lesions whose masks are known exactly, as two scanners would: the student "
    "knows the look of the first, and the questions are about images of the second. It trained the student three "
    "times on the same questions with the same budget and seed: with LoRA alone, with MEDALIGN, and with LoRA after "
    "the label-free stage. Then all three answered questions about images that none of them had seen.",
)

_COMPARED: Final = (
    "MEDALIGN and align + LoRA are compared with LoRA, which had the same questions, budget and seed. Better and worse "
    "are changes that the choice of test images does not explain (95 %). MEDALIGN has W beside LoRA, so a part of its "
    "changes may come from more trainable values; the label-free stage saw more images, without their questions, and "
    "took more time. There is one training seed, so the intervals do not cover what another seed would change."
)


def write_demo_report(report: DemoReport, progress: Progress) -> Path:
    """Write the demo's page with its figures; return its path.

    Raises:
        MedalignError: A file cannot be written.
    """
    path, page = report.out / REPORT_FILE, demo_page(report)
    write_page(path, page, progress)
    remove_other_figures(path.parent / FOLDER, [figure.name for figure in page.figures])
    return path


def try_demo_report(report: DemoReport, progress: Progress) -> Path | None:
    """The same unless reports are off; a report that cannot be written is noted, and the demo's table is not lost."""
    command = demo_command(report.out, report.plan.seed)
    if not reports_are_on():
        progress.note(no_report_note(command))
        return None
    return try_report(lambda: write_demo_report(report, progress), command, progress)


def demo_page(report: DemoReport) -> Page:
    """The page of a finished demo."""
    manifest = Manifest.read(report.out / SCORED_FILE).split("test")
    samples = manifest_samples(manifest)
    lead, state = verdict(report)
    gains = _gains(report, samples)
    return Page(
        title="medalign demo: both stages on synthetic images",
        lead=lead,
        state=state,
        facts=_facts(report, len(samples)),
        sections=[
            Section(title="What medalign does", text=_INTRODUCTION),
            Section(
                title="Did it work here?",
                text=[whether_it_worked(report), _COMPARED, *about_similarity(report)],
                tables=measure_tables(report),
                figures=[measures_figure(report)],
            ),
            _study_section(),
            Section(
                title="Where the models look",
                text=[
                    "The first picture of each row is the image, with the question. " + about_attention(report),
                ],
                figures=[attention_figure(report, samples, PatchGrid.parse(GRID))],
            ),
            Section(title="How training went", figures=[losses_figure(report)]),
            _next_steps(report.out),
        ],
        samples=_cards(report, samples, gains),
        samples_text=_about_cards(gains),
    )


def _study_section() -> Section:
    results = read_object(STUDY_FILE)
    return Section(
        title="What more training seeds say",
        text=[
            "The demo trains each student once. The phantom study (docs/phantom-study.md) trained them "
            f"{len(results['seeds'])} times, each time on a different set of 200 questions, and read its 1,080 test "
            f"questions once, on {results['test_read_at'][:10]}. The control, random align + LoRA, has random features "
            "of the image in place of the teacher's: what it gains over LoRA is not the teacher's.",
            "These are synthetic images and a student that is weak on them on purpose. They show what can work, not "
            "how much your model gains.",
        ],
        tables=finding_tables(results, "score of all questions (strict)"),
    )


def _facts(report: DemoReport, questions: int) -> dict[str, object]:
    plan = report.plan
    return {
        "images": plan.phantoms,
        "images of the look that the student knows": plan.anchors,
        "training steps of the label-free stage": plan.align_steps,
        "questions about held-out images": questions,
        "training steps of each student": plan.steps,
        "seed": plan.seed,
        "alpha (weight of L_vis)": plan.alpha,
        "beta (weight of L_att)": plan.beta,
        "medalign": plan.version,
        "folder": str(report.out),
    }


def _next_steps(out: Path) -> Section:
    arm, phantoms = out / "arms" / ARMS[-1].name, out / "phantoms" / "manifest.parquet"
    inspect = (
        f"medalign student inspect --student {as_typed(out / BASE)} --adapter {as_typed(arm)} "
        f"--manifest {as_typed(phantoms)} --store {as_typed(out / 'store.zarr')} --out INSPECTION"
    )
    return Section(
        title="What to do next",
        text=[
            "The demo's folder has the same files as a run of your own. The first command looks further into it, and "
            "the second begins with your own data."
        ],
        commands=[inspect, "medalign data import table YOUR.csv --out MANIFEST.parquet"],
    )


def _gains(report: DemoReport, samples: Sequence[AskedQuestion]) -> list[float]:
    """The change of each question's score from the first to the last arm."""
    answers = list(_answers(report).values())

    def score(arm: dict[str, Row], sample: AskedQuestion) -> float:
        value = arm[sample.question_id]["strict_score"]
        return float(value) if isinstance(value, int | float) else 0.0

    return [score(answers[-1], sample) - score(answers[0], sample) for sample in samples]


def _about_cards(gains: Sequence[float]) -> str:
    worse, better = (sum(sign * gain > 0 for gain in gains) for sign in (-1, 1))
    first, last = ARMS[0].title, ARMS[-1].title
    return (
        f"Of {len(gains):,} questions, {worse:,} scored worse with {last} than with {first}, and {better:,} better. "
        f"{_which(gains)}"
    )


def _which(gains: Sequence[float]) -> str:
    """Which questions are shown: changes of one size have no largest ones."""
    most, sizes = _CARDS // 2, {abs(gain) for gain in gains if gain}
    if len(sizes) > 1:
        return f"Here are up to {most} of each, those with the largest changes."
    flips = " Every change is from right to wrong or from wrong to right." if sizes == {1.0} else ""
    return f"Here are the first {most} of each, or all if there are fewer.{flips}"


def _cards(report: DemoReport, samples: Sequence[AskedQuestion], gains: Sequence[float]) -> list[Sample]:
    """Questions with the answers of all arms: those with the largest losses, then those with the largest gains."""
    answers = _answers(report)
    return [
        _card(
            samples[place], gains[place], {title: rows[samples[place].question_id] for title, rows in answers.items()}
        )
        for place in _largest_changes(gains)
    ]


def _largest_changes(gains: Sequence[float]) -> list[int]:
    """Up to half of the cards for the largest losses, worst first, then as many for the largest gains, best first."""
    places = sorted(range(len(gains)), key=lambda place: gains[place])
    worse = [place for place in places if gains[place] < 0][: _CARDS // 2]
    better = sorted((place for place in places if gains[place] > 0), key=lambda place: -gains[place])[: _CARDS // 2]
    return worse + better


def _answers(report: DemoReport) -> dict[str, dict[str, Row]]:
    """The saved answer of each arm to each question, by its id."""
    files = {arm.title: report.out / "evaluations" / arm.name / PREDICTIONS_FILE for arm in ARMS}
    return {
        title: {
            row["question_id"]: row for row in saved_tables.read(path, "run the demo again").rows.iter_rows(named=True)
        }
        for title, path in files.items()
    }


def _card(sample: AskedQuestion, gain: float, rows: dict[str, Row]) -> Sample:
    last = ARMS[-1].title
    change = f"better with {last}" if gain > 0 else f"worse with {last}" if gain < 0 else "same score"
    return Sample(
        name=sample.question_id,
        question=sample.question,
        reference=sample.answer,
        answers=[_answer(title, row) for title, row in rows.items()],
        picture=small_jpeg(read_image(sample.images[0].path).rgb, _SIDE),
        alt=f"The synthetic image of question {sample.question_id}.",
        labels=(change,),
        keys={"worst change first": gain, "best change first": -gain},
    )


def _answer(title: str, row: Row) -> SampleAnswer:
    text, score = str(row["prediction"] or ""), row["strict_score"]
    if not text.strip():
        return SampleAnswer(name=title, text="", state="empty")
    if not isinstance(score, int | float):
        return SampleAnswer(name=title, text=text, state="not scored")
    state: AnswerState = "right" if score == 1 else "wrong" if score == 0 else "partly right"
    return SampleAnswer(name=title, text=text, state=state)

"""The demo's report: what medalign does, and whether it worked here, for readers who know neither."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ...choices import AnswerState
from ...plain_text import as_typed
from ...progress import Progress
from ...student.inputs.collation import Sample as AskedQuestion
from ...teacher_cache.geometry.patch_grid import PatchGrid
from ...teacher_cache.images.canonical import read_image
from ..data import saved_tables
from ..data.manifest import Manifest
from ..data.samples import manifest_samples
from ..evaluation.scoring import PREDICTIONS_FILE
from ..reports.figures.overlays import small_jpeg
from ..reports.page import REPORT_FILE, Page, Sample, SampleAnswer, Section, State, Table, write_page
from .demo import GRID, SCORED_FILE, DemoReport
from .demo_figures import attention_figure, losses_figure, measures_figure
from .demo_results import MEASURES, Measure

_CARDS: Final = 24
_SIDE: Final = 160
Row = dict[str, object]
"""One row of a table of predictions."""
_INTRODUCTION: Final = (
    "Medical vision-language models answer questions about images, and sometimes invent what they see, because their "
    "visual features and their attention are poor. MEDALIGN teaches such a student two things that a medical CLIP, the "
    "teacher, does better: which patches of an image belong together (the loss L_vis compares the cosine matrices of "
    "their features), and where to look (the loss L_att compares the attention on the image). Both act at one layer "
    "while LoRA trains the student on questions and answers. W is a trainable matrix that rotates the image tokens at "
    "that layer.",
    "medalign does this in two stages. Stage one runs the teacher once over every image and stores its features, E_v, "
    "and its attention, E_a. Stage two trains students from that store, so the teacher never needs memory on the GPU "
    "again, and laboratories can share the store.",
    "This demo drew synthetic images with lesions whose masks are known exactly, ran both stages, and trained the same "
    "student three times with the same budget and seed: with LoRA alone, with LoRA and W but without the alignment "
    "losses, and with MEDALIGN. Then all three answered questions about images that none of them had seen.",
)


def write_demo_report(report: DemoReport, progress: Progress) -> Path:
    """Write the demo's page with its figures; return its path.

    Raises:
        MedalignError: A file cannot be written.
    """
    path = report.out / REPORT_FILE
    write_page(path, demo_page(report), progress)
    return path


def demo_page(report: DemoReport) -> Page:
    """The page of a finished demo."""
    manifest = Manifest.read(report.out / SCORED_FILE).split("test")
    samples = manifest_samples(manifest)
    lead, state = _verdict(report)
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
                text=[report.findings.sentence],
                tables=[_table(report)],
                figures=[measures_figure(report)],
            ),
            Section(
                title="Where the models look",
                text=[
                    "The first picture of each row is the image, with the question. " + _about_attention(report),
                ],
                figures=[attention_figure(report, samples, PatchGrid.parse(GRID))],
            ),
            Section(title="How training went", figures=[losses_figure(report)]),
            _next_steps(report.out),
        ],
        samples=_cards(report, samples, gains),
        samples_text=_about_cards(gains),
    )


def _verdict(report: DemoReport) -> tuple[str, State]:
    """Whether the alignment losses did what they ask for, and whether answers gained, against LoRA and LoRA + W."""
    arms = list(report.arms.values())
    by_name = {measure.name: measure for measure in MEASURES}
    losses, answers = ([by_name[name] for name in names] for names in (("loss_vis", "kl"), ("closed", "open")))

    def change(measure: Measure) -> str:
        first, last = (arm.mean(measure.name) for arm in (arms[0], arms[-1]))
        return f"{measure.title.split(',')[0].removesuffix(' (strict)')} from {first:.3g} to {last:.3g}"

    worked = all(_direction(report, measure) > 0 for measure in losses)
    start = "It worked here" if worked else "It ran here, but alignment did not do all that its losses ask for"
    aligned = f"{start}: compared with LoRA, MEDALIGN moved {' and '.join(map(change, losses))}."
    up, down = ([change(m) for m in answers if _direction(report, m) == sign] for sign in (1, -1))
    told = "Answers neither gained nor lost beyond noise."
    if up or down:
        parts = filter(None, [_list("these gained:", up), _list("these lost:", down)])
        told = f"Of the answers' scores, {'; '.join(parts)}."
    limit = "" if up else " Better alignment alone need not give better answers; docs/results.md has measurements."
    return f"{aligned} {told}{limit}", "good" if worked else "bad"


def _direction(report: DemoReport, measure: Measure) -> int:
    """1 if MEDALIGN is significantly better than both others, -1 if worse than both, else 0."""
    gaps = [gap[measure.name] for gap in (report.findings.against_baseline, report.findings.against_control)]
    if not all(gap.beyond_noise for gap in gaps) or gaps[0].mean * gaps[1].mean < 0:
        return 0
    return 1 if (gaps[0].mean > 0) == (measure.better == "higher") else -1


def _list(word: str, items: Sequence[str]) -> str:
    return f"{word} {' and '.join(items)}" if items else ""


def _about_attention(report: DemoReport) -> str:
    """What L_att can do with this teacher: attention follows it, whether it looks at lesions or not."""
    first = next(iter(report.arms.values()))
    teacher, chance, before = first.reference["mass"]["teacher"], first.reference["mass"]["chance"], first.mean("mass")
    text = (
        f"L_att pulls the student's attention towards the teacher's. Inside lesions, this demo's small teacher has "
        f"{teacher:.3f} of its attention, uniform attention would have {chance:.3f}, and the student has {before:.3f} "
        "without alignment."
    )
    return f"{text} So here it pulls attention away from lesions." if teacher < before else text


def _table(report: DemoReport) -> Table:
    rows: list[list[object]] = []
    for measure in MEASURES:
        gap = report.findings.against_baseline[measure.name]
        values = [f"{arm.mean(measure.name):.3f}" for arm in report.arms.values()]
        mark = "significant" if gap.beyond_noise else ""
        rows.append(
            [
                measure.title,
                f"{measure.better} is better",
                *values,
                f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]",
                mark,
            ]
        )
    columns = ["measure", "", *report.arms, "MEDALIGN - LoRA, 95 % interval", ""]
    return Table(columns=columns, rows=rows, caption="Means over the questions about held-out images")


def _facts(report: DemoReport, questions: int) -> dict[str, object]:
    plan = report.plan
    return {
        "images": plan.phantoms,
        "questions about held-out images": questions,
        "training steps of each student": plan.steps,
        "seed": plan.seed,
        "alpha (weight of L_vis)": plan.alpha,
        "beta (weight of L_att)": plan.beta,
        "medalign": plan.version,
        "folder": str(report.out),
    }


def _next_steps(out: Path) -> Section:
    arm, phantoms = out / "arms" / "medalign", out / "phantoms" / "manifest.parquet"
    inspect = (
        f"medalign student inspect --student {as_typed(out / 'student')} --adapter {as_typed(arm)} "
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
    return (
        f"Of {len(gains)} questions, {worse} scored worse with MEDALIGN than with LoRA, and {better} better. Here are "
        f"up to {_CARDS // 2} of each with the largest changes."
    )


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
    better = [place for place in reversed(places) if gains[place] > 0][: _CARDS // 2]
    return worse + better


def _answers(report: DemoReport) -> dict[str, dict[str, Row]]:
    """The saved answer of each arm to each question, by its id."""
    files = {
        title: report.out / "evaluations" / folder / PREDICTIONS_FILE
        for title, folder in zip(report.arms, ("lora", "lora-w", "medalign"), strict=True)
    }
    return {
        title: {
            row["question_id"]: row for row in saved_tables.read(path, "run the demo again").rows.iter_rows(named=True)
        }
        for title, path in files.items()
    }


def _card(sample: AskedQuestion, gain: float, rows: dict[str, Row]) -> Sample:
    change = "better with MEDALIGN" if gain > 0 else "worse with MEDALIGN" if gain < 0 else "same score"
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

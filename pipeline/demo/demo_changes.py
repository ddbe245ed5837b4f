"""What the demo changed, in words and tables for readers who do not know the measures."""

from collections.abc import Sequence

from ...plain_text import signed_text
from ..evaluation.statistics import Difference
from ..reports.page import State, Table
from .demo import DemoReport
from .demo_arms import LAYER
from .demo_results import MEASURES, ArmMeasures, Measure

_BY_NAME = {measure.name: measure for measure in MEASURES}
_ANSWERS = [_BY_NAME[name] for name in ("closed", "open")]
_LOSSES = {
    _BY_NAME["loss_vis"]: " (how far patch similarities are from the teacher's)",
    _BY_NAME["kl"]: " (how far attention is from the teacher's)",
}
"""The measures of the alignment losses, and what they are."""
MEDALIGN = "MEDALIGN"
"""Title of the arm with the alignment losses."""
_VERDICTS = {1: "better", -1: "worse"}


_ARMS = (
    "LoRA is usual fine-tuning on questions and answers. MEDALIGN adds two losses, which pull the student toward a "
    "teacher: L_vis compares which patches of an image are similar, and L_att where they look. align + LoRA is LoRA "
    "after a stage without questions."
)
"""What the names in the lead mean, before the numbers."""


def verdict(report: DemoReport) -> tuple[str, State]:
    """Whether it worked, what the arms are, how answers changed, and whether the alignment losses fell."""
    findings = report.findings
    told = [_about_answers(report, title, _ANSWERS) for title in findings.differences]
    moved = " and ".join(_change(report, MEDALIGN, measure, meaning) for measure, meaning in _LOSSES.items())
    done = "fell as intended" if _losses_worked(report) else "did not all fall as intended"
    aligned = f"{MEDALIGN}'s losses {done}, from {findings.baseline} to {MEDALIGN} on test images: {moved}."
    state: State = "good" if _helped(report) else "bad"
    return " ".join([whether_it_worked(report), _ARMS, *told, aligned]), state


def whether_it_worked(report: DemoReport) -> str:
    """The answer to "Did it work here?" in one sentence."""
    baseline, helped = report.findings.baseline, _helped(report)
    rest = [title for title in report.findings.differences if title not in helped]
    although = ", although its losses fell as intended" if MEDALIGN in rest and _losses_worked(report) else ""
    if not helped:
        return f"No: neither {' nor '.join(rest)} answered better than {baseline}."
    gained = f"{' and '.join(helped)} answered better than {baseline}"
    return f"Partly: {gained}; {' and '.join(rest)} did not{although}." if rest else f"Yes: {gained}."


def _helped(report: DemoReport) -> list[str]:
    """The arms with significantly better answers of one kind, and of no kind with worse ones."""
    findings = report.findings
    directions = {title: [findings.direction(title, measure) for measure in _ANSWERS] for title in findings.differences}
    return [title for title, signs in directions.items() if max(signs) > 0 and min(signs) >= 0]


def _losses_worked(report: DemoReport) -> bool:
    return all(report.findings.direction(MEDALIGN, measure) == 1 for measure in _LOSSES)


def _about_answers(report: DemoReport, title: str, answers: Sequence[Measure]) -> str:
    words = [f"{_change(report, title, measure)} ({_word(report, title, measure)})" for measure in answers]
    return f"{title} against {report.findings.baseline}: {'; '.join(words)}."


def _change(report: DemoReport, title: str, measure: Measure, meaning: str = "") -> str:
    first, last = (report.arms[name].mean(measure.name) for name in (report.findings.baseline, title))
    return f"{measure.title.split(',')[0].removesuffix(' (strict)')}{meaning} from {first:.3g} to {last:.3g}"


def measure_tables(report: DemoReport) -> list[Table]:
    """The values of the arms with the meaning of each measure, and the changes from the baseline."""
    values = [
        [
            measure.title,
            *(f"{arm.mean(measure.name):.3f}" for arm in report.arms.values()),
            f"{measure.meaning}; {measure.better} is better",
        ]
        for measure in MEASURES
    ]
    findings = report.findings
    changes = [
        [measure.title]
        + [
            text
            for title, gaps in findings.differences.items()
            for text in (_interval(gaps[measure.name]), _word(report, title, measure))
        ]
        for measure in MEASURES
    ]
    columns = [text for title in findings.differences for text in (f"{title} - {findings.baseline}", f"{title} is")]
    return [
        Table(
            columns=["measure", *report.arms, "what it is"],
            rows=values,
            caption="Means over the questions about held-out images",
        ),
        Table(
            columns=["measure", *columns],
            rows=changes,
            caption="Changes, with 95 % intervals over the choice of test images",
        ),
    ]


def _interval(gap: Difference) -> str:
    return f"{signed_text(gap.mean, 3)} [{signed_text(gap.low, 3)}, {signed_text(gap.high, 3)}]"


def _word(report: DemoReport, title: str, measure: Measure) -> str:
    return _VERDICTS.get(report.findings.direction(title, measure), "no significant difference")


def about_similarity(report: DemoReport) -> list[str]:
    """Why L_vis is better where the agreement is not, with the numbers that show it; empty if both are better."""
    findings = report.findings
    better = [findings.direction(MEDALIGN, _BY_NAME[name]) for name in ("loss_vis", "agreement")]
    if better[0] != 1 or better[1] == 1:
        return []
    first, last = report.arms[findings.baseline], report.arms[MEDALIGN]
    before, after, teacher = _moments(first), _moments(last), _moments(first, "teacher_")
    return [
        "Why L_vis is better and the S-matrix agreement is not: both compare the same matrices, of image tokens at "
        f"layer {LAYER} and of the teacher, for the same questions. The similarities of pairs of patches, mean ± "
        f"standard deviation, are {before} with LoRA, {after} with MEDALIGN, and {teacher} in the teacher. L_vis is "
        "the mean of their squared differences, so it also falls when the student's mean and spread change. The "
        f"correlation ignores both, and went from {first.mean('agreement'):.3f} to {last.mean('agreement'):.3f}: on "
        "images that it was not trained on, the student did not get better at telling which patches are similar."
    ]


def _moments(arm: ArmMeasures, whose: str = "") -> str:
    return f"{arm.mean(f'{whose}similarity_mean'):.2f} ± {arm.mean(f'{whose}similarity_spread'):.2f}"


def about_attention(report: DemoReport) -> str:
    """What L_att can do with this teacher: attention follows it, whether it looks at lesions or not."""
    first = next(iter(report.arms.values()))
    teacher, chance, before = first.reference["mass"]["teacher"], first.reference["mass"]["chance"], first.mean("mass")
    text = (
        f"L_att pulls the student's attention toward the teacher's. Inside lesions, this demo's small teacher has "
        f"{teacher:.3f} of its attention, uniform attention would have {chance:.3f}, and the student has {before:.3f} "
        "without alignment."
    )
    return f"{text} So here it pulls attention away from lesions." if teacher < before else text

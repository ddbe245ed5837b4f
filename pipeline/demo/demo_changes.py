"""What the demo changed, in words and tables for readers who do not know the measures."""

from collections.abc import Sequence

from ..evaluation.statistics import Difference
from ..reports.page import State, Table
from .demo import LAYER, DemoReport
from .demo_results import MEASURES, ArmMeasures, Measure

_BY_NAME = {measure.name: measure for measure in MEASURES}
_VERDICTS = {1: "better", -1: "worse"}


def verdict(report: DemoReport) -> tuple[str, State]:
    """Whether the alignment losses did what they ask for, and whether answers gained, against LoRA and LoRA + W."""
    arms = list(report.arms.values())
    losses, answers = ([_BY_NAME[name] for name in names] for names in (("loss_vis", "kl"), ("closed", "open")))

    def change(measure: Measure) -> str:
        first, last = (arm.mean(measure.name) for arm in (arms[0], arms[-1]))
        return f"{measure.title.split(',')[0].removesuffix(' (strict)')} from {first:.3g} to {last:.3g}"

    worked = all(report.findings.directions(measure) == (1, 1) for measure in losses)
    start = "It worked here" if worked else "It ran here, but alignment did not do all that its losses ask for"
    aligned = f"{start}: compared with LoRA, MEDALIGN moved {' and '.join(map(change, losses))}."
    up, down = ([change(m) for m in answers if report.findings.directions(m) == (sign, sign)] for sign in (1, -1))
    told = "Answers neither gained nor lost beyond noise."
    if up or down:
        parts = filter(None, [_list("these gained:", up), _list("these lost:", down)])
        told = f"Of the answers' scores, {'; '.join(parts)}."
    limit = "" if up else " Better alignment alone need not give better answers."
    return f"{aligned} {told}{limit}", "good" if worked else "bad"


def _list(word: str, items: Sequence[str]) -> str:
    return f"{word} {' and '.join(items)}" if items else ""


def measure_tables(report: DemoReport) -> list[Table]:
    """The values of the arms with the meaning of each measure, and the changes against both other arms."""
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
        [
            measure.title,
            _interval(findings.against_baseline[measure.name]),
            _interval(findings.against_control[measure.name]),
            _word(report, measure),
        ]
        for measure in MEASURES
    ]
    baseline, control, treated = report.arms
    return [
        Table(
            columns=["measure", *report.arms, "what it is"],
            rows=values,
            caption="Means over the questions about held-out images",
        ),
        Table(
            columns=["measure", f"{treated} - {baseline}", f"{treated} - ({control})", "verdict"],
            rows=changes,
            caption="Changes, with 95 % intervals over the choice of test images",
        ),
    ]


def _interval(gap: Difference) -> str:
    return f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"


def _word(report: DemoReport, measure: Measure) -> str:
    """The verdict on one measure: significant against both others, against one, or neither."""
    baseline, control, _ = report.arms
    against = dict(zip((baseline, control), report.findings.directions(measure), strict=True))
    if len(set(against.values())) == 1:
        return _VERDICTS.get(against[baseline], "no significant difference")
    found = [f"{_VERDICTS[sign]} than {name}" for name, sign in against.items() if sign]
    return " and ".join(found) if len(found) > 1 else f"{found[0]} only"


def about_similarity(report: DemoReport) -> list[str]:
    """Why L_vis is better where the agreement is not, with the numbers that show it; empty if both are better."""
    findings = report.findings
    if findings.directions(_BY_NAME["loss_vis"]) != (1, 1) or 1 in findings.directions(_BY_NAME["agreement"]):
        return []
    first, *_, last = report.arms.values()
    before, after, teacher = _moments(first), _moments(last), _moments(first, "teacher_")
    return [
        "Why L_vis is better and the S-matrix agreement is not: both compare the same matrices, of image tokens at "
        f"layer {LAYER} and of the teacher, for the same questions. The similarities of pairs of patches, mean ± "
        f"standard deviation, are {before} with LoRA, {after} with MEDALIGN, and {teacher} in the teacher. L_vis is "
        "the mean of their squared differences, so it also falls when the student's mean and spread change. The "
        f"correlation ignores both, and went from {first.mean('agreement'):.3f} to {last.mean('agreement'):.3f}: on "
        "images that it was not trained on, the student did not learn better which patches are similar."
    ]


def _moments(arm: ArmMeasures, whose: str = "") -> str:
    return f"{arm.mean(f'{whose}similarity_mean'):.2f} ± {arm.mean(f'{whose}similarity_spread'):.2f}"


def about_attention(report: DemoReport) -> str:
    """What L_att can do with this teacher: attention follows it, whether it looks at lesions or not."""
    first = next(iter(report.arms.values()))
    teacher, chance, before = first.reference["mass"]["teacher"], first.reference["mass"]["chance"], first.mean("mass")
    text = (
        f"L_att pulls the student's attention towards the teacher's. Inside lesions, this demo's small teacher has "
        f"{teacher:.3f} of its attention, uniform attention would have {chance:.3f}, and the student has {before:.3f} "
        "without alignment."
    )
    return f"{text} So here it pulls attention away from lesions." if teacher < before else text

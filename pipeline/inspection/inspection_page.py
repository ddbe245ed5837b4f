"""The report of an inspection: the verdict first, then tokens, probes, attention, answers and single questions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ...plain_text import counted
from ...student.inspection.token_capture import layer_stage
from ..reports.page import Page, Section, State, Table
from ..reports.runs.wording import sharing_notice, warning_texts
from .arms import BASE, Arm
from .cell_labels import FEWEST_IMAGES
from .inspect_request import InspectRequest
from .inspected_images import InspectedImages, describe_sample
from .number_text import change_text, interval_text, percent
from .probes.lost_shares import LEAST, MARGIN
from .probes.probe_figures import loss_table, probe_figure, probe_table, task_table, verdict_table
from .probes.probe_tasks import FEWEST_EXAMPLES
from .probes.verdict import verdict_with
from .questions.questions_report import QuestionsReport
from .stage_names import stage_title
from .token_findings import TokenFindings
from .tokens.agreement_curves import StageAgreement
from .tokens.token_figures import agreement_figure, projection_figures, silhouette_figure
from .tokens.token_study import StageClusters, cluster_sentence

_TOKENS: Final = (
    "The paper's case rests on pictures of image tokens that form clearer clusters after alignment (its Figures 1 and "
    "5). A picture alone is no evidence, because t-SNE makes clusters of noise too, so the claim is judged by the "
    "silhouette in the tokens' own space, with intervals over images."
)
_PROBES: Final = (
    "A linear probe is a logistic regression that predicts a name from a token. Every probe has the same capacity (32 "
    "principal components), its regularization is tuned on training images, and it is scored on images that it was not "
    "trained on. Probes of patches also get the patch's position at every stage, because rotary embeddings give each "
    "layer the position anyway: what they read beyond position alone is about the image.",
    f"A stage loses information if more than {percent(MARGIN)} of what a probe reads before it, beyond position or "
    "chance, is read neither there nor at any later stage, so what a later layer makes readable again does not count; "
    f"and the lower end of the loss's interval, corrected for the number of stages, must be above {percent(LEAST)}. "
    "The tower is compared with the pixels around the patch and with the teacher. A verdict is uncertain if fewer than "
    "half of the resamples of the images have the same result.",
    "Linear probes miss what is stored nonlinearly, tokens of the last layers need not keep what the question's tokens "
    "have already read, and the intervals cover the choice of images, not the training of the probes.",
)


def inspection_page(
    request: InspectRequest,
    arms: Sequence[Arm],
    inspected: InspectedImages,
    tokens: TokenFindings,
    questions: QuestionsReport,
    run: Mapping[str, Any],
    warnings: Sequence[str],
) -> tuple[Page, tuple[str, ...]]:
    """The page, and the findings besides the verdicts, a sentence each."""
    findings = (*_token_sentences(arms, tokens), *questions.sentences)
    page = Page(
        title=f"Inspection of {arms[0].facts.base.name}"
        + (f" with {counted(len(arms) - 1, 'adapter')}" if arms[1:] else ""),
        lead=_lead(arms, tokens, warnings),
        state=_state(tokens),
        notice=_notice(inspected, questions),
        facts=_facts(request, arms, inspected),
        sections=tuple(_sections(arms, tokens, questions, findings, warnings)),
        samples=questions.samples,
        samples_text="A seeded choice of the asked questions, those that changed for the worse first.",
    )
    return page, findings


def _lead(arms: Sequence[Arm], tokens: TokenFindings, warnings: Sequence[str]) -> str:
    if not tokens.families:
        return no_verdict(tokens)
    first = tokens.families[0].name
    base = tokens.verdicts[arms[0].name, first]
    others = [verdict_with(arm.name, tokens.verdicts[arm.name, first]) for arm in arms[1:]]
    return " ".join([base.sentence, *others, *(["Read the warnings first."] if warnings else [])])


def no_verdict(tokens: TokenFindings) -> str:
    """Why nothing was probed."""
    return (
        "No verdict on where information is lost, because nothing could be probed on "
        f"{counted(tokens.images, 'image')}: a probe needs two regions on {FEWEST_IMAGES} images each, or two organs, "
        f"modalities or answers to one question with {FEWEST_EXAMPLES} images each."
    )


def _state(tokens: TokenFindings) -> State:
    """`bad` or `good` only if a verdict says so that is not uncertain."""
    verdicts = tokens.verdicts.values()
    if any(verdict.kind == "lost" and not verdict.uncertain for verdict in verdicts):
        return "bad"
    is_good = all(verdict.kind == "none" and not verdict.uncertain for verdict in verdicts)
    return "good" if verdicts and is_good else "neutral"


def _sections(
    arms: Sequence[Arm],
    tokens: TokenFindings,
    questions: QuestionsReport,
    findings: Sequence[str],
    warnings: Sequence[str],
) -> Iterator[Section]:
    if warnings:
        yield Section(title="Warnings", text=warning_texts(warnings))
    if tokens.verdicts:
        yield Section(
            title="Where information is lost", text=_sentences(tokens), tables=[verdict_table(tokens.verdicts)]
        )
    if findings:
        yield Section(title="Findings", text=findings)
    if tokens.families:
        yield from _probe_sections(tokens)
    if tokens.clusters:
        yield from _token_sections(tokens)
    if tokens.agreements:
        yield Section(
            title="Agreement with the teacher",
            text=[
                "L_vis asks the similarities S of the aligned layer to equal the teacher's (Eq. 4). The correlation "
                "ignores their offset and scale, so it need not rise when L_vis falls."
            ],
            figures=[agreement_figure(tokens.agreements)],
        )
    yield from questions.sections


def _sentences(tokens: TokenFindings) -> list[str]:
    """The verdicts that are not in the lead: the base's other probes, and adapters that differ or are unsure."""
    first, family = next(iter(tokens.verdicts))
    texts = []
    for (arm, name), verdict in tokens.verdicts.items():
        before = tokens.verdicts[first, name]
        if (arm, name) == (first, family):
            continue
        differs = (verdict.kind, verdict.place) != (before.kind, before.place)
        if arm == first or verdict.uncertain or differs:
            texts.append(f"{arm}: {verdict.sentence}")
    return texts


def _probe_sections(tokens: TokenFindings) -> Iterator[Section]:
    table = probe_table(tokens.scores, tokens.seed)
    first = next(iter(tokens.scores))[0]
    yield Section(
        title="Probes",
        text=_PROBES,
        figures=[probe_figure(table, family.name, family.floor) for family in tokens.families],
        tables=[task_table([tokens.scores[first, family.name] for family in tokens.families])],
    )
    yield Section(title="Probes: the loss of every stage", tables=[loss_table(tokens.verdicts)], folded=True)


def _token_sections(tokens: TokenFindings) -> Iterator[Section]:
    assert tokens.named is not None
    kind = str(tokens.cells.kind)
    pictures = projection_figures(tokens.named, kind, tokens.projections, tokens.clusters)
    yield Section(
        title="Image tokens",
        text=[_TOKENS],
        figures=[silhouette_figure(kind, tokens.clusters), *pictures[: len(pictures) // 2]],
    )
    yield Section(
        title="Image tokens: principal components and numbers",
        figures=pictures[len(pictures) // 2 :],
        tables=[_cluster_rows(tokens.clusters)],
        folded=True,
    )


def _cluster_rows(clusters: Sequence[StageClusters]) -> Table:
    rows = [
        (
            found.arm,
            stage_title(found.stage),
            f"{found.mean.mean:.3f}",
            interval_text(found.mean.low, found.mean.high),
            f"{found.scatter:.3f}",
            _change(found),
        )
        for found in clusters
    ]
    columns = ("", "stage", "silhouette", "95 % interval", "scatter between/within", "change from base")
    return Table(columns=columns, rows=rows, caption="Separation of tokens in their own space")


def _change(found: StageClusters | StageAgreement) -> str:
    if found.change is None:
        return ""
    if found.change.low == found.change.high == 0:
        return "the same tokens"
    mark = "*" if found.change.beyond_noise else ""
    return f"{change_text(found.change)}{mark}"


def _token_sentences(arms: Sequence[Arm], tokens: TokenFindings) -> tuple[str, ...]:
    found = []
    for arm in arms[1:]:
        if tokens.clusters:
            own = [item for item in tokens.clusters if item.arm in (BASE, arm.name)]
            found.append(cluster_sentence(own, str(tokens.cells.kind), arm.name, arm.aligned_layers))
        for layer in arm.aligned_layers:
            found += _agreement_sentence(tokens.agreements, arm.name, layer_stage(layer))
    return tuple(found)


def _agreement_sentence(agreements: Sequence[StageAgreement], arm: str, stage: str) -> list[str]:
    by_arm = {item.arm: item for item in agreements if item.stage == stage}
    if arm not in by_arm or BASE not in by_arm or by_arm[arm].change is None:
        return []
    after, before = by_arm[arm], by_arm[BASE]
    return [
        f"Agreement of S with the teacher at the {stage_title(stage)}, {arm} against base: {before.mean.mean:.3f} to "
        f"{after.mean.mean:.3f}, {_change(after).rstrip('*')}."
    ]


def _notice(inspected: InspectedImages, questions: QuestionsReport) -> str:
    contents = "numbers about images of the data set"
    if questions.samples:
        contents = f"{counted(len(questions.samples), 'image')} of the data set, questions about them and answers"
    return sharing_notice(contents, inspected.images.data_use)


def _facts(request: InspectRequest, arms: Sequence[Arm], inspected: InspectedImages) -> dict[str, object]:
    adapters = ", ".join(arm.name for arm in arms[1:])
    facts = arms[0].facts
    return {
        "base": facts.base.name,
        "adapters": adapters or "none",
        "sample": describe_sample(inspected),
        "split": request.split,
        "teacher store": request.store or "none",
        "prompt template": facts.template_name,
        "precision": facts.dtype,
        "image tokens": str(facts.images.grid),
        "decoder layers": facts.layers,
        "seed": request.seed,
    }

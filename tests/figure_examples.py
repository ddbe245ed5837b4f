"""A small figure of every kind, and a page with all of them."""

import numpy as np
import polars as pl
from medalign.pipeline.reports.figures.bars import bars
from medalign.pipeline.reports.figures.figure import Figure
from medalign.pipeline.reports.figures.histograms import histograms
from medalign.pipeline.reports.figures.lines import lines
from medalign.pipeline.reports.figures.matrices import matrices
from medalign.pipeline.reports.figures.overlays import MapView, Outline, Overlay, overlays, small_jpeg
from medalign.pipeline.reports.figures.points import points
from medalign.pipeline.reports.page import Page, Sample, SampleAnswer, Section, Table
from PIL import Image

WORDS = {"title": "A title", "caption": "What it shows, and 3.", "alt": "The finding in words."}


def gray_image(width: int, height: int, value: int = 90) -> Image.Image:
    return Image.fromarray(np.full((height, width), value, np.uint8))


def overlay_figure(panels: list[Overlay], name: str = "attention") -> Figure:
    return overlays(name=name, panels=panels, **WORDS)


def one_of_each() -> list[Figure]:
    rows = [
        {"panel": "a", "series": s, "x": x, "y": x + 1.0, "low": x + 0.5, "high": x + 2.0} for s in "pq" for x in (0, 1)
    ]
    values = [{"panel": "", "group": g, "series": s, "value": 0.5, "low": 0.4, "high": 0.7} for g in "ab" for s in "pq"]
    places = [{"panel": "a", "x": float(x), "y": float(x * x), "group": "bc"[x % 2]} for x in range(6)]
    numbers = [{"panel": "a", "series": "rows", "value": float(x)} for x in range(20)]
    mask = np.zeros((20, 30), bool)
    mask[5:10, 5:15] = True
    view = MapView(rows=2, columns=2, box=(0, -5, 30, 30), values=(0.1, 0.2, 0.3, 0.4))
    outlines = (Outline(name="lesion", mask=mask), Outline(name="box", box=(1, 2, 10, 8)))
    return [
        lines(name="curve", points=pl.DataFrame(rows), x_label="layer", y_label="loss", **WORDS),
        bars(name="scores", points=pl.DataFrame(values), value_label="score", **WORDS),
        points(name="tokens", points=pl.DataFrame(places), notes={"a": "silhouette .1"}, **WORDS),
        histograms(name="norms", points=pl.DataFrame(numbers), x_label="norm", **WORDS),
        matrices(name="s", panels=[("S", np.eye(3))], x_label="patch", y_label="patch", value_label="cosine", **WORDS),
        overlay_figure([Overlay(title="layer 3", image=gray_image(30, 20), views=(view,), outlines=outlines)]),
    ]


def page_of(figures: list[Figure], samples: int = 3) -> Page:
    picture = small_jpeg(gray_image(30, 20), 20)
    return Page(
        title="A report",
        lead="No significant difference.",
        notice="It contains images.",
        facts={"student": "runs/x", "questions": 300},
        sections=[
            Section(
                title="Figures",
                text=["A paragraph."],
                figures=figures,
                tables=[
                    Table(columns=["metric", "value"], rows=[["closed", 0.71234], ["open", None]], caption="scores")
                ],
                commands=["medalign report draw runs/x"],
            ),
            Section(title="Details", text=["Folded."], folded=True),
        ],
        samples=[
            Sample(
                name=f"q{number}",
                question=f"Question {number}?",
                reference="yes",
                answers=[
                    SampleAnswer(name="base", text="no" if number else "yes", state="wrong" if number else "right")
                ],
                picture=picture,
                alt="An X-ray.",
                labels=("wrong",) if number else ("right",),
                keys={"as drawn": number, "reversed": -number},
            )
            for number in range(samples)
        ],
    )

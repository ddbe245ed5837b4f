"""Pages: everything inside, readable without a mouse, and text of models is only text."""

import asyncio
import io
import re
from dataclasses import replace

import pytest
from browser import CHROMIUM, CONTROLS, in_browser
from figure_examples import gray_image, one_of_each, page_of
from medalign.pipeline.reports.figures import figure_files
from medalign.pipeline.reports.figures.figure_files import Picture
from medalign.pipeline.reports.figures.style import wrapped
from medalign.pipeline.reports.page import Page, Sample, SampleAnswer, Section, Strong, Table, render_page, write_page
from page_examples import command_pages


def test_text_of_models_and_data_is_only_text():
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m\u202e"
    sample = Sample(
        name=hostile, question=hostile, reference=hostile, answers=[SampleAnswer(name="a", text=hostile, state="wrong")]
    )
    figure = replace(one_of_each()[0], title=hostile, caption=hostile, alt=hostile)
    table = Table(columns=[hostile], rows=[[hostile], [Strong(hostile)]], caption=hostile)
    section = Section(title=hostile, text=[hostile], figures=[figure], tables=[table], commands=[hostile])
    page = Page(
        title=hostile, lead=hostile, notice=hostile, facts={hostile: hostile}, sections=[section], samples=[sample]
    )
    html = render_page(page, {figure.name: Picture(b"<svg/>", "image/svg+xml")})
    assert html.count("<script>") == 1
    assert html.count("<img") == 1
    assert "<img src=x" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 23


def test_every_picture_is_inside_and_has_its_alternative_text():
    figures = one_of_each()
    html = render_page(page_of(figures), {figure.name: Picture(b"<svg/>", "image/svg+xml") for figure in figures})
    pictures = re.findall(r'<img src="(.*?)" alt="(.*?)"', html)
    assert len(pictures) == len(figures) + 3
    assert all(source.startswith("data:image/") and alt for source, alt in pictures)
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)


def test_a_page_without_anything_but_a_lead_is_whole():
    html = render_page(Page(title="t", lead="l"), {})
    assert "samples" not in html.split("<style>")[0] + html.split("</style>")[1].split("<script>")[0]


def test_numbers_are_rounded_and_absent_ones_are_dashes():
    html = render_page(page_of([]), {})
    assert '<td class="number">0.7123</td>' in html
    assert "<td>\N{EN DASH}</td>" in html


def test_no_line_ends_between_a_number_and_its_percent_sign():
    answer = SampleAnswer(name="base", text="50 % is left", state="wrong")
    sample = Sample(name="1", question="Is 5 % enough?", reference="9 %", answers=[answer])
    section = Section(title="t", text=["12.5 % of them"], tables=[Table(columns=["95 % interval"], rows=[["40 %"]])])
    html = render_page(Page(title="t", lead="7 % better in KL(p || q)", sections=[section], samples=[sample]), {})
    for text in (
        "12.5\xa0% of them",
        "95\xa0% interval",
        "7\xa0% better in KL(p\xa0||\xa0q)",
        '<td class="number">40\xa0%</td>',
    ):
        assert text in html
    for text in ("50 % is left", "Is 5 % enough?", "9 %"):  # of the data set, as it is
        assert text in html
    assert wrapped("at most 25 % of it", 10) == "at most\n25\xa0% of it"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_pages_in_chromium(tmp_path, monkeypatch):
    """A sample page, whose cards are ordered and filtered, then the page of every command, in one browser."""
    page = page_of(one_of_each())
    sample = tmp_path / "report.html"
    write_page(sample, replace(page, lead=page.lead + " <img src='http://example.org/x.png'>"))
    monkeypatch.setattr(figure_files, "draw", lambda figure, *kinds: BLANK)
    commands = {name: write_command_page(tmp_path / name, page) for name, page in command_pages(tmp_path / "runs")}
    assert set(commands) == {"train", "evaluate", "compare", "ground", "demo", "inspect"}

    async def look(tab):
        await check_page(tab, sample)
        await check_cards(tab)
        for path in commands.values():
            await check_page(tab, path)
        await check_policy(tab)

    in_browser(tmp_path / "profile", look)


def png_of(width, height):
    buffer = io.BytesIO()
    gray_image(width, height).save(buffer, "PNG")
    return buffer.getvalue()


BLANK = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="780pt" height="300pt"><text x="9" y="20">a</text></svg>',
    png_of(780, 300),
)
"""Pictures of the usual size; drawing the real ones has its own tests, and takes seconds."""


def write_command_page(folder, page):
    assert page.figures, "the page has pictures to check"
    write_page(folder / "report.html", page)
    return folder / "report.html"


PAPER = 718
"""Pixels between the margins of a printed sheet of A4."""
PARTS = "[...document.body.querySelectorAll('*')]"


async def check_page(tab, path):
    """Nothing is requested or reported, pictures are whole and have texts, Tab reaches every control, all fits.

    Also on paper.
    """
    tab.requests.clear()
    tab.problems.clear()
    await tab.open(path, width=1280)
    assert await tab.evaluate("document.documentElement.scrollWidth") <= 1280, path
    sizes = "[...document.images].map(image => image.decode().then(() => image.naturalWidth))"
    assert all(await tab.evaluate(f"Promise.all({sizes})")), path
    assert await tab.evaluate("[...document.images].every(image => image.alt.trim())"), path
    assert await tab.evaluate(CONTROLS) == len(await tab.tab_order()) > 2, path
    await tab.open(path, width=390)
    await tab.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert await tab.evaluate("document.documentElement.scrollWidth") <= 390, path
    await tab.open(path, width=PAPER, media=[("type", "print")])
    await tab.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert await tab.evaluate(f"{PARTS}.filter(part => part.getBoundingClientRect().right > {PAPER}).length") == 0, path
    assert tab.requests == [], path
    assert tab.problems == [], path


async def check_cards(tab):
    shown = "[...document.querySelectorAll('.card h3')].filter(e => e.checkVisibility()).map(e => e.textContent)"
    assert await tab.evaluate(shown) == ["Question 0?", "Question 1?", "Question 2?"]
    for name, value in (("order", "1"), ("filter", "wrong")):
        await tab.evaluate(f"document.getElementById('{name}').value = '{value}'")
        await tab.evaluate(f"document.getElementById('{name}').dispatchEvent(new Event('change'))")
    assert await tab.evaluate(shown) == ["Question 2?", "Question 1?"]
    assert await tab.evaluate("document.getElementById('count').textContent") == "2 of 3 shown"


async def check_policy(tab):
    """The policy holds even for what is put into the page later."""
    await tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=http://example.org/x.png>')")
    for _ in range(100):
        if tab.problems:
            break
        await asyncio.sleep(0)
        await tab.evaluate("0")
    assert "Content Security Policy" in str(tab.problems)

"""Pages: everything inside, readable without a mouse, and text of models is only text."""

import asyncio
import re
from dataclasses import replace

import pytest
from browser import CHROMIUM, CONTROLS, in_browser
from figure_examples import one_of_each, page_of
from medalign.pipeline.reports.figures.figure_files import Picture
from medalign.pipeline.reports.page import Page, Sample, SampleAnswer, render_page, write_page


def test_text_of_models_and_data_is_only_text():
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m\u202e"
    sample = Sample(
        name=hostile, question=hostile, reference=hostile, answers=[SampleAnswer(name="a", text=hostile, state="wrong")]
    )
    page = Page(title=hostile, lead=hostile, notice=hostile, facts={hostile: hostile}, samples=[sample])
    html = render_page(page, {})
    assert html.count("<script>") == 1
    assert "<img" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 10


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


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_pages_in_chromium(tmp_path):
    """No request, no message on the console, every control reachable by Tab, and the cards ordered and filtered."""
    page = page_of(one_of_each())
    write_page(tmp_path / "report.html", replace(page, lead=page.lead + " <img src='http://example.org/x.png'>"))

    async def look(tab):
        await tab.open(tmp_path / "report.html", width=1280)
        sizes = "[...document.images].map(image => image.decode().then(() => image.naturalWidth))"
        assert all(await tab.evaluate(f"Promise.all({sizes})"))
        assert await tab.evaluate(CONTROLS) == len(await tab.tab_order())
        shown = "[...document.querySelectorAll('.card h3')].filter(e => e.checkVisibility()).map(e => e.textContent)"
        assert await tab.evaluate(shown) == ["Question 0?", "Question 1?", "Question 2?"]
        for name, value in (("order", "1"), ("filter", "wrong")):
            await tab.evaluate(f"document.getElementById('{name}').value = '{value}'")
            await tab.evaluate(f"document.getElementById('{name}').dispatchEvent(new Event('change'))")
        assert await tab.evaluate(shown) == ["Question 2?", "Question 1?"]
        assert await tab.evaluate("document.getElementById('count').textContent") == "2 of 3 shown"
        await tab.open(tmp_path / "report.html", width=390)
        assert await tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.requests == []
        assert tab.problems == []
        # The policy holds even for what is put into the page later.
        await tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=http://example.org/x.png>')")
        for _ in range(100):
            if tab.problems:
                break
            await asyncio.sleep(0)
            await tab.evaluate("0")
        assert "Content Security Policy" in str(tab.problems)

    in_browser(tmp_path / "profile", look)

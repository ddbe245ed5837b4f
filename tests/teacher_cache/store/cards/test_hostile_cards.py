"""Untrusted text in cards renders as plain text with markdown-it, the renderer of hubs, and never as markup."""

import json
import re
from html.parser import HTMLParser

import pytest
from huggingface_hub import DatasetCard, ModelCard
from markdown_it import MarkdownIt
from medalign.student.adapters.adapter_folder import AdapterRecord
from medalign.student.folders.model_card import CardFacts, student_card
from medalign.teacher_cache.store.cards.croissant import render_croissant
from medalign.teacher_cache.store.cards.markdown import markdown_code, markdown_text, one_line
from medalign.teacher_cache.store.cards.store_card import render_card
from stores import store_header

TEXTS = [
    "Chests\n# Owned\n\n| a | b |\n| --- | --- |",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "[free data](https://evil.example) ![i](https://evil.example/i.png)",
    "<https://evil.example> and https://evil.example or www.evil.example, me@evil.example",
    "**bold** _it_ ~~gone~~ `code` ``more`` [^1] $x$",
    "a | b |\n| c",
    "&lt;b&gt; &amp; &#60;i&#62;",
    "\\[x\\](y) \\<b>",
    "line\r\nend\u2028more\u2029\x85\x0b\x0c\x1b[31mred\x1b[0m\x00\x07",
    "\u202eesrever\u2066 and \ufeff\u200binvisible",
    "]: x\n[x]: https://evil.example\n\n[x]",
    "-->\n---\ntitle: owned\n---",
    "`",
    "```\nfence",
]
RENDER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


class Page(HTMLParser):
    """Elements and text of a rendered card."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text = ""
        self.feed(RENDER.render(markdown))

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def plain(text: str) -> str:
    """One line of a text without invisible characters; an oracle for these texts only."""
    return " ".join(
        re.sub("[\u202e\u2066\ufeff\u200b]", "", re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text)).split()
    )


@pytest.mark.parametrize("text", TEXTS)
def test_untrusted_text_renders_as_plain_text(text):
    for shown in (markdown_text, markdown_code):
        for frame in ("# {}", "{}", "| {} |\n| --- |\n| x |"):
            page = Page(frame.format(shown(text)))
            assert plain(text) in page.text
            assert not set(page.elements) - {"h1", "p", "table", "thead", "tbody", "tr", "th", "td", "code"}
    assert one_line(text) == plain(text)
    assert not re.search(r"https?://|www\.[a-z]|\w@", markdown_text(text)), "which GitHub would make a link"


def test_ordinary_titles_are_unchanged():
    for text in ("CC-BY-4.0", "Chests of phantoms, 2026 (v1.2)", "Röntgen: Thorax/Abdomen", "CC BY-NC 4.0"):
        assert markdown_text(text) == one_line(text) == text


@pytest.mark.parametrize("text", TEXTS)
def test_a_stores_card_keeps_its_shape(text):
    header, counts = store_header(range(3)), {"images": 3, "failures": 0, "root_sha256": "e" * 64}
    usual = Page(body(render_card(header, **counts)))
    hostile = header.model_copy(update={"title": text, "licence": text, "teacher": text, "created_by": text})
    page = Page(body(render_card(hostile, **counts)))
    assert page.elements == usual.elements
    assert page.text.count(plain(text)) == 5  # the teacher is named twice


@pytest.mark.parametrize("text", TEXTS)
def test_croissant_contains_the_text_and_no_html(text):
    header = store_header(range(3), title=text, licence=text, teacher=text, created_by=text)
    written = render_croissant(header, images=3, failures=0, root_sha256="e" * 64, index_sha256="f" * 64)
    assert not set("<>&") & set(written)
    described = json.loads(written)
    assert described["name"] == described["license"] == described["keywords"][-1] == plain(text)
    assert plain(text) in Page(described["description"]).text


@pytest.mark.parametrize("text", TEXTS)
def test_an_exported_students_card_keeps_its_shape(text):
    usual, page = (Page(body(student_card(facts(each)))) for each in ("base", text))
    usual_elements, elements = ([tag for tag in each.elements if tag != "code"] for each in (usual, page))
    assert elements == usual_elements
    assert page.text.count(plain(text)) >= 8


@pytest.mark.parametrize("text", TEXTS)
def test_metadata_for_the_hub_contain_the_text_as_a_value(text):
    header = store_header(range(3), title=text, licence=text)
    card = DatasetCard(render_card(header, images=3, failures=0, root_sha256="e" * 64))
    names = {"license", "license_name", "pretty_name", "size_categories", "task_categories", "tags"}
    assert set(card.data.to_dict()) <= names
    assert card.data.pretty_name == plain(text)
    student = ModelCard(student_card(facts(text)))
    assert set(student.data.to_dict()) <= {"library_name", "pipeline_tag", "base_model", "license", "tags"}
    assert student.data.license == text
    assert student.data.get("base_model") in (None, text)


def body(card: str) -> str:
    """The card without its front matter, which must be valid YAML."""
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert found
    return card[found.end() :]


def facts(text: str) -> CardFacts:
    store = {"teacher": text, "weights_sha256": text, "fingerprint": text, "data_use": text}
    store |= {"title": text, "license": text}
    scores = {"open_recall": {"value": 0.5, "count": 3}}
    run = {"splits": [text], "questions": 3, "questions_sha256": text, "decoding": {"name": text}}
    evaluation = {"run": run, "scores": {"reference": scores, "strict": scores}}
    return CardFacts(
        name=text,
        base=text,
        license=text,
        record=record(text, store),
        adapter_fingerprint=text,
        dtype="float32",
        evaluations=(evaluation,),
    )


def record(text: str, store: dict[str, object]) -> AdapterRecord:
    return AdapterRecord(
        base=text,
        base_fingerprint=text,
        template=text,
        attention_normalisation="sum",
        layers=(2,),
        rotation="full",
        trained={"language_model": "lora"},
        settings={"lora": {"r": text, "lora_alpha": text}, "alignment": {"preset": text, "alpha": text, "beta": text}},
        store=store,
        data_use="public",
    )


def test_the_oracle_detects_markup():
    assert set(Page("<b>x</b> [a](b) **c** `d`").elements) == {"p", "b", "a", "strong", "code"}

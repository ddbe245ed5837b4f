"""Every page of docs/how-to, and docs/looking.md, runs from top to bottom, and prints what it shows."""

import sys
from pathlib import Path

import pytest
from medalign.cli import app
from medalign.pipeline.demo import demo as demo_module
from medalign.pipeline.demo.demo import DemoPlan
from medalign.student.decoding import method_registry
from page_shell import PastRun, Shell
from pages import PAGES, ROOT, blocks, is_shown
from typer.testing import CliRunner

TINY = {
    "phantoms": 12,
    "anchors": 6,
    "align_steps": 1,
    "minimum_r2": -1e6,
    "minimum_skill": None,
    "steps": 2,
    "batch_size": 4,
}
"""The demo of these tests: the same steps, in seconds."""


def tiny_plan(**values):
    return DemoPlan(**(values | TINY))


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """What `medalign demo` prints and leaves, with fewer images and steps."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(demo_module, "DemoPlan", tiny_plan)
        return PastRun(("demo",), CliRunner().invoke(app, ["demo"]), folder / "medalign-demo")


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A folder to run pages in."""
    (tmp_path / "work").mkdir()
    (tmp_path / "service").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work" / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "work" / ".venv" / "bin" / "activate").touch()
    monkeypatch.syspath_prepend(tmp_path / "work")
    monkeypatch.setattr(method_registry, "_METHODS", dict(method_registry._METHODS))
    before = set(sys.modules)
    yield Shell(tmp_path / "work", tmp_path / "service")
    method_registry.installed_entry_points.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs" / "looking.md"], ids=lambda page: page.stem)
def test_page(page, shell, demo):
    text = page.read_text()
    shell.past_run = demo
    if "medalign-demo" in text and "medalign demo\n" not in text:
        demo.leave(Path.cwd())
    assert shell.run(blocks(text)) >= 2


def test_every_page_is_listed():
    index, navigation = (ROOT / "docs" / "README.md").read_text(), (ROOT / "mkdocs.yml").read_text()
    for page in PAGES:
        assert f"](how-to/{page.name})" in index
        assert f"- how-to/{page.name}" in navigation
    assert len(PAGES) == 10


def test_only_what_a_machine_lacks_is_not_run():
    """Weights, keys, servers and buckets of others, and the network."""
    reasons = {block.needs for page in PAGES for block in blocks(page.read_text())} - {None}
    assert reasons == {"a bucket", "a server", "real weights", "the network", "the sender's key"}


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```bash\nfalse\n```\n", "exits with 1"),
        ("```bash\nmedalign student train none.yaml --out runs/a\n```\n", "exits with [23]"),
        ("```bash\nmedalign student trein\n```\n", "exits with 2"),
        ("```bash\necho a b\n```\n```text\na c\n```\n", "is not what was printed"),
        ("```pycon\n>>> 1 + 1\n3\n```\n", "Expected:"),
        ("```pycon\n1 + 1\n```\n", "has no example"),
        ("<!-- exits: 3 -->\n```bash\ntrue\n```\n", "exits with 0"),
        ("```python\n1\n```\n", "needs a title"),
        ("- item\n  ```bash\n  true\n  ```\n", "not indented"),
    ],
)
def test_a_page_that_rots_fails(shell, page, complaint):
    with pytest.raises(AssertionError, match=complaint):
        shell.run(blocks(page))


def test_expected_text_is_matched_with_gaps():
    assert is_shown("a ... d", "x a b\n c d y")
    assert is_shown("a\n...\nd", "a d")
    assert is_shown("loss 0...", "loss 0.25")
    assert not is_shown("a ... d", "d a")
    assert not is_shown("a b", "a c b")


def test_a_job_that_is_interrupted_is_queued_again(shell, monkeypatch):
    """Slurm's signal before the time limit ends training with 130; the job script then asks for another turn."""
    page = (ROOT / "docs" / "how-to" / "slurm.md").read_text()
    script = next(block for block in blocks(page) if block.title == "train.sbatch")
    monkeypatch.setattr(shell, "_medalign", lambda words: shell._give("", "", "", 130))
    run = "```bash\nsbatch train.sbatch run.yaml out || true\ncat slurm-1234.out\n```\n```text\nrequeue 1234\n```\n"
    assert shell.run([script, *blocks(run)]) == 1

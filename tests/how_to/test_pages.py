"""Every page of docs/how-to runs from top to bottom, and prints what it shows."""

import os
import shutil
from pathlib import Path

import pytest
from medalign.pipeline.demo import demo as demo_module
from medalign.pipeline.demo.demo import DemoPlan, run_demo
from medalign.progress import Silent
from page_shell import Shell
from pages import PAGES, blocks

TINY = {"phantoms": 12, "steps": 2, "batch_size": 4}
"""The demo of these tests: the same steps, in seconds."""


def tiny_plan(**values):
    return DemoPlan(**(values | TINY))


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """What `medalign demo` leaves, with fewer images and steps."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_demo(Path("medalign-demo"), 0, Silent(), plan=tiny_plan(seed=0))
    return folder / "medalign-demo"


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A folder to run pages in."""
    (tmp_path / "work").mkdir()
    (tmp_path / "service").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work" / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "work" / ".venv" / "bin" / "activate").touch()
    monkeypatch.syspath_prepend(tmp_path / "work")
    return Shell(tmp_path / "work", tmp_path / "service")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page, shell, demo, monkeypatch):
    monkeypatch.setattr(demo_module, "DemoPlan", tiny_plan)
    text = page.read_text()
    if "medalign-demo" in text:
        shutil.copytree(demo, "medalign-demo", copy_function=os.link)
    assert shell.run(blocks(text)) >= 2

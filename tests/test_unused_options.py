"""An option that a command would not use is an error (docs/cli.md), and numbers in options are ASCII digits."""

import pytest
from medalign.cli import app
from medalign.errors import SettingsError
from medalign.pipeline.data.importers.splits import parse_shares
from medalign.pipeline.evaluation.batches.dispatch import WorkRequest
from medalign.pipeline.evaluation.batches.process_group import Group
from medalign.pipeline.evaluation.comparison.spec import load_comparison
from medalign.pipeline.evaluation.generate import ask
from medalign.pipeline.terminal import Bars
from medalign.pipeline.training.gpu_memory import parse_card
from medalign.student.processes import Processes
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.workers.task import parse_task
from rich.console import Console
from students import write_images
from typer.testing import CliRunner

ALONE = Group(Processes(number=1, rank=0, local_rank=0))
SPEC = """
students: [{name: tiny, path: nowhere}]
decodings: [greedy]
data: [{name: noise, manifest: nowhere.parquet}]
baseline: {adapter: base, decoding: greedy}
"""


def told(*arguments) -> str:
    done = CliRunner().invoke(app, [str(word) for word in arguments])
    assert done.exit_code == 2, done.output
    return " ".join(done.output.split())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"workers": 2}, "omit --workers"),
        ({"threads": 1}, "omit --threads"),
        ({"engine": "ray", "workers": 3, "threads": 2}, "omit --workers and --engine and --threads"),
    ],
)
def test_finish_computes_nothing(options, named):
    with pytest.raises(SettingsError, match=f"--finish joins the parts of tasks and computes nothing: {named}$"):
        WorkRequest(finish=True, **options).check(ALONE)
    WorkRequest(finish=True).check(ALONE)
    WorkRequest(task="0/2", **options).check(ALONE)


def test_threads_are_for_a_cpu():
    assert WorkRequest(threads=3).threads_on("cpu") == 3
    assert WorkRequest().threads_on("cuda") is None
    with pytest.raises(SettingsError, match="--threads 3 only applies to a CPU, but the device is 'cuda:1': omit it"):
        WorkRequest(threads=3).threads_on("cuda:1")


@pytest.mark.parametrize("options", [("--threads", "2"), ("--workers", "2"), ("--engine", "ray")])
def test_reanalysing_computes_no_answers(tmp_path, options):
    (tmp_path / "spec.yaml").write_text(SPEC)
    compare = ("student", "compare", tmp_path / "spec.yaml", "--out", tmp_path / "out", "--device", "cpu")
    refusal = f"--reanalyze scores saved answers and computes none: omit {options[0]}"
    assert refusal in told(*compare, "--reanalyze", *options)


@pytest.mark.parametrize("verb", ["evaluate", "ground", "compare"])
def test_resuming_and_finishing_contradict_each_other(tmp_path, verb):
    (tmp_path / "spec.yaml").write_text(SPEC)
    split = ("--student", tmp_path, "--manifest", tmp_path / "m.parquet")
    what = (tmp_path / "spec.yaml",) if verb == "compare" else split
    both = told("student", verb, *what, "--out", tmp_path / "out", "--resume", "--finish")
    assert "and --finish" in both
    assert "pass only one of them" in both


def test_lora_is_kept_apart_only_where_there_is_some(student_folder, tmp_path):
    what = ("--student", student_folder, "--manifest", tmp_path / "m.parquet", "--out", tmp_path / "out")
    refusal = f"--keep-lora-apart needs an adapter with LoRA, but {student_folder} has no adapter: omit the option"
    for verb in ("evaluate", "ground"):
        assert refusal in told("student", verb, *what, "--device", "cpu", "--keep-lora-apart")
    (image,) = write_images(tmp_path, [(24, 24)])
    asked = {"decode": "greedy", "overrides": (), "device": "cpu", "dtype": "auto", "template": None}
    with pytest.raises(SettingsError, match=r"but .* has no adapter: omit the option"):
        ask(student_folder, None, [image], "Is it?", **asked, max_new_tokens=1, keep_lora_apart=True)
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.replace("path: nowhere", "path: nowhere, keep_lora_apart: true"))
    with pytest.raises(SettingsError, match=r"students.tiny.keep_lora_apart is True, but none of its adapters has a"):
        load_comparison(path)


@pytest.mark.parametrize("text", ["٠/٢", "1e0/2", " 1/2", "1/2 ", "0/2\n", "+0/2", "0_0/2", "0/²", "0/" + "9" * 5000])
def test_a_task_is_two_numbers_of_ascii_digits(text):
    with pytest.raises(SettingsError, match=r"--task must be I/N with 0 <= I < N"):
        parse_task(text)
    assert str(parse_task("1/12")) == "1/12"


@pytest.mark.parametrize("text", ["٨x٨", "8x²", " 8x8", "8x8\n", "8_0x8", "9" * 5000 + "x1"])
def test_a_grid_is_two_numbers_of_ascii_digits(text):
    with pytest.raises(ValueError, match="a grid must be ROWSxCOLUMNS"):
        PatchGrid.parse(text)
    assert str(PatchGrid.parse("8x12")) == "8x12"


@pytest.mark.parametrize("share", ["٠.٥", " 0.5", "0.5\n", "0_0.5", "0x1", "nan", "+0.5"])
def test_shares_are_numbers_of_ascii_digits(share):
    with pytest.raises(SettingsError, match="expected a name, or fractions"):
        parse_shares(f"train={share},test=0.5")
    assert parse_shares("train=.5,test=5e-1") == {"train": 0.5, "test": 0.5}


@pytest.mark.parametrize("text", ["24", "24.5", "٢٤"])
def test_a_card_has_a_unit(text):
    with pytest.raises(SettingsError, match=r"--card .*(has no unit: add GB, as in 24(.5)?GB|with the unit GB)"):
        parse_card(text)


def test_problems_of_a_comparison_name_their_keys_and_values(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(
        SPEC.replace("[greedy]", "[{method: opera, for_students: {other: {threshold: 25}}}]").replace(
            "adapter: base", "adapter: lora"
        )
    )
    with pytest.raises(SettingsError) as caught:
        load_comparison(path)
    assert str(caught.value).splitlines() == [
        f"{path} has 3 problems:",
        "  baseline.adapter is 'lora', but tiny has base",
        "  decodings.opera.for_students has 'other', but the students are tiny",
        "  baseline.decoding is 'greedy', but the decodings are opera",
    ]


def test_a_wrong_value_is_shortened(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.replace("[greedy]", f"[{{method: opera, settings: [{'1, ' * 900}]}}]"))
    with pytest.raises(SettingsError) as caught:
        load_comparison(path)
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith("  decodings.0.settings: ")
    assert len(line) < 300


def test_a_stage_without_steps_draws_no_bar():
    output = Console(record=True, force_terminal=True, width=80)
    with Bars(output) as bars:
        bars.start("nothing to score", 0)
        bars.advance()
        bars.start("answering", 2)
        bars.advance(2)
        bars.start("nothing to copy", 0)
    drawn = output.export_text()
    assert "nothing" not in drawn
    assert "answering" in drawn
    assert "2/2" in drawn

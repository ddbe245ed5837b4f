"""The Python API gives what the commands give, and every example in docstrings and docs runs."""

import ast
import doctest
import json
import re
import shutil
from pathlib import Path

import medalign
import numpy as np
import polars as pl
import pytest
import torch
import yaml
from medalign.cli import app
from medalign.errors import InputError, PartialResult, SettingsError
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.pipeline.demo.demo import ASSETS
from medalign.progress import Progress, Silent
from PIL import Image
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
ROOMS = ("api", "commands", "pipeline", "teacher_cache", "student")
DEMO = "medalign-demo"
IMAGE = f"{DEMO}/phantoms/images/00000.png"
MANIFEST = f"{DEMO}/phantoms/manifest.parquet"
TEACHER = {"teacher": "phantom-tiny", "weights": f"{DEMO}/teacher.safetensors"}
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SETTINGS = {
    "student": {"path": f"{DEMO}/student", "template": "plain"},
    "data": {"manifest": MANIFEST, "store": f"{DEMO}/store.zarr"},
    "alignment": {"layer": 3},
    "lora": {"r": 2, "lora_alpha": 4},
    "training": {
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "dataloader_num_workers": 0,
        "device": "cpu",
    },
}


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The folder that `medalign demo` leaves, with fewer images and a training of one step."""
    folder = tmp_path_factory.mktemp("demo") / DEMO
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        make_phantoms(folder / "phantoms", 8, 0, Silent(), shift=0.7)
        shutil.copytree(ASSETS / "phantom-student", folder / "student")
        shutil.copy(ASSETS / "phantom-teacher.safetensors", folder / "teacher.safetensors")
        medalign.extract(f"{DEMO}/store.zarr", **TEACHER, manifest=MANIFEST, grid="8x8", device="cpu", threads=1)
        medalign.train(SETTINGS, f"{DEMO}/arms/medalign")
        every = medalign.Manifest.read(MANIFEST)
        images = every.images()["image_hash"].to_list()
        for name, hashes in (("targets", images[:4]), ("anchors", images[4:])):
            rows = every.frame.filter(pl.col("image_hash").is_in(hashes))
            medalign.Manifest(rows, every.root, every.source).write(Path(DEMO, f"{name}.parquet"))
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_with_the_demo(demo, tmp_path, monkeypatch):
    (tmp_path / DEMO).symlink_to(demo)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def student(demo):
    return medalign.load_student(demo / "student", template="plain", device="cpu")


def docstrings() -> dict[str, str]:
    """Every docstring that has an example, by file and name."""
    found = {}
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())) if ">>> " in path.read_text() else ():
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                found[f"{path.relative_to(ROOT)}::{getattr(node, 'name', '')}"] = text
    return {name: text for name, text in found.items() if ">>> " in text}


def pages() -> dict[str, str]:
    """The examples of every page, one after the other."""
    found = {}
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        blocks = [code for language, code in FENCE.findall(path.read_text()) if language == "pycon"]
        if blocks:
            found[path.relative_to(ROOT).as_posix()] = "\n".join(blocks)
    return found


EXAMPLES = docstrings() | pages()


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_give_what_they_show(name):
    test = doctest.DocTestParser().get_doctest(EXAMPLES[name], {}, name, name, 0)
    told: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=told.append)
    assert result.attempted > 1
    assert not result.failed, "".join(told)


def test_no_example_escapes():
    """Python on a page is written as a session (`pycon`), so that it runs here; nothing is skipped."""
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        languages = {language for language, _ in FENCE.findall(path.read_text())}
        assert not languages & {"python", "py", "python3"}, path
    assert "docs/python.md" in EXAMPLES
    assert "README.md" in EXAMPLES
    assert sum("::" in name for name in EXAMPLES) >= 9
    assert not [name for name, text in EXAMPLES.items() if "+SKIP" in text]


def test_the_reference_lists_every_exported_name():
    listed = re.findall(r"^::: medalign\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted([*listed, "__version__"]) == sorted(medalign.__all__)


def run(*words: object) -> dict:
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_ask_gives_what_generate_and_evaluate_give(student):
    questions = medalign.Manifest.read(MANIFEST).split("test").questions.head(4)
    medalign.evaluate(
        f"{DEMO}/student", MANIFEST, "results", template="plain", device="cpu", limit=4, max_new_tokens=8, batch_size=4
    )
    expected = pl.read_parquet("results/predictions.parquet")["prediction"].to_list()
    assert len(set(expected)) > 1
    pairs = [(f"{DEMO}/phantoms/{image}", question) for image, question in questions.select("image", "question").rows()]
    assert [answer.text for answer in student.ask_batch(pairs, max_new_tokens=8, batch_size=4)] == expected
    assert [student.ask(*pair, max_new_tokens=8) for pair in pairs] == expected
    image, question = pairs[0]
    told = ("--student", f"{DEMO}/student", "--template", "plain", "--device", "cpu", "--max-new-tokens", 8)
    generated = run("student", "generate", *told, "--image", image, "--question", question)
    assert generated["answer"] == expected[0]


def test_ask_passes_settings_to_the_decoding(student):
    told = ("--student", f"{DEMO}/student", "--template", "plain", "--device", "cpu", "--max-new-tokens", 6)
    sampled = ("--decode", "nucleus", "--set", "decode.temperature=3.0", "--set", "decode.seed=5")
    question = "Describe the image."
    expected = run("student", "generate", *told, *sampled, "--image", IMAGE, "--question", question)["answer"]
    assert student.ask(IMAGE, question, decoding="nucleus", max_new_tokens=6, temperature=3.0, seed=5) == expected
    assert student.ask(IMAGE, question, max_new_tokens=6) != expected
    with pytest.raises(SettingsError, match="greedy has no setting 'temperature'"):
        student.ask(IMAGE, question, temperature=3.0)


def test_images_in_memory_are_seen_as_their_files(student, tmp_path):
    """Of every kind: gray and RGB, turned by EXIF, with a palette, a single image and a list of them."""
    pixels = np.asarray(Image.open(IMAGE))
    color = np.stack([pixels, pixels // 2, 255 - pixels], -1)
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(color).save("color.png")
    Image.fromarray(color).save("turned.png", exif=turned)
    Image.fromarray(pixels).convert("P").save("palette.png")
    held = [
        (IMAGE, pixels),
        (IMAGE, Image.open(IMAGE)),
        ("color.png", color),
        ("color.png", Image.fromarray(color)),
        ("turned.png", Image.open("turned.png")),
        ("palette.png", Image.open("palette.png")),
    ]
    teacher = medalign.load_teacher("phantom-tiny", f"{DEMO}/teacher.safetensors", device="cpu")
    of_files = teacher.targets([path for path, _ in held])
    of_memory = teacher.targets([image for _, image in held])
    assert of_memory.E_v.equal(of_files.E_v)
    assert of_memory.E_a.equal(of_files.E_a)
    assert not of_files.E_v[2].equal(of_files.E_v[4])
    question = "Describe the image."
    for path, image in held[::2]:
        assert student.ask(image, question, max_new_tokens=6) == student.ask(Path(path), question, max_new_tokens=6)
    assert student.ask([pixels, "color.png"], question, max_new_tokens=3)
    assert student.ask([], "What is this?", max_new_tokens=3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            torch.zeros(3, 8, 8),
            "an image cannot be of type Tensor: pass a path, a Pillow image or a numpy array of uint8",
        ),
        ([IMAGE, None], "an image cannot be of type NoneType"),
        (np.zeros((8, 8)), r"an array of float64 with shape \[8, 8\]: pass uint8"),
        (np.zeros((3, 8, 8), np.uint8), r"an array of uint8 with shape \[3, 8, 8\]"),
        (np.zeros((2, 900, 3), np.uint8), "900 x 2 pixels"),
        (np.zeros((0, 8), np.uint8), "no pixels: 8 x 0"),
        ("absent.png", "cannot read absent.png: cannot be read: No such file"),
    ],
)
def test_what_is_no_image_is_an_input_error(student, image, message):
    with pytest.raises(InputError, match=message):
        student.ask(image, "What is this?")


@pytest.mark.parametrize("grid", ["8x8", "12x12"])
def test_a_teachers_targets_are_the_rows_of_a_store(grid):
    """Bit for bit those of profile float32, where batches and threads are the same."""
    torch.set_num_threads(1)
    images = sorted(Path(DEMO, "phantoms", "images").glob("*.png"))[:5]
    medalign.extract(
        "s.zarr",
        **TEACHER,
        manifest=MANIFEST,
        limit=5,
        grid=grid,
        profile="float32",
        batch_size=3,
        threads=1,
        device="cpu",
    )
    store = medalign.open_store("s.zarr")
    teacher = medalign.load_teacher("phantom-tiny", TEACHER["weights"], device="cpu")
    targets = teacher.targets(images, grid=grid, batch_size=3)
    for place, image in enumerate(images):
        assert targets.E_v[place].equal(store.for_image(image).E_v)
        assert targets.E_a[place].equal(store.for_image(image).E_a)
    assert teacher.targets(images[0]).E_v.shape == (1, 144, 96)


def test_a_teacher_wants_images():
    teacher = medalign.load_teacher("phantom-tiny", TEACHER["weights"], device="cpu")
    assert repr(teacher).startswith("<Teacher 'phantom-tiny': float32 on cpu, 12x12 patches of 96 channels, weights ")
    with pytest.raises(InputError, match="no images"):
        teacher.targets([])
    with pytest.raises(SettingsError, match="ROWSxCOLUMNS"):
        teacher.targets(IMAGE, grid="8")


class Watching(Silent):
    def __init__(self):
        self.labels, self.steps = [], 0

    def start(self, label, total):
        self.labels.append(label)

    def advance(self, steps=1):
        self.steps += steps


def test_progress_is_silent_by_default_and_goes_to_whoever_is_given(student, capfd):
    pair = (IMAGE, "Is this a chest radiograph?")
    student.ask_batch([pair], max_new_tokens=1)
    assert capfd.readouterr() == ("", "")
    watching = Watching()
    assert isinstance(watching, Progress)
    student.ask_batch([pair] * 3, max_new_tokens=1, batch_size=2, progress=watching)
    assert (watching.labels, watching.steps) == (["answering (greedy)"], 3)
    student.ask_batch([pair], max_new_tokens=1, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "answering (greedy)" in err


def test_images_without_a_row_are_a_partial_result_with_the_report(tmp_path):
    (tmp_path / "scans").mkdir()
    shutil.copy(IMAGE, "scans/a.png")
    Path("scans/b.png").write_bytes(Path(IMAGE).read_bytes()[:200])
    with pytest.raises(PartialResult, match=r"1 image has no row in s\.zarr") as caught:
        medalign.extract("s.zarr", **TEACHER, images="scans", grid="8x8", data_use="public", device="cpu")
    assert caught.value.report.summary()["images"] == 2
    store = medalign.open_store("s.zarr")
    assert (len(store), len(store.failures)) == (1, 1)
    assert store.header.data_use == "public"


def test_settings_are_those_of_a_file():
    Path("run.yaml").write_text(yaml.safe_dump(SETTINGS))
    given = json.loads(json.dumps(SETTINGS))
    plans = [
        medalign.train("run.yaml", dry_run=True, overrides=["alignment.beta=0.06", "lora.r=3"], card="24GB"),
        medalign.train(given, dry_run=True, overrides={"alignment.beta": 0.06, "lora.r": 3}, card="24GB"),
    ]
    assert plans[0].settings == plans[1].settings
    assert plans[0].settings.alignment.beta == 0.06
    assert plans[0].summary() == plans[1].summary()
    assert given == SETTINGS  # overrides do not change what was given
    with pytest.raises(SettingsError, match="'layer' is a value, not a section"):
        medalign.train(given, dry_run=True, overrides={"alignment.layer.x": 1})


def test_a_finished_run_can_be_resumed_without_a_configuration(demo):
    report = medalign.train(out=f"{DEMO}/arms/medalign", resume=True)
    assert report.was_finished
    with pytest.raises(SettingsError, match="CONFIG is missing"):
        medalign.train(out="elsewhere")


def test_a_comparison_is_scored_again_without_students():
    spec = {
        "students": [{"name": "phantom", "path": f"{DEMO}/student", "template": "plain"}],
        "decodings": ["greedy"],
        "data": [{"name": "phantoms", "manifest": MANIFEST, "limit": 3}],
        "baseline": {"adapter": "base", "decoding": "greedy"},
        "max_new_tokens": 3,
    }
    first = medalign.compare(spec, "compared", device="cpu")
    Path("spec.yaml").write_text(yaml.safe_dump(spec))
    again = medalign.compare("spec.yaml", "compared", reanalyze=True)
    assert (first.answered, again.answered) == (1, 0)
    assert first.summary()["findings"] == again.summary()["findings"]
    with pytest.raises(SettingsError, match="--resume and --reanalyze are incompatible"):
        medalign.compare(spec, "compared", resume=True, reanalyze=True)

"""`medalign teacher preview`: sound stores, broken ones, and what is said when images are missing."""

import json
import math
import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from medalign.cli import app
from medalign.errors import InputError
from medalign.pipeline.data.importers import ImportOptions, import_folder
from medalign.pipeline.extraction.image_sources import ImageRequest
from medalign.pipeline.reports.page import Page
from medalign.pipeline.stores.preview import preview, preview_verdict, sample_images
from medalign.pipeline.stores.preview import preview_page as preview_page_module
from medalign.pipeline.stores.preview.preview import parse_patch, preview_store
from medalign.pipeline.stores.preview.preview_page import preview_page
from medalign.pipeline.stores.preview.preview_result import PreviewRequest
from medalign.pipeline.stores.preview.row_sample import draw_positions, read_rows
from medalign.progress import Silent
from medalign.teacher_cache.images import image_hash
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.format.keyed_hashes import make_key, read_key
from odd_stores import teach, write_pictures, write_rows
from PIL import Image
from stores import write_store
from typer.testing import CliRunner

IMAGES = 60


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> SimpleNamespace:
    """Images, what the teacher says of them, and their sound store."""
    folder = tmp_path_factory.mktemp("preview")
    images = write_pictures(folder / "images", IMAGES)
    taught = [teach(image) for image in images]
    store = write_rows(folder / "sound.zarr", images, taught)
    return SimpleNamespace(folder=folder, images=images, taught=taught, store=store)


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch):
    """19 instead of 199, at a level of 5 %; the tests of the fit itself use more."""
    monkeypatch.setattr(preview, "fit_images", partial(preview.fit_images, permutations=19))
    monkeypatch.setattr(preview_verdict, "_SIGNIFICANT", 0.05)


def run(*arguments: object, code: int = 0) -> SimpleNamespace:
    result = CliRunner().invoke(app, ["teacher", "preview", *map(str, arguments)], env={"COLUMNS": "200"})
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}"
    return SimpleNamespace(out=" ".join(result.stdout.split()), err=" ".join(result.stderr.split()), raw=result.stdout)


def report(*arguments: object, code: int = 0) -> dict:
    return json.loads(run(*arguments, "--json", code=code).raw)


def odd(values: dict) -> list[tuple[int, str]]:
    return [(row["row"], row["what"]) for row in values["odd_rows"]]


def page_of(store: Path, images: Path | None = None, **options: object) -> Page:
    request = ImageRequest(images=images) if images else None
    found = preview_store(PreviewRequest(location=str(store), images=request, **options), Silent())
    return preview_page(found, parse_patch(found.request.patch, found.store.header.grid))


def test_a_sound_store_with_its_images(lab):
    told = report(lab.store, "--images", lab.images[0].parent)
    assert (told["looks"], told["images"]["state"], odd(told)) == ("sound", "fits", [])
    assert told["rows_read"] == told["rows_with_an_image"] == told["images"]["rows_compared"] == IMAGES
    assert told["images"]["own_image_preferred"] > 0.95
    assert "none of 19 orders agreed as well (p = 0.05, the smallest that 19 orders can show)" in told["verdict"][2]


def test_the_report_draws_rows_over_their_images(lab):
    page = page_of(lab.store, lab.images[0].parent)
    assert page.state == "good"
    assert page.lead == "The rows look sound, and match their images."
    assert "data-use class public" in page.notice
    figures = {figure.name: figure for figure in page.figures}
    assert set(figures) == {"agreement", "attention", "similarity", "numbers"}
    assert figures["attention"].kind == "overlays"
    assert figures["attention"].table["views"][0][0]["box"] == [0, 0, 32, 32]


def test_the_report_is_written_with_its_record(lab, tmp_path):
    told = report(lab.store, "--rows", 1, "--out", tmp_path / "page")
    assert json.loads((tmp_path / "page" / "preview.json").read_text()) == told
    assert told["report"] == str(tmp_path / "page" / "report.html")
    assert "It was not checked whether they belong" in (tmp_path / "page" / "report.html").read_text()
    names = {path.stem for path in (tmp_path / "page" / "figures").glob("*.parquet")}
    assert names == {"attention", "similarity", "numbers"}


def test_the_next_step_follows_only_a_store_that_is_not_broken(lab):
    assert f"next: `medalign student train CONFIG.yaml --set data.store={lab.store} --dry-run`" in run(lab.store).out


def test_permuted_rows_look_sound_without_images_and_broken_with_them(lab, tmp_path):
    store = write_rows(tmp_path / "s.zarr", lab.images, lab.taught[7:] + lab.taught[:7])
    alone = report(store)
    assert (alone["looks"], alone["images"]["state"]) == ("sound", "not checked")
    assert "permuted rows look sound; pass --images" in " ".join(alone["verdict"])
    shown = run(store, "--images", lab.images[0].parent, code=4)
    assert "The rows do not match their images: permuted, or of other images" in shown.err
    assert "`medalign store verify" in shown.err
    assert "next:" not in shown.out


def test_two_exchanged_rows_are_named(lab, tmp_path):
    taught = list(lab.taught)
    taught[3], taught[40] = taught[40], taught[3]
    store = write_rows(tmp_path / "s.zarr", lab.images, taught)
    told = report(store, "--images", lab.images[0].parent, code=4)
    assert odd(told) == [(3, "exchanged"), (40, "exchanged")]
    assert told["images"]["state"] == "fits"
    page = page_of(store, lab.images[0].parent)
    panels = next(figure.table["note"].to_list() for figure in page.figures if figure.name == "other-images")
    assert panels[:2] == ["over its own image", "over the image of row 40"]
    assert page.state == "bad"


def test_broken_rows_are_listed_and_the_others_still_compared(lab, tmp_path):
    taught = [(E_v.clone(), E_a.clone()) for E_v, E_a in lab.taught]
    taught[1][0][:] = 0
    taught[2][0][:] = taught[2][0][0, 0]
    taught[4][1][:] = 0
    taught[6] = (taught[5][0], taught[5][1])
    taught[8][0][:] *= 1e3
    store = write_rows(tmp_path / "s.zarr", lab.images, taught)
    told = report(store, "--images", lab.images[0].parent, code=4)
    found = odd(told)
    assert [row for row in found if row[0] < 5] == [(1, "zero"), (2, "constant"), (4, "impossible attention")]
    assert {(5, "equal rows"), (6, "equal rows"), (8, "far from all others")} <= set(found)
    assert {row for row, _ in found} == {1, 2, 4, 5, 6, 8}
    assert told["images"]["rows_compared"] == IMAGES - 4


def test_equal_rows_of_equal_pixels_are_no_flaw(lab, tmp_path):
    copy = tmp_path / "same-picture.png"
    shutil.copy(lab.images[0], copy)
    copy.write_bytes(copy.read_bytes() + b"\0")  # the same pixels in another file
    store = write_rows(tmp_path / "s.zarr", [*lab.images[:9], copy], [*lab.taught[:9], lab.taught[0]])
    assert image_hash(copy.read_bytes()) in open_store(store)
    assert odd(report(store)) == []


def test_a_damaged_row_is_listed_as_unreadable(lab, tmp_path):
    store = Path(shutil.copytree(lab.store, tmp_path / "s.zarr"))
    shard = next(path for path in sorted((store / "E_v" / "c").rglob("*")) if path.is_file())
    data = bytearray(shard.read_bytes())
    data[10] ^= 1
    shard.chmod(0o600)
    shard.write_bytes(data)
    told = report(store, code=4)
    assert odd(told) == [(0, "unreadable")]
    assert told["rows_read"] == IMAGES


def test_an_index_that_describes_another_image_is_odd(lab, monkeypatch):
    """As after a change of the index alone; the digests of a store would be wrong too, which only verify compares."""
    true = sample_images.index_values

    def changed(store, names):
        values = {name: column.copy() for name, column in true(store, names).items()}
        values["width"][3] += 1
        values["pixel_hash"][5] = values["pixel_hash"][6]
        return values

    monkeypatch.setattr(sample_images, "index_values", changed)
    told = report(lab.store, "--images", lab.images[0].parent)
    assert odd(told) == [(3, "index"), (5, "index")]
    assert told["looks"] == "odd"


def test_few_images_are_not_enough_to_judge(lab, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for image in lab.images[:5]:
        shutil.copy(image, few)
    (few / "broken.png").write_bytes(lab.images[0].read_bytes()[:100])
    told = report(lab.store, "--images", few, "--rows", 8)
    assert (told["images"]["state"], told["images"]["rows_compared"]) == ("too few", 0)
    assert told["notes"] == ["1 given image has no row in the store"]
    assert told["rows_read"] == 8


def test_images_of_another_data_set_are_refused(lab, tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    assert "none of the 1 image in" in run(lab.store, "--images", tmp_path, code=3).err


def test_keyed_stores_need_their_key_to_find_images(lab, tmp_path):
    make_key(tmp_path / "key")
    store = write_rows(tmp_path / "s.zarr", lab.images, lab.taught, key=read_key(tmp_path / "key"))
    images = ("--images", lab.images[0].parent)
    assert "--hash-key" in run(store, *images, code=4).err
    told = report(store, *images, "--hash-key", tmp_path / "key")
    assert (told["looks"], told["images"]["state"], odd(told)) == ("sound", "fits", [])
    assert report(store)["looks"] == "sound"


@pytest.mark.parametrize("patch", ["4,0", "0,4", "1", "a,b", "-1,0", "1,2,3", "9" * 5000 + ",0"])
def test_a_patch_outside_the_grid_is_refused(lab, patch):
    assert "from 0,0 to 3,3 in a store with grid 4x4" in run(lab.store, f"--patch={patch}", code=2).err


def test_the_similarity_is_that_of_the_chosen_cell(lab):
    figure = next(figure for figure in page_of(lab.store, patch="1,2", rows=2).figures if figure.name == "similarity")
    assert "rows and columns of padding count too" in figure.caption
    store = open_store(lab.store)
    rows = list(read_rows(store, draw_positions(store, 2, 0), Silent()))
    for values, row in zip(figure.table["values"], rows, strict=True):
        torch.testing.assert_close(torch.tensor(values.to_list()), row.S[6])


def test_the_table_has_words_and_no_missing_numbers(lab):
    shown = run(lab.store, "--rows", 2).out
    assert re.search(r"entropy of E_a in nats median \d\.\d+, from \d\.\d+ to \d\.\d+", shown)
    assert not re.search(r"\bnan\b|E a\b|least|None|visible", shown)


def test_a_store_without_rows_is_refused(tmp_path):
    store = write_store(tmp_path / "s.zarr", range(3), failing=range(3))
    message = run(store, "--out", tmp_path / "page", code=4).err
    assert f"{store} has 0 rows (3 images failed)" in message
    assert not (tmp_path / "page").exists()


def test_a_page_of_zeros_has_one_line_for_all_rows_and_no_missing_numbers(lab, tmp_path):
    taught = [(0 * E_v, 0 * E_a) for E_v, E_a in lab.taught[:9]]
    page = page_of(write_rows(tmp_path / "s.zarr", lab.images[:9], taught))
    (table,) = [table for section in page.sections for table in section.tables]
    (line,) = table.rows
    assert line[0] == "0, 1, 2, 3, 4, 5 and 3 more"
    assert page.lead.count("All 9 rows are broken: 9 rows have patches of zeros") == 1
    assert "Some rows" not in [section.title for section in page.sections]
    assert not any(re.search(r"\bnan\b", figure.caption + figure.alt) for figure in page.figures)


def test_rows_that_are_not_finite_are_broken_and_in_no_number(lab, tmp_path):
    taught = list(lab.taught)
    for place, value in ((1, math.nan), (4, math.inf), (7, -math.inf)):
        E_v, E_a = (part.clone() for part in taught[place])
        (E_a if place == 4 else E_v).view(-1)[3] = value
        taught[place] = E_v, E_a
    preview = preview_store(PreviewRequest(location=str(write_rows(tmp_path / "s.zarr", lab.images, taught))), Silent())
    told, page = preview.summary(), preview_page(preview, None)
    assert (told["looks"], told["flaws"]) == ("broken", {"unreadable": 3})
    reasons = {row["row"]: row["detail"] for row in told["odd_rows"]}
    not_finite = "has values that are not finite or beyond 2^50"
    assert reasons == {1: f"E_v {not_finite}", 4: f"E_a {not_finite}", 7: f"E_v {not_finite}"}
    (table,) = [table for section in page.sections for table in section.tables]
    assert [(row[0], row[-1]) for row in table.rows] == [("1, 7", reasons[1]), ("4", reasons[4])]
    numbers = next(figure for figure in page.figures if figure.name == "numbers")
    assert numbers.caption.startswith(f"Of {len(lab.images) - 3} rows.")
    assert numbers.table["value"].is_finite().all()


def test_moved_images_are_refused_and_missing_ones_noted(lab, tmp_path):
    copies = Path(shutil.copytree(lab.images[0].parent, tmp_path / "copies"))
    manifest = tmp_path / "m.parquet"
    import_folder(copies, ImportOptions(data_use="public"), Silent()).write(manifest)
    request = PreviewRequest(location=str(lab.store), images=ImageRequest(manifest=manifest), rows=8)
    for image in sorted(copies.iterdir())[5:]:
        image.unlink()
    assert preview_store(request, Silent()).notes == (
        "55 images are missing, although the manifest lists them; pass --root if they were moved",
    )
    shutil.rmtree(copies)
    with pytest.raises(InputError, match=rf"all 60 images of {manifest} .* are missing; first: {copies}.* --root"):
        preview_store(request, Silent())


def test_an_image_that_cannot_be_read_is_noted_with_its_row_and_not_drawn(lab, tmp_path):
    copies = Path(shutil.copytree(lab.images[0].parent, tmp_path / "copies"))
    manifest = tmp_path / "m.parquet"
    import_folder(copies, ImportOptions(data_use="public"), Silent()).write(manifest)
    (copies / lab.images[1].name).write_bytes(b"no image")
    found = preview_store(
        PreviewRequest(location=str(lab.store), images=ImageRequest(manifest=manifest), rows=8, seed=8),
        Silent(),
    )
    (note,) = found.notes
    assert note.startswith("1 row was not compared with images that cannot be read: row 1: ")
    assert {figure.kind for figure in preview_page(found, None).figures} == {"overlays", "histograms"}


def test_an_interrupted_preview_leaves_nothing(lab, tmp_path, monkeypatch):
    def interrupted(path, page, progress):
        (path.parent / "figures").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(preview_page_module, "write_page", interrupted)
    assert "interrupted; nothing was written" in run(lab.store, "--rows", 1, "--out", tmp_path / "page", code=130).err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused(lab, tmp_path):
    (tmp_path / "notes.txt").touch()
    assert "pass another --out" in run(lab.store, "--out", tmp_path, code=3).err


def test_gram_stores_have_no_norms_and_fit_by_their_cosines(lab, tmp_path):
    store = write_rows(tmp_path / "s.zarr", lab.images, lab.taught, profile="gram16")
    told = report(store, "--images", lab.images[0].parent)
    assert (told["looks"], told["images"]["state"]) == ("sound", "fits")
    assert told["median_norm"] == {"least": None, "median": None, "largest": None}


def test_rows_with_images_are_drawn_first_and_the_seed_decides(lab):
    store = open_store(lab.store)
    some = draw_positions(store, 10, 0, first=range(50, 60))
    assert some == list(range(50, 60))
    assert set(range(55, 60)) < set(draw_positions(store, 10, 0, first=range(55, 60)))
    assert draw_positions(store, 10, 0) == draw_positions(store, 10, 0) != draw_positions(store, 10, 1)
    assert draw_positions(store, 100, 3) == list(range(IMAGES))


def test_a_second_preview_into_a_folder_says_that_there_is_one(lab, tmp_path):
    report(lab.store, "--rows", 1, "--out", tmp_path / "page")
    told = run(lab.store, "--rows", 1, "--out", tmp_path / "page", code=3).err
    assert f"{tmp_path / 'page'} already contains a preview: pass another --out" in told
    assert run(lab.store, "--rows", 1, "--out", tmp_path, code=3).err.count("exists and is not a preview") == 1


@pytest.mark.parametrize("stated", ["public", "credentialed", "private"])
def test_a_preview_has_the_stricter_class_of_store_and_manifest(lab, tmp_path, stated):
    manifest = tmp_path / "m.parquet"
    import_folder(lab.images[0].parent, ImportOptions(data_use=stated), Silent()).write(manifest)
    told = report(lab.store, "--manifest", manifest, "--rows", 1, "--out", tmp_path / "page")
    assert told["data_use"] == stated
    assert f"data-use class {stated}" in told["report_contains"]

"""Names of images as tables from other machines have them: found under the image folder, or refused before hashing."""

import json
import unicodedata
from pathlib import Path

import pytest
import release_trees as trees
from hypothesis import given
from hypothesis import strategies as st
from medalign.errors import InputError
from medalign.pipeline.data.importers import ImportOptions, import_folder, import_llava_json, import_vqa_rad
from medalign.pipeline.data.importers.image_folders.image_files import listed_images
from medalign.pipeline.data.importers.image_names import locate_images, normalized, pick_root
from medalign.progress import Silent

NFC, NFD = (unicodedata.normalize(form, "café/Größe é.png") for form in ("NFC", "NFD"))


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)

    def start(self, label, total):
        self.lines.append(f"start {label}")

    def __str__(self):
        return "\n".join(self.lines)


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def located(root, *names):
    return locate_images(root, names, Silent())


@pytest.mark.parametrize(("stated", "stored"), [(NFC, NFD), (NFD, NFC), (NFC, NFC), (NFD, NFD)])
def test_unicode_forms_are_matched_to_the_bytes_on_disk(tmp_path, stated, stored):
    touch(tmp_path, stored)
    assert located(tmp_path, stated) == {stated: stored}


def test_the_exact_form_is_preferred_and_a_doubtful_one_refused(tmp_path):
    touch(tmp_path, "\u00e9.png", "e\u0301.png")
    assert located(tmp_path, "e\u0301.png") == {"e\u0301.png": "e\u0301.png"}
    touch(tmp_path, "\u1e69.png", "s\u0323\u0307.png")  # two of the forms of one letter with two marks
    with pytest.raises(InputError, match="in 2 Unicode forms; rename one of them"):
        located(tmp_path, "s\u0307\u0323.png")


def test_backslashes_dots_and_doubled_slashes(tmp_path):
    touch(tmp_path, "images/a.png")
    for name in ("images\\a.png", ".\\images\\a.png", "./images//a.png", "images/../images/a.png"):
        assert located(tmp_path, name) == {name: "images/a.png"}


def test_absolute_names_of_this_machine_and_of_others(tmp_path):
    touch(tmp_path, "set/a.png", "set/b.png")
    here = [f"{tmp_path}/set/a.png", f"{tmp_path}/set/b.png"]
    assert list(located(tmp_path, *here).values()) == ["set/a.png", "set/b.png"]
    notes = Notes()
    for names in (
        ["/data/me/set/a.png", "/data/me/set/b.png"],
        ["D:\\data\\set\\a.png", "D:\\data\\set\\b.png"],
        ["../../other/set/a.png", "../../other/set/b.png"],
        ["\\\\server\\share\\set\\a.png", "\\\\server\\share\\set\\b.png"],
    ):
        assert list(locate_images(tmp_path, names, notes).values()) == ["set/a.png", "set/b.png"]
    assert f"2 image names such as /data/me/set/a.png are read below {tmp_path} without their prefix data/me/" in str(
        notes
    )
    assert pick_root([tmp_path / "none"], here) == tmp_path / "set"


def test_two_names_never_become_one_file(tmp_path):
    """The same leading folders go from all names, so `one/a.png` and `two/a.png` cannot both be `a.png`."""
    touch(tmp_path, "a.png")
    with pytest.raises(InputError, match="lead out of the image folder"):
        located(tmp_path, "/data/one/a.png", "/data/two/a.png")


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), min_size=1, max_size=6, unique_by=tuple))
def test_names_stay_distinct(tmp_path_factory, parts):
    root = tmp_path_factory.mktemp("root")
    names = ["/x/" + "/".join(folders) + ".png" for folders in parts]
    touch(root, *("/".join(folders) + ".png" for folders in parts))
    found = located(root, *names)
    assert len(set(found.values())) == len(names)
    assert [found[name] for name in names] == ["/".join(folders) + ".png" for folders in parts]


def test_names_that_lead_elsewhere_are_refused_before_hashing(tmp_path):
    path = tmp_path / "talks.json"
    talk = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a"}]
    path.write_text(json.dumps([{"id": 1, "image": "/data/gone/a.png", "conversations": talk}]))
    notes = Notes()
    with pytest.raises(InputError) as caught:
        import_llava_json(path, ImportOptions(), notes)
    assert str(caught.value) == (
        f"1 image name leads out of the image folder {tmp_path}, such as /data/gone/a.png, and none exists "
        "below it without leading folders. Pass the folder of the images with --images DIR"
    )
    assert "hashing" not in str(notes)


def test_missing_images_are_advised_on(tmp_path):
    touch(tmp_path, "deep/pictures/a.png", "B.PNG", "c.jpg", "images/e.png")
    with pytest.raises(InputError, match=rf"images/e\.png is in {tmp_path}: pass this folder with --images"):
        located(tmp_path / "images", "images/e.png")
    for name, advice in (
        ("a.png", f"a.png is in {tmp_path}/deep/pictures: pass this folder with --images"),
        ("b.png", "has B.PNG, not b.png"),
        ("c.png", "has c.jpg, not c.png"),
        ("d.png", "pass their folder with --images DIR"),
    ):
        with pytest.raises(InputError, match=r"1 of 1 image files are missing") as caught:
            located(tmp_path, name)
        assert advice in str(caught.value)


def test_a_few_missing_images_are_moved_to_the_others(tmp_path):
    """Another folder as --images would lose those that are there."""
    touch(tmp_path, "c.png", "images/a.png", "images/b.png")
    with pytest.raises(
        InputError, match=rf"(?s)1 of 3 .*\nc\.png is in {tmp_path}: move it to {tmp_path}/images"
    ) as caught:
        located(tmp_path / "images", "a.png", "b.png", "c.png")
    assert "--images" not in str(caught.value)


def test_every_missing_image_that_is_there_in_another_spelling_is_named(tmp_path):
    touch(tmp_path, "Patient scan 9.JPG", "scan-4.png", "there.png")
    with pytest.raises(InputError) as caught:
        located(tmp_path, "gone.jpg", "patient scan 9.jpg", "scan-4.jpg", "there.png")
    assert str(caught.value).splitlines() == [
        "3 of 4 image files are missing:",
        *(f"  - {tmp_path / name}" for name in ("gone.jpg", "patient scan 9.jpg", "scan-4.jpg")),
        f"{tmp_path} has Patient scan 9.JPG, not patient scan 9.jpg (only the case differs): rename the file or change "
        "the table",
        f"{tmp_path} has scan-4.png, not scan-4.jpg: rename the file or change the table",
    ]
    with pytest.raises(InputError) as caught:
        located(tmp_path, "gone.jpg", "there.png")
    assert "--images" not in str(caught.value)  # the folder is the right one


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("case_3.jpg", "case_03.jpg"),
        ("pictures/fal_3.jpg", "pictures/fall_3.jpg"),
        ("picture/fall_3.jpg", "pictures/fall_3.jpg"),
    ],
)
def test_the_closest_name_of_a_missing_image_is_suggested(tmp_path, name, near):
    touch(tmp_path, "case_03.jpg", "case_13.jpg", "pictures/fall_3.jpg", "pictures/fall_33.jpg")
    with pytest.raises(InputError) as caught:
        located(tmp_path, name)
    assert str(caught.value).splitlines()[-1] == f"{tmp_path / name}: did you mean {tmp_path / near}?"


def test_an_image_with_another_number_is_not_suggested(tmp_path):
    touch(tmp_path, "fall_4.jpg", "fall_31.jpg", "there.jpg")
    with pytest.raises(InputError) as caught:
        located(tmp_path, "fall_3.jpg", "there.jpg")
    assert "did you mean" not in str(caught.value)


def test_asked_images_are_known_in_any_spelling(tmp_path):
    record = {"question": "?", "answer": "yes", "answer_type": "CLOSED", "phrase_type": "freeform", "qid": 1}
    trees.draw(tmp_path / "images" / "\u00e9.jpg", 1)
    trees.write_json(tmp_path / "vqa_rad.json", [{**record, "image_name": "e\u0301.jpg"}])
    manifest = import_vqa_rad(tmp_path, ImportOptions(), Silent())
    assert manifest.frame["image"].to_list() == ["\u00e9.jpg"]
    assert normalized("e\u0301.jpg") == "\u00e9.jpg"


HIDDEN = ("._a.png", ".b.png", ".Trash-0/c.png", "__MACOSX/d.png", "@eaDir/e.png", ".ipynb_checkpoints/f.png")


def test_hidden_and_system_files_are_never_images(tmp_path):
    touch(tmp_path, *HIDDEN)
    for seed, name in enumerate(("a.png", "deep/b.png")):
        trees.draw(tmp_path / name, seed)
    assert listed_images(tmp_path) == ["a.png", "deep/b.png"]
    notes = Notes()
    manifest = import_folder(tmp_path, ImportOptions(), notes)
    assert manifest.frame["image"].to_list() == ["a.png", "deep/b.png"]
    assert "6 hidden or system files and folders are skipped: 1 .Trash-0, 1 ._* (AppleDouble), 1 .b.png" in str(notes)


def test_a_hidden_folder_may_be_the_source_itself(tmp_path):
    trees.draw(tmp_path / ".cache" / "a.png", 1)
    assert import_folder(tmp_path / ".cache", ImportOptions(), Silent()).frame["image"].to_list() == ["a.png"]


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".j2k", ".jpx"])
def test_suffixes_that_devices_and_browsers_write(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(trees.encoded(1))
    assert import_folder(tmp_path, ImportOptions(), Silent()).frame["pixel_hash"].null_count() == 0
    assert Path(import_folder(tmp_path, ImportOptions(), Silent()).frame["image"][0]).suffix == suffix

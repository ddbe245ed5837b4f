"""Paths of files whose names are stored in another Unicode form."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from medalign.errors import InputError
from medalign.teacher_cache.images import as_stored, decode_given
from PIL import Image

NFC, NFD = (unicodedata.normalize(form, "Größe/Schädel.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("stated", "stored"), [(NFC, NFD), (NFD, NFC), (NFC, NFC), (NFD, NFD)])
def test_a_path_is_found_in_either_form(tmp_path, monkeypatch, stated, stored):
    (tmp_path / stored).parent.mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / stored)
    monkeypatch.chdir(tmp_path)
    assert as_stored(tmp_path / stated) == tmp_path / stored
    assert as_stored(Path(stated)) == Path(stored)
    assert as_stored(Path("..", tmp_path.name, stated)) == Path("..", tmp_path.name, stored)
    assert decode_given(tmp_path / stated).width == decode_given(stated).width == 8


@pytest.mark.parametrize("name", ["absent.png", "Schädel.png", "ä/b.png", "ä\0", "\udcff.png", "ä" * 300, ""])
def test_a_path_that_is_not_there_is_unchanged(tmp_path, name):
    assert as_stored(tmp_path / name) == tmp_path / name
    assert as_stored(Path(name)) == Path(name)


def test_a_folder_that_cannot_be_listed_has_no_other_form(tmp_path):
    (tmp_path / "file").touch()
    assert as_stored(tmp_path / "file" / "ä.png") == tmp_path / "file" / "ä.png"


def test_a_doubtful_form_is_refused(tmp_path):
    for name in ("\u1e69.png", "s\u0323\u0307.png"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="in 2 Unicode forms; rename one of them"):
        as_stored(tmp_path / "s\u0307\u0323.png")

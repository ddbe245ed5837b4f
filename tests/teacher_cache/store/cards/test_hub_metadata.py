"""Cards are read by the Hugging Face Hub's own library, and croissant.json by mlcroissant."""

import re
from pathlib import Path

import mlcroissant
import polars as pl
import pytest
from huggingface_hub import DatasetCard
from medalign.student.folders.model_card import base_license
from medalign.teacher_cache.store.cards.store_card import render_card
from stores import store_header, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "s.zarr"
    return write_store(folder, range(7), failing=[2], wide={0: "float32"}, title="Chests", licence="CC-BY-4.0")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The inplace keyword:Warning")
def test_mlcroissant_accepts_the_description_and_reads_its_records(store):
    """The publisher adds the date. The records are those of the index, read through the description."""
    described = mlcroissant.Dataset(jsonld=store / "croissant.json")
    issues = described.metadata.ctx.issues
    assert issues.errors == set()
    assert [re.findall(r'"https://schema.org/(\w+)"', warning) for warning in issues.warnings] == [["datePublished"]]
    records = list(described.records("images"))
    index = pl.read_parquet(store / "index.parquet")
    assert [int(record["images/row"]) for record in records] == index["row"].to_list()
    assert [record["images/image_hash"].decode() for record in records] == index["image_hash"].to_list()


def test_a_stores_card_has_metadata(store):
    card = DatasetCard.load(store / "README.md")
    assert card.data.to_dict() == {
        "license": "cc-by-4.0",
        "pretty_name": "Chests",
        "size_categories": "n<1K",
        "task_categories": ["image-feature-extraction"],
        "tags": ["medalign", "medical", "clip", "zarr"],
    }
    assert card.text.lstrip().startswith("# Chests\n")


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        (None, ("unknown", None)),
        ("CC BY-NC 4.0", ("cc-by-nc-4.0", None)),
        ("PhysioNet Credentialed 1.5.0", ("other", "physionet-credentialed-1.5.0")),
    ],
)
def test_licenses_that_the_hub_does_not_know_have_a_name(licence, expected):
    card = DatasetCard(render_card(store_header(range(3), licence=licence), images=3, failures=0, root_sha256="e" * 64))
    assert (card.data.license, card.data.get("license_name")) == expected


@pytest.mark.parametrize(("images", "size"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**8, "100M<n<1B")])
def test_the_size_is_one_of_the_hubs_classes(images, size):
    card = DatasetCard(render_card(store_header(range(3)), images=images, failures=0, root_sha256="e" * 64))
    assert card.data.size_categories == size


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        ("---\nlicense: llama2\n---\n# A model\n", "llama2"),
        ("---\r\nlicense: llama2\r\n---\r\n", "llama2"),
        ("# A model\n", None),
        ("---\n- license\n---\n", None),
        ("---\nlicense: [mit]\n---\n", None),
        ("---\nlicense: 'mit\n---\n", None),
        ("---\nlicense: " + "[" * 10_000 + "\n---\n", None),
    ],
)
def test_a_bases_license_is_read_from_its_card(readme, expected, tmp_path):
    (tmp_path / "README.md").write_text(readme, newline="")
    assert base_license(tmp_path) == expected


def test_a_card_that_is_not_text_has_no_license(tmp_path):
    (tmp_path / "README.md").write_bytes(b"---\nlicense: mit\nauthor: Ren\xe9\n---\n")
    assert base_license(tmp_path) is None

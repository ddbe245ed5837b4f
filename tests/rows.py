"""Rows of manifests about images that there are, or of which there is no file."""

import hashlib

from medalign.pipeline.data.manifest import Manifest, ManifestImage, ManifestRow
from medalign.teacher_cache.images import decode_image


def image_fields(path):
    data = path.read_bytes()
    decoded = decode_image(data)
    return {
        "image": path.name,
        "image_hash": hashlib.sha256(data).hexdigest(),
        "pixel_hash": decoded.pixel_hash,
        "width": decoded.width,
        "height": decoded.height,
    }


def made(number):
    """Fields of an image of which there is no file."""
    return {"image": f"{number}.png", "image_hash": f"{number:064x}", "pixel_hash": f"{number + 100:064x}"}


def row(question_id, *images, **changes):
    """A question about images, each given by its fields."""
    first, more = (images[0], images[1:]) if images else ({}, ())
    fields = {"question": "What?", "answer": "a", "answer_type": "open", "split": "train", "data_use": "public"}
    further = {"more_images": tuple(ManifestImage(**image) for image in more)}
    return ManifestRow(question_id=question_id, **{**fields, **first, **further, **changes})


def written(folder, *rows):
    path = folder / "m.parquet"
    Manifest.from_rows(rows, folder, "x").write(path)
    return path

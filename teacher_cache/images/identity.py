"""Image hashes: the hash of an image file and the hash of its pixels."""

import hashlib

from PIL import Image


def image_hash(data: bytes) -> str:
    """SHA-256 of a file's bytes, in hex: the key that joins manifests, stores and labs."""
    return hashlib.sha256(data).hexdigest()


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 over `mode`, `width x height` and the raw bytes of an upright image, in hex."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()

"""Base models as they lie on a disk, family by family: weights, image token, templates."""

"""The root digest of format 1 does not depend on the order of its entries."""

import hashlib
from itertools import permutations

from medalign.teacher_cache.store.reading.root_digest import RootRow, root_digest
from stores import store_header


def test_order_does_not_matter_in_format_1():
    header = store_header(range(2), format_version=1)
    rows = [RootRow(image, "p", 1, 2, "float16", "0" * 8, f"digest {image}") for image in "ab"]
    lines = [header.fingerprint, "a digest a", "b digest b", "c failed", "d failed", "e failed"]
    expected = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    for failures in permutations([("c", "x"), ("d", "y"), ("e", "z")]):
        assert root_digest(header, rows, failures, []) == root_digest(header, rows[::-1], failures, []) == expected

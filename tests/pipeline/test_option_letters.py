"""A letter as an answer names the option that the table shows under it, or the row is refused."""

import pytest
from medalign.errors import MedalignError
from medalign.pipeline.importers.choices import chosen_option
from medalign.teacher_cache.store.signing_keys import read_verify_key


@pytest.mark.parametrize(
    ("answer", "options", "right"),
    [
        ("C", ("heart", None, "liver", "lung"), "liver"),
        ("B", ("heart", None, "liver"), None),
        ("A", ("B. no", "A. yes"), "A. yes"),
        ("A", ("C. c", "A. a", "B. b"), "A. a"),
        ("A", ("A. yes", "B. no"), "A. yes"),
        ("A", ("A. yes", "no"), None),
        ("A", ("A. yes", "A. no"), None),
        ("B", ("effusion", "edema"), "edema"),
        ("D", ("effusion", "edema"), "D"),
        ("E. coli", ("E. coli", "S. aureus"), "E. coli"),
        ("B. other", ("effusion", "edema"), "B. other"),
    ],
)
def test_a_letter_names_its_option(answer, options, right):
    assert chosen_option(answer, options) == right


def test_bytes_that_are_no_text_are_no_key():
    with pytest.raises(MedalignError):
        read_verify_key("ssh-\udcff")

"""Refusals to resume name only what differs, and what to restore."""

import pytest
from medalign.errors import InputError
from medalign.pipeline.evaluation.comparison.claim import check_saved, claim
from medalign.pipeline.runs.run_differences import differences

BLUR = {"name": "blur", "settings": {"radius": 4, "beta": 0.1, "seed": 0}, "code_sha256": "1" * 64}


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        ({}, []),
        ({"code_sha256": "2" * 64}, ["decoding: the source of method 'blur' changed"]),
        ({"settings": BLUR["settings"] | {"radius": 5}}, ["decoding.settings.radius: recorded 4, now 5"]),
        ({"settings": {"radius": 4, "beta": 0.1}}, ["decoding.settings.seed: recorded 0, now nothing"]),
        ({"name": "vcd", "settings": {"alpha": 1}}, ["decoding.name: recorded 'blur', now 'vcd'"]),
        (
            {"settings": BLUR["settings"] | {"radius": 5}, "code_sha256": "2" * 64},
            ["decoding: the source of method 'blur' changed", "decoding.settings.radius: recorded 4, now 5"],
        ),
    ],
)
def test_only_what_differs_is_named(change, listed):
    assert differences({"decoding": BLUR, "seeds": [0]}, {"decoding": BLUR | change, "seeds": [0]}) == listed


def test_lists_of_records_and_records_on_one_side():
    settings = [{"lora": {"alpha": 8, "r": 2}}, {"lora": {"alpha": 8, "r": 2}}]
    other = [settings[0], {"lora": {"alpha": 16, "r": 2}}]
    assert differences({"adapter": settings}, {"adapter": other}) == ["adapter[1].lora.alpha: recorded 8, now 16"]
    assert differences({"adapter": None}, {"adapter": settings[0]}) == [
        "adapter: recorded None, now a record of 1 value"
    ]
    assert differences({"a": None}, {}) == []
    assert differences({"a": {"b": None}}, {"a": {}}) == ["a.b: recorded None, now nothing"]
    assert differences({"a": 1}, {"a": 2}, "expected") == ["a: recorded 1, expected 2"]


IDENTITY = {
    "medalign": "1",
    "seeds": [0],
    "decodings.soft": {"method": "blur", "radius": 4, "code_sha256": "1" * 64},
    "data.slake.questions": 6,
    "students.a.dtype": "float32",
}


@pytest.mark.parametrize(
    ("change", "line", "restore"),
    [
        ({"decodings.soft": IDENTITY["decodings.soft"] | {"code_sha256": "2" * 64}},
         "decodings.soft: the source of method 'blur' changed", "the file of the decoding method"),
        ({"decodings.soft": IDENTITY["decodings.soft"] | {"radius": 5}},
         "decodings.soft.radius: recorded 4, now 5", "these settings in the comparison file"),
        ({"seeds": [1]}, "seeds: recorded [0], now [1]", "these settings in the comparison file"),
        ({"data.slake.questions": 2}, "data.slake.questions: recorded 6, now 2",
         "the manifest (or the choice of its questions in the comparison file)"),
        ({"students.a.dtype": "bfloat16"}, "students.a.dtype: recorded 'float32', now 'bfloat16'",
         "the students and adapters (or their settings in the comparison file)"),
        ({"data.slake.max_new_tokens": 9}, "data.slake.max_new_tokens: recorded nothing, now 9",
         "these settings in the comparison file"),
        ({"decodings.soft": IDENTITY["decodings.soft"] | {"code_sha256": "2" * 64}, "seeds": [1, 2]},
         "decodings.soft: the source of method 'blur' changed\n  seeds: recorded [0], now [1, 2]",
         "the file of the decoding method and these settings in the comparison file"),
        ({"medalign": "2"}, "medalign: recorded '1', now '2'", "the recorded version of medalign"),
    ],
)  # fmt: skip
def test_a_comparison_says_what_to_restore(tmp_path, change, line, restore):
    out = tmp_path / "out"
    claim(out, IDENTITY, resume=False)
    said = f"answers:\n  {line}\nRestore {restore}, or start a new comparison with another --out."
    with pytest.raises(InputError) as caught:
        claim(out, IDENTITY | change, resume=True)
    assert str(caught.value).endswith(said)
    if "medalign" in change:
        check_saved(out, IDENTITY | change)
    else:
        with pytest.raises(InputError) as caught:
            check_saved(out, IDENTITY | change)
        assert str(caught.value).endswith(said)

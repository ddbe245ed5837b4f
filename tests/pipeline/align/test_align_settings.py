"""The settings of `student align`: the table in docs/align.md is that of the code."""

import re
from pathlib import Path

from medalign.pipeline.align.align_settings import AlignSettings
from pydantic_core import PydanticUndefined


def test_the_settings_table_is_that_of_the_code():
    page = (Path(__file__).parents[3] / "docs" / "align.md").read_text()
    table = {
        key: default.strip().strip("`") for key, default in re.findall(r"^\| `(\w+\.\w+)` \| ([^|]*)\|", page, re.M)
    }
    expected = {}
    for section, outer in AlignSettings.model_fields.items():
        values = outer.default if outer.default is not PydanticUndefined else None
        for key, field in outer.annotation.model_fields.items():
            value = field.default if values is None else getattr(values, key)
            shown = {None: "null", PydanticUndefined: ""}.get(value, str(value))
            expected[f"{section}.{key}"] = shown
    assert table == expected

"""What `pip install .` must bring, though no package that medalign depends on declares it."""

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def lower_bound(package: str) -> Version:
    requirements = {one.name: one for one in map(Requirement, PROJECT["dependencies"])}
    (bound,) = [one.version for one in requirements[package].specifier if one.operator == ">="]
    return Version(bound)


def test_protobuf_is_as_new_as_sentencepiece_wants_it():
    """Its generated module refuses an older runtime, and transformers reads LLaVA-Med-1.5's tokenizer with it."""
    (module,) = [file for file in distribution("sentencepiece").files if file.name == "sentencepiece_model_pb2.py"]
    wanted = re.search(r"^# Protobuf Python Version: (\S+)$", module.read_text(), re.MULTILINE)
    assert wanted is not None
    assert Version(distribution("protobuf").version) >= Version(wanted[1])
    if Version(distribution("sentencepiece").version) == lower_bound("sentencepiece"):
        assert lower_bound("protobuf") >= Version(wanted[1])

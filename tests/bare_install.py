"""Run by `make test-bare`, in an environment that has medalign and what it depends on, without any extra.

Opens a tiny student of each family in the format that it is published in, and starts the command line. pytest and what
comes with it are not there.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import medalign
from medalign.student.loading import open_student
from originals import write_original

FAMILIES = ("llava-med", "huatuo", "llava")
OF_EXTRAS = ("pytest", "ray", "gguf", "pylibjpeg", "s3fs", "hypothesis")


def main() -> None:
    assert Path(sys.prefix) in Path(medalign.__file__).parents, f"{medalign.__file__} is not the installed package"
    there = [name for name in OF_EXTRAS if find_spec(name) is not None]
    assert not there, f"an environment without extras, but it has {there}"
    for family in FAMILIES:
        with TemporaryDirectory() as folder:
            original = write_original(Path(folder) / family, family)
            student = open_student(original.folder, layers=[1], rotation="full", dtype=None)
            ids = student.tokenizer("What is the lung effusion?").input_ids
            assert student.tokenizer.decode(ids, skip_special_tokens=True) == "What is the lung effusion?"
            print(f"opened {family}: {type(student.tokenizer).__name__}, {len(ids)} tokens")
    command = Path(sys.executable).with_name("medalign")
    subprocess.run([str(command), "doctor"], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()

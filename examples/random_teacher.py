"""Write a checkpoint of seeded random weights in a teacher's own file format.

For trying the whole pipeline before you have the real weights: sizes and times are the real ones, the targets are
meaningless. `phantom-tiny` is a smaller teacher. Run as `python examples/random_teacher.py unimed-b16-224 FILE.pt`.
"""

import argparse
from pathlib import Path

import torch
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.towers import build_tower
from safetensors.torch import save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", choices=["unimed-b16-224", "unimed-l14-336", "phantom-tiny"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    tower = build_tower(teacher_spec(asked.teacher)).state_dict()
    if asked.teacher == "phantom-tiny":
        save_file(tower, asked.out)
    else:
        save_unimed(tower, asked.out)
    print(f"{asked.out}: {asked.teacher}, random weights, seed {asked.seed}")


def save_unimed(tower: dict[str, torch.Tensor], out: Path) -> None:
    # As upstream's training writes it: from DistributedDataParallel, with the text tower beside the image tower.
    state = {f"module.visual.{name}": value for name, value in tower.items()}
    state["module.text_encoder.transformer.embeddings.position_ids"] = torch.arange(256)[None]
    state["module.logit_scale"] = torch.tensor(4.6)
    torch.save({"epoch": 0, "name": "random", "state_dict": state}, out)


if __name__ == "__main__":
    main()

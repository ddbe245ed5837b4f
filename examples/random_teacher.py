"""Write a checkpoint of seeded random weights in a teacher's own file format.

For trying the whole pipeline before the real weights are there: sizes and times are the real ones, the targets mean
nothing. Run as `python examples/random_teacher.py unimed-b16-224 random-unimed-b16.pt`.
"""

import argparse
from pathlib import Path

import torch
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.towers import build_tower


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", choices=["unimed-b16-224", "unimed-l14-336"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    tower = build_tower(teacher_spec(asked.teacher)).state_dict()
    # As upstream's training writes it: from DistributedDataParallel, with the text tower beside the image tower.
    state = {f"module.visual.{name}": value for name, value in tower.items()}
    state["module.text_encoder.transformer.embeddings.position_ids"] = torch.arange(256)[None]
    state["module.logit_scale"] = torch.tensor(4.6)
    torch.save({"epoch": 0, "name": "random", "state_dict": state}, asked.out)
    print(f"{asked.out}: {asked.teacher}, random weights, seed {asked.seed}")


if __name__ == "__main__":
    main()

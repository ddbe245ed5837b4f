"""Draw JPEGs and a CSV of questions, in the layout of a lab's own data. Run as: python own_data.py lab

Writes lab/questions.csv with the columns scan, question, answer and split, and 12 synthetic images in lab/images/.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from medalign.pipeline.data.phantoms.draw import draw_phantom
from medalign.pipeline.data.phantoms.phantom_questions import ask
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    (options.out / "images").mkdir(parents=True)
    with (options.out / "questions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scan", "question", "answer", "split"])
        for number in range(options.images):
            phantom = draw_phantom(options.seed, number)
            name = f"scan-{number:03d}.jpg"
            Image.fromarray(phantom.pixels).save(options.out / "images" / name, quality=90)
            split = "test" if number % 4 == 3 else "train"
            for asked in ask(phantom, np.random.default_rng([options.seed, number])):
                if asked.answer_type in ("open", "closed"):
                    writer.writerow([name, asked.question, asked.answer, split])
    print(f"{options.out}: questions.csv, images/")


if __name__ == "__main__":
    main()

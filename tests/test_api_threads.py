"""Several threads may ask one student."""

from concurrent.futures import ThreadPoolExecutor

import medalign
import numpy as np


def test_threads_that_ask_one_student_all_get_their_answers(student_folder):
    student = medalign.load_student(student_folder, template="plain", device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (6, 24, 24), dtype=np.uint8)
    expected = [student.ask(image, "Is it?", max_new_tokens=3) for image in images]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda image: student.ask(image, "Is it?", max_new_tokens=3), images))
    assert answers == expected

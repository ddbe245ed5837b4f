"""VCD, M3ID, DAMRO and PAI compared with their equations on full passes, with W in every branch with images."""

import math
from functools import cache

import pytest
import torch
from decoded import questions, rotated_student, scores, tokens, written_out
from medalign.errors import InputError, SettingsError
from medalign.student.decoding import choose_decoding
from medalign.student.decoding.generation import answer_batch, start_run
from medalign.student.decoding.methods.damro import outliers
from medalign.student.decoding.methods.vcd import noised_pixels, signal_share
from medalign.student.families.bases import load_llava
from straight_pass import image_tokens, straight_pass
from straight_scores import contrast
from students import mixed_samples

SETTINGS = {"vcd": {}, "m3id": {"decay": 0.7}, "damro": {"outliers": 3}, "pai": {"alpha": 0.5, "guidance": 2.0}}
"""Strong enough to change the answers of the tiny random student."""
PLAIN = {
    "vcd": {"alpha": 0.0},
    "m3id": {"decay": 0.0},
    "damro": {"alpha": 0.0, "outliers": 3},
    "pai": {"alpha": 0.0, "guidance": 1.0},
}
BETA = 0.3
METHODS = sorted(SETTINGS)


@pytest.fixture(scope="module")
def student(student_folder):
    return rotated_student(student_folder)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("images"), 8)


def straight(student, question, name, text, number):
    """Scores of the token after `text`, from full passes."""
    ids, images = written_out(student, question)
    positive = straight_pass(student, ids + text, images).logits[-1]
    if name == "vcd":
        run = start_run(student, [question], 1)
        noised = image_tokens(student, noised_pixels(run, 500, 0))
        return contrast(positive, straight_pass(student, ids + text, noised).logits[-1], 1.0, BETA)
    image = student.model.image_token_id
    blind = straight_pass(student, [token for token in ids if token != image] + text, None).logits[-1]
    if name == "m3id":
        seen, unseen, g = positive.log_softmax(-1), blind.log_softmax(-1), math.exp(-0.7 * number)
        found = seen + (1 - g) / g * (seen - unseen)
        return found.masked_fill(seen < math.log(BETA) + seen.max(), -math.inf)
    if name == "damro":
        kept = strongest_tokens(student.base, start_run(student, [question], 1).pixel_values)
        places = [place for place, token in enumerate(ids) if token == image]
        gone = set(places) - {places[k] for k in kept}
        shorter = [token for place, token in enumerate(ids) if place not in gone]
        return contrast(positive, straight_pass(student, shorter + text, images[kept]).logits[-1], 0.5, BETA)
    columns = torch.tensor(ids) == image
    last = len(ids) - 1

    def amplify(layer, attention, at):
        """Every query from the prompt's last token on was once the last query."""
        if layer < 2:
            return attention
        attention = attention.clone()
        rows = attention[:, last:, : len(ids)]
        attention[:, last:, : len(ids)] = torch.where(columns, rows + 0.5 * rows.abs(), rows)
        return attention

    amplified = straight_pass(student, ids + text, images, change_scores=amplify).logits[-1]
    seen, unseen = amplified.log_softmax(-1), blind.log_softmax(-1)
    found = 2.0 * (seen - unseen) + unseen
    return found.masked_fill(seen < math.log(BETA) + seen.max(), -math.inf)


def strongest_tokens(base, pixels):
    """Indices among all image tokens of a question: the three per image that the class token attends to most.

    In the layer whose output the projector reads: `vision_feature_layer` is -2, hidden state -2, which layer -2 makes.
    """
    weights = eager_tower(base)(pixels, output_attentions=True).attentions[-2][:, :, 0, 1:].mean(dim=1)
    return [9 * number + int(k) for number, row in enumerate(weights) for k in sorted(row.argsort()[-3:].tolist())]


@cache
def eager_tower(base):
    tower = load_llava(base, "float32").model.vision_tower
    tower.set_attn_implementation("eager")
    return tower


@pytest.mark.parametrize("name", METHODS)
def test_first_steps_equal_the_reference_implementation(student, samples, name, monkeypatch):
    samples = samples[:4]
    generated = torch.randint(4, 260, (len(samples), 3))
    found = scores(student, samples, name, generated, monkeypatch, beta=BETA, **SETTINGS[name])
    with torch.no_grad():
        for row, question in enumerate(samples):
            for step in range(generated.shape[1] + 1):
                expected = straight(student, question, name, generated[row, :step].tolist(), step + 1)
                assert 1 < expected.isfinite().sum() < len(expected)
                torch.testing.assert_close(found[step][row], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_negative_branch_has_other_image_tokens(student, samples, name, monkeypatch):
    """The paper's VCD and DAMRO would fail this: their second pass used the image of the first."""
    generated = torch.randint(4, 260, (len(samples), 2))
    with torch.no_grad():
        plain = scores(student, samples, name, generated, monkeypatch, beta=0.0, **PLAIN[name])
        moved = scores(student, samples, name, generated, monkeypatch, beta=0.0, **SETTINGS[name])
    for without, contrasted in zip(plain, moved, strict=True):
        apart = (without.log_softmax(-1) - contrasted.log_softmax(-1)).abs().max(dim=-1).values
        assert (apart > 0.01).all()


@pytest.mark.parametrize("name", METHODS)
def test_without_contrast_it_is_greedy(student, samples, name):
    greedy = tokens(student, samples, "greedy", length=12)
    assert tokens(student, samples, name, length=12, **PLAIN[name]) == greedy
    assert tokens(student, samples, name, length=12, **SETTINGS[name]) != greedy


@pytest.mark.parametrize("name", METHODS)
def test_without_contrast_and_cutoff_it_is_beam_search_or_sampling(student, samples, name):
    plain = {**PLAIN[name], "beta": 0.0}
    assert tokens(student, samples, name, num_beams=3, **plain) == tokens(student, samples, "beam", num_beams=3)
    sampled = {"temperature": 3.0, "top_p": 0.8, "seed": 4}
    assert tokens(student, samples, name, **sampled, **plain) == tokens(student, samples, "nucleus", **sampled)


@pytest.mark.parametrize("search", [{}, {"num_beams": 3}, {"temperature": 1.0}])
@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_eight_answers_as_each_sample_alone(student, samples, name, search):
    settings = {"length": 3, **SETTINGS[name], **search}
    together = tokens(student, samples, name, **settings)
    assert together == [tokens(student, [one], name, **settings)[0] for one in samples]
    assert len({tuple(row) for row in together}) > 2


@pytest.mark.parametrize("name", METHODS)
def test_a_question_without_an_image_is_refused(student, tmp_path, name):
    with pytest.raises(InputError, match=f"{name} decoding needs an image, but question 'Say yes.' has none"):
        answer_batch(student, mixed_samples(tmp_path), choose_decoding(name, max_new_tokens=2))


def test_noise_keeps_the_signal_share_of_the_schedule(student, samples):
    """VCD's schedule as a product over steps; a question's noise is the same in every batch."""
    product = 1.0
    for t in range(501):
        product *= 1 - (1 / (1 + math.exp(6 - 12 * t / 999)) * (0.5e-2 - 1e-5) + 1e-5)
    assert float(signal_share(500)) == pytest.approx(product, rel=1e-9)
    run, alone = start_run(student, samples, 1), start_run(student, samples[5:6], 1)
    noised = noised_pixels(run, 500, 0)
    noise = (noised - product**0.5 * run.pixel_values) / (1 - product) ** 0.5
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    images = run.prompt.images.sample == 5
    torch.testing.assert_close(noised[images], noised_pixels(alone, 500, 0))
    assert not torch.allclose(noised, noised_pixels(run, 500, 1), atol=0.1)


def test_as_many_outliers_as_tokens_are_refused(student, samples):
    attention = torch.tensor([[0.1, 0.5, 0.2, 0.15]])
    assert outliers(attention, 2).tolist() == [[1, 2]]
    with pytest.raises(SettingsError, match=r"decode.outliers is 10, but images have 9 tokens"):
        tokens(student, samples, "damro")

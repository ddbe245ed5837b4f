"""Prompts and their variants, branches and hooks, compared with full passes without a cache."""

import pytest
import torch
from decoded import questions, rotated_student, written_out
from medalign.student.decoding.core.hooks import AttentionRows, HiddenStates, ScoreBias, early_logits
from medalign.student.decoding.generation import start_run
from straight_pass import straight_pass
from students import mixed_samples

SAID = 3


@pytest.fixture(scope="module")
def student(student_folder):
    return rotated_student(student_folder)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("images"), 4)


@pytest.fixture(scope="module")
def generated(samples):
    return torch.randint(4, 260, (len(samples), SAID), generator=torch.Generator().manual_seed(5))


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def straight(student, samples, generated, row, step, **options):
    ids, images = written_out(student, samples[row])
    return straight_pass(student, ids + generated[row, :step].tolist(), images, **options)


def test_a_branch_gives_the_logits_of_full_passes(student, samples, generated):
    branch = start_run(student, samples, 1).branch()
    found = [branch.logits, *(branch.step(column) for column in generated.T)]
    for row in range(len(samples)):
        for step in range(SAID + 1):
            expected = straight(student, samples, generated, row, step).logits[-1]
            torch.testing.assert_close(found[step][row], expected, atol=1e-4, rtol=0)


def test_selected_rows_continue_unchanged(student, samples, generated):
    branch = start_run(student, samples, 1).branch()
    branch.step(generated[:, 0])
    rows = torch.tensor([2, 2, 0])
    branch.select(rows)
    found = branch.step(generated[rows, 1])
    for place, row in enumerate(rows.tolist()):
        expected = straight(student, samples, generated, row, 2).logits[-1]
        torch.testing.assert_close(found[place], expected, atol=1e-4, rtol=0)
    assert branch.owner.tolist() == rows.tolist()


def test_prompts_without_images_or_with_some_of_their_tokens(student, tmp_path):
    samples = mixed_samples(tmp_path)
    run = start_run(student, samples, 1)
    kept = torch.tensor([[0, 4], [1, 8], [2, 3], [5, 6]])
    texts = run.branch(run.prompt.without_images()).logits
    few = run.branch(run.prompt.with_image_tokens_at(kept)).logits
    image = student.model.image_token_id
    texts_alone = [[token for token in written_out(student, one)[0] if token != image] for one in samples]
    assert run.prompt.without_images().input_ids.shape[1] == max(map(len, texts_alone)), "no column of padding alone"
    first = 0
    for row, one in enumerate(samples):
        ids, images = written_out(student, one)
        text = straight_pass(student, [token for token in ids if token != image], None).logits[-1]
        torch.testing.assert_close(texts[row], text, atol=1e-4, rtol=0)
        chosen = [
            9 * number + int(k)
            for number, row_kept in enumerate(kept[first : first + len(one.images)])
            for k in row_kept
        ]
        first += len(one.images)
        places = [place for place, token in enumerate(ids) if token == image]
        gone = set(places) - {places[k] for k in chosen}
        shorter = [token for place, token in enumerate(ids) if place not in gone]
        expected = straight_pass(student, shorter, None if images is None else images[chosen]).logits[-1]
        torch.testing.assert_close(few[row], expected, atol=1e-4, rtol=0)


def test_attention_rows_equal_those_of_full_passes(student, samples, generated):
    run = start_run(student, samples, 1)
    rows = AttentionRows([0, 3])
    branch = run.branch(hooks=[rows])
    for step in range(2):
        _ = branch.logits if step == 0 else branch.step(generated[:, 0])
        for layer, found in rows.rows.items():
            for row in range(len(samples)):
                expected = straight(student, samples, generated, row, step).attention[layer][:, -1]
                real = found[row][:, branch.attention_mask[row].bool()]
                torch.testing.assert_close(real, expected, atol=1e-5, rtol=0)
    run.branch().step(generated[:, 0])
    assert rows.rows[0].shape[-1] == branch.attention_mask.shape[1]  # another branch's pass is not seen


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("alone", [False, True])
def test_a_bias_is_added_to_the_scores(student, samples, generated, whole, alone):
    """For the last query or for all; in a padded batch, and for one sample, where sdpa has no mask."""
    rows = slice(0, 1) if alone else slice(0, 4)
    heads = torch.tensor([1.0, -2.0, 3.0, 0.5])

    def bias(seen, is_image):
        row = (heads[:, None] * is_image[:, None].float())[:, :, None]
        return row.expand(-1, -1, seen.query.shape[2], -1) if whole else row

    branch = start_run(student, samples[rows], 1).branch(hooks=[ScoreBias([1, 2], bias)])
    found = [branch.logits, branch.step(generated[rows, 0])]
    for row in range(len(samples[rows])):
        for step in range(2):
            places = torch.tensor(written_out(student, samples[row])[0]) == student.model.image_token_id
            length = len(places)

            def change(layer, scores, at, places=places, length=length):
                if layer not in (1, 2):
                    return scores
                added = torch.zeros_like(scores)
                first = 0 if whole else length - 1
                added[:, first:, :length] = heads[:, None, None] * places.float()
                return scores + added

            expected = straight(student, samples, generated, row, step, change_scores=change).logits[-1]
            torch.testing.assert_close(found[step][row], expected, atol=1e-4, rtol=0)


def test_a_bias_acts_only_in_its_branch(student, samples):
    run = start_run(student, samples, 1)
    plain = run.branch().logits
    bias = ScoreBias(range(4), lambda seen, is_image: 5.0 * is_image[:, None, None].float())
    biased = run.branch(hooks=[bias])
    assert not torch.allclose(biased.logits, plain, atol=1e-2)
    torch.testing.assert_close(run.branch().logits, plain)


def test_hidden_states_and_early_logits(student, samples, generated):
    states = HiddenStates([0, 2, 4])
    branch = start_run(student, samples, 1).branch(hooks=[states])
    _ = branch.logits
    last = branch.step(generated[:, 0])
    for row in range(len(samples)):
        expected = straight(student, samples, generated, row, 1).hidden
        for depth, found in states.states.items():
            torch.testing.assert_close(found[row], expected[depth][-1], atol=1e-4, rtol=0)
    torch.testing.assert_close(early_logits(student.model.stock, states.states[4]), last)

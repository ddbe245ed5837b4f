"""The searches, branches and trees of all methods, each by itself, where whole answers would not show the fault."""

import pytest
import torch
from decoded import questions, rotated_student, written_out
from medalign.errors import InputError
from medalign.student.decoding import choose_decoding
from medalign.student.decoding.core.beams import beam_search
from medalign.student.decoding.core.scorer import Branches
from medalign.student.decoding.core.search import search
from medalign.student.decoding.core.shared_settings import SearchSettings
from medalign.student.decoding.core.tree import Tree
from medalign.student.decoding.generation import answer_batch, start_run
from medalign.student.decoding.method_calls import check_finite
from medalign.student.inputs.collation import Collator, encode_sample
from medalign.student.loading.student_loading import open_student
from straight_pass import straight_pass
from students import byte_tokenizer, sample, tiny_config
from transformers import LlavaForConditionalGeneration, MistralConfig

END = 2
WINDOW = 5


@pytest.fixture(scope="module")
def student(student_folder):
    return rotated_student(student_folder)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("images"), 3)


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


class Table:
    """Scores that depend only on the sample and on how many tokens the answer has; counts passes like a branch."""

    def __init__(self, run, probabilities):
        """`probabilities[sample][t]`: of the tokens in it, for the token with index t; the rest is shared evenly."""
        self.run, self.passes, self.selected = run, 0, torch.arange(run.batch)
        self.steps = [[self.logits(row) for row in rows] for rows in probabilities]

    def logits(self, row):
        rest = (1 - sum(row.values())) / (self.run.vocabulary - len(row))
        values = torch.full((self.run.vocabulary,), rest)
        values[list(row)] = torch.tensor(list(row.values()))
        return values.log()

    def start(self):
        self.run.cost.charge(self.selected)
        scores = torch.stack([self.steps[owner][min(self.passes, 3)] for owner in self.selected.tolist()])
        self.passes += 1
        return scores

    def advance(self, tokens):
        assert len(tokens) == len(self.selected)
        return self.start()

    def select(self, rows):
        self.selected = self.selected[rows]


GOES_ON = {10: 0.6, 11: 0.3}


def test_finished_samples_cost_nothing_more_in_a_beam_search(student, samples):
    """Two beams: after two tokens, the first sample has two finished answers, better than all beams that go on."""
    run = start_run(student, samples[:2], 6)
    table = Table(run, [[GOES_ON, {END: 0.9}, {END: 0.9}, {END: 0.9}], [GOES_ON] * 4])
    answers = beam_search(run, table, 2).tolist()
    assert [row[:2] for row in answers] == [[10, END], [10, 10]]
    assert run.cost.forwards.tolist() == [1 + 2, 1 + 5 * 2]
    assert table.passes == 6  # no pass after the last token


def test_a_beam_search_ends_when_every_sample_is_finished(student, samples):
    run = start_run(student, samples[:1], 6)
    table = Table(run, [[GOES_ON, {END: 0.9}, {END: 0.9}, {END: 0.9}]])
    beam_search(run, table, 2)
    assert table.passes == 2


def test_a_beam_as_good_as_the_worst_finished_answer_does_not_go_on(student, samples):
    """After two tokens, [END], [10, END] and [10, 10] have exactly the same log-probability per token."""
    run = start_run(student, samples[:1], 4)
    table = Table(run, [[{END: 0.25, 10: 0.25}] * 4])
    beam_search(run, table, 2)
    assert table.passes == 2


def test_two_beams_are_a_beam_search(student, samples):
    """Compared with transformers' `generate`, for methods whose setting `num_beams` is 1 by default."""
    run = start_run(student, samples, 6)
    found = search(run, Branches([run.branch()]), SearchSettings(num_beams=2)).tolist()
    batch = Collator(pad_token_id=0, pad_left=True)([encode_sample(student, one, with_answer=False) for one in samples])
    del batch["labels"]
    both = [
        student.model.llava.generate(
            **batch, num_beams=beams, do_sample=False, max_new_tokens=6, pad_token_id=END, eos_token_id=END
        )[:, batch["input_ids"].shape[1] :].tolist()
        for beams in (2, 1)
    ]
    assert found == both[0] != both[1]


def test_sampling_has_seed_0_unless_told_otherwise(student, samples):
    """Another default would change the answers of commands and configurations that do not state a seed."""
    asked = [choose_decoding("vcd", {"temperature": 9.0, **seed}, max_new_tokens=8) for seed in ({}, {"seed": 0})]
    one, other = (answer_batch(student, samples[:1], decoding) for decoding in asked)
    assert one == other


def test_logits_of_half_precision_weights_are_float32(student_folder, samples):
    """Sums of log-probabilities in bfloat16 would make ties of different answers."""
    student = open_student(student_folder, layers=(), rotation="none", dtype="bfloat16")
    branch = start_run(student, samples, 1).branch()
    for logits in (branch.logits, branch.step(torch.full((3,), 70))):
        assert logits.dtype == torch.float32


def test_texts_longer_than_the_prompts_beside_them(student, samples):
    """Padding the shorter prompts moves their image tokens to the right."""
    long = [sample("Where is the fracture that the report on these ribs speaks of?" * 2, "no") for _ in samples]
    prompt, texts = (start_run(student, batch, 1).prompt for batch in (samples, long))
    assert prompt.input_ids.shape[1] < texts.input_ids.shape[1]
    run = start_run(student, [*samples, *long], 1)
    found = run.branch(prompt.beside(texts)).logits
    for row, one in zip(found, [*samples, *long], strict=True):
        torch.testing.assert_close(
            row, straight_pass(student, *written_out(student, one)).logits[-1], atol=1e-4, rtol=0
        )


def test_steps_of_padded_prompts_keep_a_sliding_window(tmp_path, samples):
    """Compared with passes over each whole sequence without cache and padding, by transformers."""
    text = tiny_config().text_config
    kept = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "vocab_size")
    config = tiny_config()
    config.text_config = MistralConfig(
        **{name: getattr(text, name) for name in kept}, num_hidden_layers=2, sliding_window=WINDOW, head_dim=16
    )
    LlavaForConditionalGeneration(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    student = open_student(tmp_path, layers=(), rotation="none")
    run = start_run(student, samples, 3)
    assert not bool(run.prompt.attention_mask.all())
    branch = run.branch()
    said = torch.tensor([[70, 80], [90, 71], [81, 91]])
    for column in said.T:
        found = branch.step(column)
    for row, one in enumerate(samples):
        alone = start_run(student, [one], 3)
        ids = torch.cat([alone.prompt.input_ids, said[row : row + 1]], dim=1)
        expected = student.model.stock(input_ids=ids, pixel_values=alone.pixel_values, use_cache=False).logits[0, -1]
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=0)


def test_logits_of_a_tree_that_are_not_finite_are_refused(student, samples):
    """The prompts' own logits are; those of the second sample's nodes are not."""
    run = start_run(student, samples, 4)
    tree = Tree(run)
    states = tree.root[:, None].repeat(1, 2, 1)
    tree.next_logits(states)
    assert run.watch.first() is None
    states[1, 1, 0] = torch.nan
    tree.next_logits(states)
    with pytest.raises(InputError) as caught:
        check_finite(run, choose_decoding("opera", max_new_tokens=4))
    assert str(caught.value).startswith(f"question {samples[1].question_id!r}: logits are not finite")


def test_class_attention_is_the_mean_over_heads(student, samples):
    run = start_run(student, samples, 1)
    tower = run.llava.model.vision_tower
    before = tower.config._attn_implementation
    tower.set_attn_implementation("eager")
    try:
        seen = tower(run.pixel_values, output_attentions=True).attentions[run.llava.config.vision_feature_layer]
    finally:
        tower.set_attn_implementation(before)
    torch.testing.assert_close(run.class_attention(), seen.mean(dim=1)[:, 0, 1:], atol=1e-6, rtol=0)

"""Incorrect uses of the observation of a pass, and what must still be correct then."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from medalign.student.families.bases import load_llava
from medalign.student.inputs.collation import Collator, encode_sample
from medalign.student.inspection.question_attention import attention_of_layers, find_questions
from medalign.student.loading.student_loading import open_student
from students import LAYER, mixed_samples


def rotated(folder, **options):
    """A student whose W changes its answers."""
    student = open_student(folder, layers=[LAYER], rotation="full", **options)
    torch.manual_seed(0)
    torch.nn.init.normal_(student.model.rotations[LAYER].weight, std=0.3)
    return student


@pytest.fixture(scope="module")
def loaded(student_folder):
    return rotated(student_folder)


@pytest.fixture
def student(loaded):
    return replace(loaded, model=copy.deepcopy(loaded.model))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return mixed_samples(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def prompts(loaded, samples):
    """Three prompts with images and one without."""
    return inputs_of(loaded, samples)


def inputs_of(student, samples):
    batch = Collator(pad_token_id=0)([encode_sample(student, item, with_answer=False) for item in samples])
    del batch["labels"]
    return batch


def with_answers(student, samples):
    return Collator(pad_token_id=0)([encode_sample(student, item, with_answer=True) for item in samples])


def logits(student, inputs):
    with torch.no_grad():
        return student.model.llava(**inputs).logits


class Stopped(Exception):
    """An error that a pass may raise, such as running out of memory."""


def stop(*_):
    raise Stopped


def raise_in_pass(module, call):
    """Call something while a module raises."""
    hook = module.register_forward_hook(stop)
    with pytest.raises(Stopped):
        call()
    hook.remove()


PLACES = {
    "embedding": lambda model: model.llava.get_input_embeddings(),
    "tower": lambda model: model.llava.model.vision_tower,
    "aligned layer": lambda model: model.llava.model.language_model.layers[LAYER].mlp,
    "head": lambda model: model.llava.lm_head,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("images", [True, False], ids=["images", "text"])
def test_a_failed_pass_leaves_no_state(student, prompts, samples, place, images):
    expected = logits(student, prompts)
    batch = with_answers(student, samples if images else samples[1:2])
    raise_in_pass(PLACES[place](student.model), lambda: student.model(**batch))
    raise_in_pass(PLACES[place](student.model), lambda: student.model.llava(**inputs_of(student, samples)))
    torch.testing.assert_close(logits(student, prompts), expected, atol=0, rtol=0)
    with student.model.observe():
        pass
    copy.deepcopy(student.model)


def test_an_interrupted_pass_leaves_no_state(student, prompts):
    """After Ctrl-C in a notebook, torch runs no hooks."""

    def interrupt(*_):
        raise KeyboardInterrupt

    expected = logits(student, prompts)
    hook = student.model.llava.model.language_model.norm.register_forward_hook(interrupt)
    for call in (lambda: student.model.llava(**prompts), lambda: attention_of_layers(student.model, **prompts)):
        with pytest.raises(KeyboardInterrupt):
            call()
    hook.remove()
    torch.testing.assert_close(logits(copy.deepcopy(student), prompts), expected, atol=0, rtol=0)
    torch.testing.assert_close(logits(student, prompts), expected, atol=0, rtol=0)


def test_spans_of_a_pass_that_never_ran_are_not_used_for_the_next(student, prompts, samples):
    expected = logits(student, prompts)
    other = inputs_of(student, samples[2:])
    images, questions = find_questions(student.model, other["input_ids"], other["attention_mask"])
    with student.model.observe(images, questions):
        pass
    torch.testing.assert_close(logits(student, prompts), expected, atol=0, rtol=0)


def test_two_successive_passes_are_independent(student_folder, student, prompts, samples):
    other = inputs_of(student, samples[2:3])
    together = [attention_of_layers(student.model, **inputs) for inputs in (prompts, other, prompts)]
    student.model(**with_answers(student, samples))
    alone = [attention_of_layers(copy.deepcopy(student.model), **inputs) for inputs in (prompts, other, prompts)]
    for one, two in zip(together, alone, strict=True):
        torch.testing.assert_close(one, two, atol=0, rtol=0)


def test_observing_changes_no_output_and_results_can_be_read_twice(student, prompts):
    expected = logits(student, prompts)
    images, questions = find_questions(student.model, prompts["input_ids"], prompts["attention_mask"])
    with student.model.observe(images, questions, layers=[0, LAYER]) as seen:
        torch.testing.assert_close(logits(student, prompts), expected, atol=0, rtol=0)
    assert torch.equal(seen.attention_at(0), seen.attention_at(0))
    assert seen.attention_at(LAYER).shape == (4, 9)
    assert seen.tokens_at(LAYER).shape == (4, 9, 64)


def test_spans_are_found_in_the_token_ids_by_default(student, prompts):
    images, _ = find_questions(student.model, prompts["input_ids"], prompts["attention_mask"])
    kept = []
    for given in (images, None):
        with student.model.observe(given) as seen:
            logits(student, prompts)
        kept.append(seen.tokens_at(LAYER))
    assert torch.equal(*kept)


def test_a_pass_without_images_equals_the_stock_models(student_folder, student, prompts, samples):
    images, questions = find_questions(student.model, prompts["input_ids"], prompts["attention_mask"])
    text = inputs_of(student, samples[1:2])
    with student.model.observe(images, questions) as seen:  # spans of another batch
        found = logits(student, text)
    torch.testing.assert_close(found, load_llava(student_folder, "float32")(**text).logits, atol=0, rtol=0)
    assert seen.images is None
    for read in (seen.tokens_at, seen.attention_at):
        with pytest.raises(RuntimeError, match=f"layer {LAYER}.*no pass with images has run"):
            read(LAYER)


def test_a_nested_observation_is_refused_and_the_outer_one_continues(student, prompts, samples):
    batch = with_answers(student, samples)
    images, _ = find_questions(student.model, prompts["input_ids"], prompts["attention_mask"])
    embeds = student.model.image_tokens(prompts["pixel_values"])
    inner = (
        lambda: student.model.observe().__enter__(),
        lambda: student.model(**batch),
        lambda: student.model.next_logits(prompts["input_ids"], images, embeds),
        lambda: attention_of_layers(student.model, **prompts),
    )
    with student.model.observe() as seen:
        for call in inner:
            with pytest.raises(RuntimeError, match=r"already being observed\. Leave the outer `observe` block first"):
                call()
        logits(student, prompts)
    assert seen.tokens_at(LAYER).shape == (4, 9, 64)
    assert student.model(**batch).layers


def test_a_second_pass_in_one_observation_is_refused(student, prompts):
    with student.model.observe() as seen:
        logits(student, prompts)
        kept = seen.tokens_at(LAYER)
        with pytest.raises(RuntimeError, match=r"records one forward pass\. Open another `observe` block"):
            logits(student, prompts)
    assert seen.tokens_at(LAYER) is kept
    with student.model.observe(), pytest.raises(RuntimeError, match="records one forward pass"):
        student.model.llava.generate(**prompts, max_new_tokens=2, min_new_tokens=2, do_sample=False, pad_token_id=0)


@pytest.mark.parametrize("kind", ["non_reentrant", "reentrant"])
def test_every_layer_can_be_observed_with_gradient_checkpointing(student, prompts, kind):
    expected = attention_of_layers(student.model, **prompts)
    student.model.train().checkpoint_gradients(kind)
    torch.testing.assert_close(attention_of_layers(student.model, **prompts), expected, atol=0, rtol=0)


@pytest.mark.parametrize("kind", ["non_reentrant", "reentrant"])
def test_observing_a_checkpointed_layer_is_refused(student, prompts, kind):
    """In the backward pass it would run outside of its observation, without W and attention."""
    images, questions = find_questions(student.model, prompts["input_ids"], prompts["attention_mask"])
    student.model.train().checkpoint_gradients(kind)
    with (
        student.model.observe(images, questions, layers=[0]),
        pytest.raises(RuntimeError, match=r"decoder layer 0 is aligned or observed.*under torch.no_grad"),
    ):
        student.model.llava(**prompts)
    student.model.llava.get_decoder().activation_checkpointing_enable({"use_reentrant": kind == "reentrant"})
    with pytest.raises(RuntimeError, match=f"decoder layer {LAYER}.*Use `checkpoint_gradients`"):
        student.model.llava(**prompts)


@pytest.mark.parametrize("moment", ["after", "within"])
def test_a_copy_contains_only_the_model(student, prompts, moment):
    """Even if the previous pass kept a graph, and during a pass."""
    expected, copies = logits(student, prompts), []
    norm = student.model.llava.model.language_model.norm
    with student.model.observe():
        if moment == "within":
            hook = norm.register_forward_hook(lambda *_: copies.append(copy.deepcopy(student.model)))
        student.model.llava(**prompts)
    if moment == "within":
        hook.remove()
    for twin in copies or [copy.deepcopy(student.model)]:
        with torch.no_grad():
            torch.testing.assert_close(twin.llava(**prompts).logits, expected, atol=0, rtol=0)
        with twin.observe():
            pass


def test_a_model_can_be_pickled(student_folder, prompts):
    """Before its first pass, in which transformers adds hooks that cannot be pickled."""
    student = rotated(student_folder)
    with student.model.observe():
        twin = pickle.loads(pickle.dumps(student.model))
    expected = logits(student, prompts)
    with torch.no_grad():
        torch.testing.assert_close(twin.llava(**prompts).logits, expected, atol=0, rtol=0)

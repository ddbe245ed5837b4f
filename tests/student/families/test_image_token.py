"""Hiding `<image>` from a tokenizer changes no other id: published layouts, padded batches, save and reload."""

import json
from dataclasses import replace

import pytest
import sentencepiece
import torch
from medalign.errors import InputError
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import save_adapter
from medalign.student.decoding import Decoding
from medalign.student.decoding.generation import answer_batch
from medalign.student.families.image_token import check_same_ids, forget_image_token
from medalign.student.folders.export import export_adapter
from medalign.student.folders.init import init_student
from medalign.student.inputs.collation import Collator, encode_sample
from medalign.student.loading.student_loading import load_student
from originals import sentencepiece_model
from students import adapter_record, sample, tiny_config, trainable, write_images
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AddedToken,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

SPECIAL = {"normalized": False, "special": True, "lstrip": False, "rstrip": False, "single_word": False}
LAYOUTS = ("tokenizer.json", "tokenizer.model")


def write_bytes(folder):
    """Write a byte-level vocabulary with `<image>` and `<pad>` as added tokens; returns the size of the vocabulary."""
    words = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", extra_special_tokens=["<image>"]
    )
    tokenizer.add_special_tokens({"pad_token": AddedToken("<pad>", special=True, normalized=False)})
    tokenizer.save_pretrained(folder)
    return len(words)


def write_sentencepiece(folder):
    """The same for a SentencePiece vocabulary, with `added_tokens_decoder` in tokenizer_config.json."""
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    words = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model()).vocab_size()
    added = ["<unk>", "<s>", "</s>"]
    decoder = {str(number): {"content": token, **SPECIAL} for number, token in enumerate(added)}
    decoder |= {str(words): {"content": "<image>", **SPECIAL}, str(words + 1): {"content": "<pad>", **SPECIAL}}
    settings = {
        "added_tokens_decoder": decoder,
        "add_bos_token": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "legacy": False,
        "tokenizer_class": "LlamaTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return words


@pytest.fixture(scope="module", params=LAYOUTS)
def published(request, tmp_path_factory):
    """A tiny Llava in llava-hf's layout and the id of `<image>`: in llava-1.5-7b-hf 32000, with `<pad>` at 32001."""
    folder = tmp_path_factory.mktemp("llava-hf")
    words = {"tokenizer.json": write_bytes, "tokenizer.model": write_sentencepiece}[request.param](folder)
    torch.manual_seed(0)
    config = tiny_config()
    config.text_config.vocab_size = words + 4  # spare rows, as the published 32064
    config.text_config.pad_token_id = words + 1
    model = LlavaForConditionalGeneration(
        LlavaConfig(**config.to_dict() | {"image_token_id": words, "image_token_index": words})
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    return folder, words


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    first, second = write_images(tmp_path_factory.mktemp("images"), [(24, 24), (40, 20)])
    return [sample("What is the lung?", "yes", first), sample("Is it?", "no", second)]


def test_other_tokens_keep_their_ids(published):
    folder, words = published
    ours, stock = load_student(folder).tokenizer, AutoTokenizer.from_pretrained(folder)
    assert (stock.convert_tokens_to_ids("<image>"), stock.pad_token_id) == (words, words + 1)
    assert ours.pad_token_id == words + 1
    hidden = {token for token, number in ours.get_vocab().items() if number == words}
    expected = {token: number for token, number in stock.get_vocab().items() if token != "<image>"}
    assert {token: number for token, number in ours.get_vocab().items() if token not in hidden} == expected
    assert words + 1 in ours("yes<pad>")["input_ids"]
    assert words not in ours("Is <image> it?")["input_ids"]
    assert ours.decode(ours("Is <image> it?", add_special_tokens=False)["input_ids"]) == "Is <image> it?"


def test_a_padded_batch_gives_the_same_answers_as_single_questions(published, questions):
    student = load_student(published[0])
    decoding = Decoding(max_new_tokens=5)
    alone = [answer_batch(student, [question], decoding)[0] for question in questions]
    assert answer_batch(student, questions, decoding) == alone
    encoded = [encode_sample(student, question, with_answer=True) for question in questions]
    assert len(encoded[0].input_ids) != len(encoded[1].input_ids)
    batch = Collator(pad_token_id=student.tokenizer.pad_token_id)(encoded)
    losses = student.model(**batch).loss_lm
    single = [student.model(**Collator(pad_token_id=0)([item])).loss_lm for item in encoded]
    torch.testing.assert_close(losses, torch.cat(single), atol=1e-4, rtol=1e-4)


def test_an_exported_student_has_the_same_ids_and_answers(published, questions, tmp_path):
    folder, words = published
    student = trainable(folder, rotation="none")
    save_adapter(student.model, replace(adapter_record(student), rotation="none"), tmp_path / "adapter")
    export_adapter(tmp_path / "adapter", tmp_path / "out", base=None, dtype=None, evaluations=(), progress=Silent())
    before, after = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(tmp_path / "out")
    assert after.get_vocab() == before.get_vocab()
    assert (after.convert_tokens_to_ids("<image>"), after.pad_token_id) == (words, words + 1)
    again = load_student(tmp_path / "out")
    assert again.tokenizer.pad_token_id == words + 1
    decoding = Decoding(max_new_tokens=4)
    assert answer_batch(again, questions, decoding) == answer_batch(load_student(folder), questions, decoding)


def test_a_gap_in_the_ids_of_added_tokens_is_refused(published, tmp_path):
    """`tokenizers` silently closes the gap: `<pad>` gets the next free id instead of the one in the file."""
    folder, words = published
    loaded = AutoTokenizer.from_pretrained(folder)
    loaded.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    values = json.loads(path.read_text())
    for token in values["added_tokens"]:
        token["id"] += 7 * (token["content"] == "<pad>")
    path.write_text(json.dumps(values))
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(InputError, match=rf"tokenizer.json gives '<pad>' the id {words + 8}, but .* {words + 1}"):
        load_student(tmp_path)


@pytest.mark.parametrize(
    ("offset", "message"), [(1, "which is the pad_token of the"), (-1, "which is the word .* in the tokenizer")]
)
def test_an_image_token_id_of_another_token_is_refused(published, tmp_path, offset, message):
    folder, words = published
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config = {name: words + offset if name.startswith("image_token") else value for name, value in config.items()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        load_student(tmp_path)


WORDS = ["<unk>", "<s>", "</s>", "<image>", "a", "b", "c"]
MODELS = {
    "WordLevel": models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"),
    "WordPiece": models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"),
    "Unigram": models.Unigram([(word, -1.0 - number) for number, word in enumerate(WORDS)], unk_id=0),
    "BPE": models.BPE(vocab={word: number for number, word in enumerate(WORDS)}, merges=[], unk_token="<unk>"),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("pad_inside", [False, True])
def test_the_image_token_is_hidden_in_every_kind_of_vocabulary(kind, pad_inside):
    core = Tokenizer(MODELS[kind])
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", extra_special_tokens=["<image>"]
    )
    tokenizer.add_special_tokens({"pad_token": "c" if pad_inside else "<pad>"})
    before = dict(tokenizer.get_vocab())
    forget_image_token(tokenizer, 3)
    after = tokenizer.get_vocab()
    assert {token: after.get(token) for token in before if token != "<image>"} == {
        token: number for token, number in before.items() if token != "<image>"
    }
    assert "<image>" not in after
    assert 3 not in tokenizer("a <image> b <image>")["input_ids"]
    assert tokenizer("a b")["input_ids"] == [4, 5]


def test_changed_token_ids_are_reported():
    """Removing `<image>` instead of renaming it shifts the ids after it in the published layout."""
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.add_special_tokens(["<picture>", "<pad>"])
    before = core.get_vocab()
    values = json.loads(core.to_str())
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] != "<picture>"]
    shrunk = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(values)), pad_token="<pad>")
    with pytest.raises(InputError, match="would change the ids of 1 other token, first: '<pad>' from 8 to 7"):
        check_same_ids(before, shrunk, but=7)


def test_a_vocabulary_with_gaps_keeps_its_rows(tmp_path):
    """Ids need not be contiguous: the rows of existing tokens do not change."""
    words = {word: number for number, word in enumerate(WORDS[:3])} | {"a": 7, "b": 11}
    llm = tmp_path / "llm"
    LlamaForCausalLM(LlamaConfig(**tiny_config().text_config.to_dict() | {"vocab_size": 14})).save_pretrained(llm)
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(llm)
    before = AutoModelForCausalLM.from_pretrained(llm).get_input_embeddings().weight
    init_student(llm, "tiny", tmp_path / "out", image_tokens=16, progress=Silent())
    after = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out").get_input_embeddings().weight
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for word, number in words.items():
        assert tokenizer.convert_tokens_to_ids(word) == number
        assert torch.equal(after[number], before[number]), word
    mean = before[list(words.values())].mean(dim=0)
    torch.testing.assert_close(after[tokenizer.convert_tokens_to_ids("<image>")], mean)

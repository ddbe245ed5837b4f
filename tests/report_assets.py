"""Small models in exactly the published formats of what stands behind report metrics.

Weights follow from a formula of their name and position, so that values which the packages' own code gave for these
same files (tests/student/metrics/data/report_scores.json) hold on any machine and any torch.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PretrainedConfig

WORDS = [
    "no",
    "acute",
    "cardio",
    "##pulmonary",
    "abnormality",
    "heart",
    "is",
    "normal",
    "size",
    "the",
    "lungs",
    "are",
    "clear",
    "pleural",
    "effusion",
    "pneumo",
    "##thorax",
    "mild",
    "edema",
    "in",
    "left",
    "right",
    "lower",
    "lobe",
    "opacity",
    "opacities",
    "likely",
    "represent",
    "at",
    "##ele",
    "##ctasis",
    "##s",
    "cardiomegaly",
    "tube",
    ".",
    ",",
    "/",
    "-",
    ":",
    "(",
    ")",
    "%",
    "'",
    "`",
    "evidence",
    "of",
    "small",
    "moderate",
    "large",
    "and",
    "with",
    "there",
    "carina",
    "above",
    "terminates",
    "none",
]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WIDTH = 32


def filled(name: str, shape: tuple[int, ...], scale: float = 0.3) -> Tensor:
    """A tensor that looks random, from its name alone."""
    count = torch.Size(shape).numel()
    start = zlib.crc32(name.encode()) % 100_000
    values = torch.arange(start, start + count, dtype=torch.float64)
    noise = (values * 12.9898).sin() * 43758.5453
    return ((noise - noise.floor() - 0.5) * 2 * scale).float().reshape(shape)


def fill(model: nn.Module, scale: float = 0.3) -> nn.Module:
    """Give a model such weights; norms keep a mean of 1."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(filled(name, tuple(tensor.shape), scale) + (1 if "LayerNorm.weight" in name else 0))
    return model.eval()


def write_bert_words(folder: Path) -> int:
    """vocab.txt and tokenizer_config.json as bert-base-uncased has them; returns how many words."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [f"##{letter}" for letter in LETTERS]
    words = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *pieces]))
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    settings = {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(words)


def write_bert(folder: Path, *, positions: int = 512) -> BertModel:
    """config.json and words of a small BERT, and the model itself, whose weights are not written."""
    config = BertConfig(
        vocab_size=write_bert_words(folder),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions,
    )
    write_config(folder, config)
    model = fill(BertModel(config))
    assert isinstance(model, BertModel)
    return model


def write_config(folder: Path, config: PretrainedConfig) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_diff_dict() | {"model_type": config.model_type}))


def write_chexbert(folder: Path) -> Path:
    """chexbert.pth as published: a training state whose weights begin with `module.`, and saved position ids."""
    bert = write_bert(folder)
    weights: dict[str, Tensor] = {f"module.bert.{name}": tensor for name, tensor in bert.state_dict().items()}
    weights["module.bert.embeddings.position_ids"] = torch.arange(512)[None]
    for head in range(14):
        out = 2 if head == 13 else 4
        weights[f"module.linear_heads.{head}.weight"] = filled(f"head {head}", (out, WIDTH))
        weights[f"module.linear_heads.{head}.bias"] = filled(f"bias {head}", (out,), 0.1)
    torch.save({"epoch": 8, "model_state_dict": weights}, folder / "chexbert.pth")
    return folder


RADGRAPH_ENTITIES = [
    "Anatomy::definitely present",
    "Observation::definitely present",
    "Observation::definitely absent",
    "Observation::uncertain",
]
RADGRAPH_RELATIONS = ["modify", "located_at", "suggestive_of"]
FEATURES, HIDDEN, MAX_WIDTH = 4, 10, 8
ENTITY_THRESHOLD = {"radgraph-xl": 1.2, "radgraph": 0.4}


def write_radgraph(folder: Path, dataset: str = "radgraph-xl", *, longest: int = 512) -> Path:
    """An unpacked archive of AllenNLP, with the coreference and event parts that DyGIE++ always saves."""
    bert = write_bert(folder / "transformer")
    indexer = {"type": "pretrained_transformer_mismatched", "model_name": "published/name", "max_length": longest}
    modules = {
        "coref": {"spans_per_word": 0.3, "max_antecedents": 100, "coref_prop": 0},
        "ner": {},
        "relation": {"spans_per_word": 0.5},
        "events": {
            "trigger_spans_per_word": 0.3,
            "argument_spans_per_word": 0.8,
            "loss_weights": {"trigger": 0.2, "arguments": 1.0},
        },
    }
    config: dict[str, Any] = {
        "dataset_reader": {"type": "dygie", "token_indexers": {"bert": indexer}, "max_span_width": MAX_WIDTH},
        "model": {
            "type": "dygie",
            "embedder": {"token_embedders": {"bert": indexer}},
            "initializer": {"regexes": []},
            "module_initializer": {"regexes": []},
            "loss_weights": {"ner": 0.2, "relation": 1.0, "coref": 0.0, "events": 0.0},
            "feature_size": FEATURES,
            "max_span_width": MAX_WIDTH,
            "target_task": "relation",
            "feedforward_params": {"num_layers": 2, "hidden_dims": HIDDEN, "dropout": 0.4},
            "modules": modules,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    words = folder / "vocabulary"
    words.mkdir()
    (words / f"{dataset}__ner_labels.txt").write_text("\n".join(["", *RADGRAPH_ENTITIES]) + "\n")
    (words / f"{dataset}__relation_labels.txt").write_text("\n".join(RADGRAPH_RELATIONS) + "\n")
    (words / "non_padded_namespaces.txt").write_text("*tags\n*labels\n")
    prefix = "_embedder.token_embedder_bert._matched_embedder.transformer_model."
    weights = {prefix + name: tensor for name, tensor in bert.state_dict().items()}
    weights |= {name: filled(name, shape, 0.5) for name, shape in radgraph_shapes(dataset).items()}
    weights[f"_ner._ner_scorers.{dataset}__ner_labels.1._module.bias"] -= ENTITY_THRESHOLD.get(
        dataset, 0.4
    )  # or all are
    weights[f"_relation._relation_scorers.{dataset}__relation_labels.bias"] += 0.2
    torch.save(weights, folder / "weights.th")
    return folder


def radgraph_shapes(dataset: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights but the transformer's."""
    span = 2 * WIDTH + FEATURES
    entity, relation = f"{dataset}__ner_labels", f"{dataset}__relation_labels"

    def layers(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for number, wide in enumerate((width, HIDDEN)):
            shapes |= linear(f"{prefix}_linear_layers.{number}.", wide, HIDDEN)
        return shapes

    def linear(prefix: str, width: int, out: int) -> dict[str, tuple[int, ...]]:
        return {f"{prefix}weight": (out, width), f"{prefix}bias": (out,)}

    return {
        "_endpoint_span_extractor._span_width_embedding.weight": (MAX_WIDTH, FEATURES),
        **layers(f"_ner._ner_scorers.{entity}.0._module.", span),
        **linear(f"_ner._ner_scorers.{entity}.1._module.", HIDDEN, len(RADGRAPH_ENTITIES)),
        "_coref._distance_embedding.weight": (10, FEATURES),
        **layers("_coref._antecedent_feedforward._module.", 3 * span + FEATURES),
        **layers("_coref._mention_pruner._scorer.0._module.", span),
        **linear("_coref._mention_pruner._scorer.1._module.", HIDDEN, 1),
        **linear("_coref._antecedent_scorer._module.", HIDDEN, 1),
        **linear("_coref._f_network._linear_layers.0.", 2 * span, span),
        **layers(f"_relation._mention_pruners.{relation}._scorer.0._module.", span),
        **linear(f"_relation._mention_pruners.{relation}._scorer.1._module.", HIDDEN, 1),
        **layers(f"_relation._relation_feedforwards.{relation}.", 3 * span),
        **linear(f"_relation._relation_scorers.{relation}.", HIDDEN, len(RADGRAPH_RELATIONS)),
        "_events._distance_embedding.weight": (10, FEATURES),
    }


def write_model(folder: Path, model: nn.Module) -> None:
    """model.safetensors as transformers writes it."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")


def write_roberta(folder: Path, *, layers: int = 18) -> Path:
    """A RoBERTa for masked words as roberta-large is published: its head too, no pooler, byte-level words."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaConfig, RobertaForMaskedLM

    merges = ["Ġ t", "Ġt h", "Ġth e", "Ġ n", "Ġn o", "Ġ e", "i n", "a r", "e f", "u s", "o n"]
    alphabet = sorted(ByteLevel.alphabet())
    words = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, *(merge.replace(" ", "") for merge in merges), "<mask>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(dict.fromkeys(words))}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    settings = {"model_max_length": 512, "tokenizer_class": "RobertaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = RobertaConfig(
        vocab_size=len(dict.fromkeys(words)),
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=514,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = fill(RobertaForMaskedLM(config))
    write_config(folder, config)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.decoder.weight"}
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


RATE_LABELS = ["O"] + [
    f"{place}-{kind}"
    for kind in ("ABNORMALITY", "NON-ABNORMALITY", "DISEASE", "NON-DISEASE", "ANATOMY")
    for place in "BI"
]


def write_ratescore(folder: Path) -> Path:
    """A DeBERTa that tags, an MPNet that embeds, and a few rules in RuSH's syntax."""
    write_tagger(folder / "ner")
    write_synonyms(folder / "synonyms")
    (folder / "rush_rules.tsv").write_text(RUSH_RULES)
    return folder


RUSH_RULES = r"""#a few rules in the syntax of RuSH
@Version	1
\b(\C	0	stbegin
\c.\s+(\C)	0	stbegin
\d.\s+(\C)	0	stbegin
\n+(\C)	0	stbegin
\c).\s+\C	2	stend
\a(.)\n	2	stend
\a(.) +	2	stend
\sDr. 	3	stend
"""


def write_tagger(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import DebertaV2Config, DebertaV2ForTokenClassification

    pieces = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"▁{word}" for word in WORDS if "#" not in word), "▁", *LETTERS]
    pieces += ["pleur", "thorax", "lung", "s", ".", ",", ":", "(", ")", "%", "-", "/", "!"]
    pieces = [*dict.fromkeys(pieces), "[MASK]"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(len(pieces) - len(piece))) for piece in pieces], unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }
    settings = {"model_max_length": 512, "tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = DebertaV2Config(
        vocab_size=len(pieces),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=512,
        relative_attention=True,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        id2label=dict(enumerate(RATE_LABELS)),
        label2id={label: number for number, label in enumerate(RATE_LABELS)},
    )
    write_config(folder, config)
    write_model(folder, fill(DebertaV2ForTokenClassification(config), 0.6))


def write_synonyms(folder: Path) -> None:
    from transformers import MPNetConfig, MPNetModel

    folder.mkdir(parents=True, exist_ok=True)
    pieces = [f"##{letter}" for letter in LETTERS]
    words = list(dict.fromkeys(["<s>", "<pad>", "</s>", "[UNK]", *WORDS, *LETTERS, *pieces, "<mask>"]))
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    settings = {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "MPNetTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = MPNetConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=514,
    )
    write_config(folder, config)
    write_model(folder, fill(MPNetModel(config)))


def write_punkt(folder: Path) -> Path:
    """Punkt's four tables, with a few of the entries of the published ones."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "abbrev_types.txt").write_text("dr\nmr\ne.g\ni.e\np.m\nvs\n")
    (folder / "collocations.tab").write_text("j\tsmith\n##number##\tcm\n")
    (folder / "sent_starters.txt").write_text("the\nthere\nno\n")
    (folder / "ortho_context.tab").write_text("the\t126\nheart\t44\nno\t126\nxxxx\t20\n")
    return folder


SYNSETS = {
    "noun": [["heart", "ticker"], ["lung"], ["man", "adult_male"], ["size"], ["opacity", "opaqueness"]],
    "verb": [["show", "demonstrate", "exhibit"], ["be", "exist"]],
    "adj": [["large", "big"], ["normal(a)"], ["clear", "unclouded"]],
    "adv": [["probably", "likely"]],
}


def write_wordnet(folder: Path) -> Path:
    """WordNet's database files (wndb(5)) of a dozen synsets, and what else nltk's reader wants to see."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
    for part, synsets in SYNSETS.items():
        data, offsets = "  1 This software and database is provided as is.\n", {}
        for words in synsets:
            offset = len(data)
            listed = " ".join(f"{word} 0" for word in words)
            data += f'{offset:08d} 03 {letters[part]} {len(words):02x} {listed} 000 | a meaning; "an example"  \n'
            for word in words:
                offsets.setdefault(word.partition("(")[0], []).append(offset)
        (folder / f"data.{part}").write_text(data)
        lines = [
            f"{word} {letters[part]} {len(places)} 0 {len(places)} 0 {' '.join(f'{p:08d}' for p in places)}  \n"
            for word, places in sorted(offsets.items())
        ]
        (folder / f"index.{part}").write_text("  1 This software and database is provided as is.\n" + "".join(lines))
        (folder / f"{part}.exc").write_text({"noun": "men man\n", "verb": "is be\nshown show\n"}.get(part, ""))
    (folder / "lexnames").write_text("".join(f"{number:02d}\tname.{number}\t1\n" for number in range(45)))
    (folder / "index.sense").write_text("")
    return folder

"""Weights of every kind: matching ones load exactly, and errors describe all others."""

import pickle
import warnings
from pathlib import Path

import pytest
import torch
from medalign.errors import InputError, SettingsError
from medalign.teacher_cache.teachers import TEACHERS, teacher_spec
from medalign.teacher_cache.teachers.checkpoint_fit import image_tower_state
from medalign.teacher_cache.teachers.teacher_loading import load_teacher
from medalign.teacher_cache.teachers.teacher_weights import Checkpoint, read_checkpoint, sha256_of
from medalign.teacher_cache.teachers.towers import build_tower
from safetensors.torch import save_file
from torch import Tensor


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        tower = build_tower(teacher_spec(name))
    return {key: tuple(value.shape) for key, value in tower.state_dict().items()}


def empty(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors of these shapes without storage."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def visual(name: str) -> dict[str, Tensor]:
    return {f"visual.{key}": value for key, value in empty(shapes_of(name)).items()}


def fit(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    checkpoint = Checkpoint(path=Path("given.pt"), sha256="0", tensors=tensors)
    return image_tower_state(teacher_spec(name), checkpoint, shapes_of(name))


@pytest.fixture(scope="module")
def phantom_state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {name: tensor.clone() for name, tensor in build_tower(teacher_spec("phantom-tiny")).state_dict().items()}


def assert_loaded(path: Path, state: dict[str, Tensor]) -> None:
    teacher = load_teacher("phantom-tiny", path)
    loaded = teacher.tower.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert not any(parameter.requires_grad for parameter in teacher.tower.parameters())
    assert not teacher.tower.training
    assert teacher.weights_sha256 == sha256_of(path)


# The image towers of upstream's files, as FACTS 3 lists them.
OPEN_CLIP_BLOCK = {
    "ln_1.weight": "w",
    "ln_1.bias": "w",
    "attn.in_proj_weight": "3w,w",
    "attn.in_proj_bias": "3w",
    "attn.out_proj.weight": "w,w",
    "attn.out_proj.bias": "w",
    "ln_2.weight": "w",
    "ln_2.bias": "w",
    "mlp.c_fc.weight": "4w,w",
    "mlp.c_fc.bias": "4w",
    "mlp.c_proj.weight": "w,4w",
    "mlp.c_proj.bias": "w",
}


@pytest.mark.parametrize(
    ("name", "width", "layers", "patch", "tokens", "embed"),
    [("unimed-l14-336", 1024, 24, 14, 577, 768), ("unimed-b16-224", 768, 12, 16, 197, 512)],
)
def test_unimed_towers_have_upstreams_names_and_shapes(name, width, layers, patch, tokens, embed):
    sizes = {"w": width, "3w": 3 * width, "4w": 4 * width}
    expected = {
        "conv1.weight": (width, 3, patch, patch),
        "class_embedding": (width,),
        "positional_embedding": (tokens, width),
        "proj": (width, embed),
        **{f"{norm}.{kind}": (width,) for norm in ("ln_pre", "ln_post") for kind in ("weight", "bias")},
        **{
            f"transformer.resblocks.{layer}.{key}": tuple(sizes[size] for size in shape.split(","))
            for layer in range(layers)
            for key, shape in OPEN_CLIP_BLOCK.items()
        },
    }
    assert shapes_of(name) == expected


def test_biomedclip_tower_is_timms_trunk_and_a_projection():
    shapes = shapes_of("biomedclip-b16-224")
    assert {name.split(".")[0] for name in shapes} == {"trunk", "head"}
    assert shapes["trunk.pos_embed"] == (1, 197, 768)
    assert shapes["trunk.blocks.11.attn.qkv.weight"] == (2304, 768)
    assert shapes["head.proj.weight"] == (512, 768)


def test_phantom_teacher_is_small():
    shapes = shapes_of("phantom-tiny").values()
    assert sum(torch.Size(shape).numel() for shape in shapes) <= 500_000
    assert str(teacher_spec("phantom-tiny").grid) == "12x12"


@pytest.mark.parametrize("name", TEACHERS)
def test_every_teacher_recognizes_its_own_file_and_drops_the_text_tower(name):
    tensors = visual(name) | empty({"text_encoder.transformer.embeddings.weight": (5, 5), "logit_scale": ()})
    assert fit(name, tensors).keys() == shapes_of(name).keys()


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_unimed_format_loads_exactly(tmp_path, phantom_state, prefix, wrapped):
    tensors = {f"{prefix}visual.{name}": tensor for name, tensor in phantom_state.items()}
    tensors[f"{prefix}text_encoder.proj.weight"] = torch.ones(2, 2)
    torch.save({"epoch": 3, "state_dict": tensors} if wrapped else tensors, tmp_path / "w.pt")
    assert_loaded(tmp_path / "w.pt", phantom_state)


def test_safetensors_and_open_clip_folders_load_exactly(tmp_path, phantom_state):
    save_file(phantom_state, tmp_path / "bare.safetensors")
    assert_loaded(tmp_path / "bare.safetensors", phantom_state)
    (tmp_path / "open_clip_config.json").write_text("{}")
    tensors = {f"visual.{name}": tensor for name, tensor in phantom_state.items()}
    torch.save(tensors, tmp_path / "open_clip_pytorch_model.bin")
    teacher = load_teacher("phantom-tiny", tmp_path)
    assert teacher.weights_sha256 == sha256_of(tmp_path / "open_clip_pytorch_model.bin")


def test_half_precision_weights_are_widened(tmp_path, phantom_state):
    save_file({name: tensor.half() for name, tensor in phantom_state.items()}, tmp_path / "h.safetensors")
    tower = load_teacher("phantom-tiny", tmp_path / "h.safetensors").tower
    assert {parameter.dtype for parameter in tower.parameters()} == {torch.float32}


def test_hub_names_go_through_open_clip(tmp_path, phantom_state, monkeypatch):
    asked = []
    torch.save(phantom_state, tmp_path / "hub.bin")
    fetch = "open_clip.pretrained.download_pretrained_from_hf"
    monkeypatch.setattr(fetch, lambda model: asked.append(model) or str(tmp_path / "hub.bin"))
    load_teacher("phantom-tiny", "hf-hub:someone/model")
    assert asked == ["someone/model"]

    def offline(model: str) -> str:
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(fetch, offline)
    with pytest.raises(InputError, match=r"cannot download hf-hub:a/b: no route to host\. .*pass that folder"):
        load_teacher("phantom-tiny", "hf-hub:a/b")


def test_the_wrong_teacher_is_named_with_the_command_that_fits():
    with pytest.raises(InputError) as caught:
        fit("unimed-l14-336", visual("unimed-b16-224"))
    message = str(caught.value)
    assert "given.pt is not unimed-l14-336" in message
    assert "looks like unimed-b16-224" in message
    assert "positional_embedding has shape [197, 768], but should have [577, 1024]" in message
    assert "144 missing (transformer.resblocks.12.ln_1.weight; " in message
    assert message.endswith("To use it, pass --teacher unimed-b16-224 --weights given.pt")


def misfits() -> dict[str, tuple[dict[str, Tensor], str]]:
    vit = visual("unimed-b16-224")
    openai = empty({"token_embedding.weight": (49408, 512), "text_projection": (512, 512)})
    return {
        "timm": (visual("biomedclip-b16-224"), "looks like biomedclip-b16-224"),
        "bare": (empty(shapes_of("phantom-tiny")), "looks like phantom-tiny"),
        "openai": (vit | openai, "general-domain CLIP with OpenAI's text tower"),
        "transformers": (empty({"vision_model.embeddings.class_embedding": (768,)}), "transformers CLIP"),
        "text": (empty({"text_encoder.transformer.pooler.dense.weight": (768, 768)}), "only a text tower"),
        "llm": (empty({"model.layers.0.mlp.up_proj.weight": (9, 9)}), "a language model"),
        "other": (empty({"fc.weight": (9, 9)}), "a file without a CLIP image tower (1 tensor; first: fc.weight)"),
        "foreign vit": (empty({"visual.positional_embedding": (50, 768)}), "positional embedding [50, 768], which no"),
        "one missing": ({k: v for k, v in vit.items() if k != "visual.proj"}, "1 missing (proj)"),
        "one more": (vit | empty({"visual.extra": (1,)}), "1 unexpected (extra)"),
    }


@pytest.mark.parametrize("kind", misfits())
def test_other_checkpoints_are_described(kind):
    tensors, words = misfits()[kind]
    with pytest.raises(InputError) as caught:
        fit("unimed-b16-224", tensors)
    assert words in str(caught.value)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_files_that_are_not_weights_are_reported(tmp_path, phantom_state):
    torch.save({"state_dict": phantom_state}, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    save_file(phantom_state, tmp_path / "whole.safetensors")
    tensors = (tmp_path / "whole.safetensors").read_bytes()
    torch.save({"args": [1, 2]}, tmp_path / "nothing.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and still what OpenAI's files are
        torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.ones(1)), tmp_path / "script.pt")
    cases = {
        write(tmp_path / "short.pt", whole[: len(whole) // 2]): "damaged or truncated",
        write(tmp_path / "short.safetensors", tensors[:-9]): "damaged or truncated",
        write(tmp_path / "page.pt", b"<!DOCTYPE html>"): "neither a torch file nor safetensors (15 bytes",
        write(tmp_path / "empty.pt", b""): "neither a torch file nor safetensors (0 bytes",
        tmp_path / "nothing.pt": "no state dict of tensors: it contains a dict with args",
        tmp_path / "script.pt": "TorchScript archive",
        tmp_path / "absent.pt": "no weights at",
    }
    for path, words in cases.items():
        with pytest.raises(InputError) as caught:
            read_checkpoint(path)
        assert words in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_folder_without_weights_lists_what_it_holds(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"contains config\.json\. Expected open_clip_config\.json and one of"):
        read_checkpoint(tmp_path)


class Launcher:
    """A malicious object for a pickle; unpickling it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_with_code_are_rejected_and_not_run(tmp_path, zipped):
    content = {"state_dict": {"visual.proj": Launcher(tmp_path / "ran")}}
    if zipped:
        torch.save(content, tmp_path / "bad.pt")
    else:
        (tmp_path / "bad.pt").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(InputError, match="unpickling them could run code"):
        read_checkpoint(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()


def test_unknown_names_list_the_alternatives(tmp_path):
    with pytest.raises(SettingsError, match=r"'clip'; choose one of unimed-l14-336, .*phantom-tiny"):
        load_teacher("clip", tmp_path)
    with pytest.raises(SettingsError, match="unknown dtype 'int8'"):
        load_teacher("phantom-tiny", tmp_path, dtype="int8")
    with pytest.raises(SettingsError, match="cannot use device 'warp:3'"):
        load_teacher("phantom-tiny", tmp_path, device="warp:3")

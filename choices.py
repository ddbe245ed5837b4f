"""The choices of settings and options that several packages share.

Commands, settings and the code that does the work use the same types. Importing this module loads no other library.
"""

from typing import Literal

DataUse = Literal["public", "credentialed", "private"]
"""Who is allowed to have the data and what is derived from it."""
Geometry = Literal["pad", "crop"]
"""How an image that is not square becomes a square input: padded, or cropped around its center."""
JpegScale = Literal["full", "reduced"]
"""Whether JPEGs are decoded at full size, or at the smallest size that covers the square (`geometry/square.py`)."""
Dtype = Literal["float32", "bfloat16", "float16"]
"""Precision of weights or of a forward pass."""
DtypeChoice = Literal["auto", Dtype]
"""Precision of a student's forward pass. docs/evaluation.md says what `auto` is for inference, docs/training.md for
training."""
TrainingDevice = Literal["cpu", "cuda", "mps"]
"""What a student can be trained on."""
EngineName = Literal["local", "ray"]
"""How worker processes are started."""
Profile = Literal["float16", "native", "int8", "gram16", "gram12", "float32"]
"""How the rows of a teacher store are stored (docs/stores.md)."""
Features = Literal["last-block", "final-norm"]
"""Which patch tokens E_v consists of: the residual stream after the last block, before ln_post and without projection
(`last-block`), or the tokens after the tower's final norm (`final-norm`)."""
RotationMode = Literal["full", "train_only", "none"]
"""Where W acts. `full`: on the image tokens, in training and inference (as in the paper). `train_only`: only on the
tokens in L_vis, so the trained model runs without W. `none`: there is no W."""
AttentionRows = Literal["question", "answer", "both"]
"""Text rows of M_a: the question's tokens, the positions that predict the answer's tokens, or both."""
AttentionTargets = Literal["teacher", "regions", "both"]
"""Target maps of L_att: E_a of the store, annotated regions of the manifest, or both."""
AttentionNormalization = Literal["sum", "softmax", "l2"]
"""How attention maps become distributions."""
VisualWeights = Literal["uniform", "teacher"]
"""Weights of the pairs of patches in L_vis: equal, or the product of the teacher's attention to both patches."""
ImageTokens = Literal["student", "teacher"]
"""Where image tokens come from: the student's vision tower and projector, or a trained projection of E_v."""
AlignedPart = Literal["lora", "rotation", "projector", "tower"]
"""A trained part that L_vis may change: the language model's LoRA, W, the projector, or the vision tower."""
Quantization = Literal["4bit", "8bit"]
"""Precision of the frozen language model."""
Checkpointing = Literal["non_reentrant", "reentrant"]
"""Kind of gradient checkpointing."""
Sharding = Literal["fsdp2", "zero2", "zero3"]
"""How a training run is distributed over processes."""
OutputFormat = Literal["table", "json", "csv", "jsonl"]
"""How a command prints rows: for people, as one JSON object, as CSV, or as one JSON object per row."""
FigureFormat = Literal["svg", "png", "pdf"]
"""Kinds of picture files."""
Reading = Literal["strict", "reference"]
"""How answers are scored: as the paper's code does, or strictly (docs/metrics.md)."""
AnswerState = Literal["right", "wrong", "partly right", "empty", "not scored"]
"""What became of an answer, by its `strict` score."""
TrainLanguageModel = Literal["lora", "none"]
TrainProjector = Literal["none", "full"]
TrainVisionTower = Literal["none", "lora", "full"]
"""How each part of the base is trained: LoRA, all weights, or not at all."""

"""A pretended GPU: everything on "cuda" has shape, dtype and device, but no values, so a 7B student costs nothing.

`PretendedGpu` is torch's FakeTensorMode with three additions. It follows the real values of small tensors (token ids,
masks, positions), so that what depends on them takes its real course; where a value is not known, a guess stands in.
It counts every wait of the host for the device, with the line of code that waits. And it keeps account of the bytes on
the device. Mixed devices raise in FakeTensorMode itself. Needs the runtime of cuda.c.
"""

import weakref
from collections import Counter
from typing import Any

import torch
from pretended.values import (
    SMALL,
    SMALL_FLOAT,
    OnceMore,
    RealArithmetic,
    forget,
    invented,
    known,
    line_of_call,
    on_gpu,
    with_values,
)
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

aten = torch.ops.aten

WAITS = {
    aten._local_scalar_dense.default: "read of a scalar",
    aten.nonzero.default: "nonzero",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.unique_consecutive.default: "unique",
    aten.masked_select.default: "masked_select",
    aten.equal.default: "equal",
    aten.is_nonzero.default: "is_nonzero",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten.bincount.default: "bincount",
    aten.linalg_eigh.default: "eigh (error check)",
    aten._linalg_eigh.default: "eigh (error check)",
    aten.multinomial.default: "multinomial",
}
"""Operators whose result's size or value the host must know."""
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor)
SIZED_BY_VALUES = (aten.nonzero.default, aten._unique2.default, aten.masked_select.default, aten.unique_dim.default)
WITHOUT_VALUES = (
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.empty_strided.default,
)


class PretendedGpu(TorchDispatchMode):
    """In place while the block runs."""

    def __init__(self) -> None:
        super().__init__()
        self.our_waits: Counter[str] = Counter()
        """How often a line of medalign, or of the check itself, made the host wait, by what for and where."""
        self.other_waits: Counter[str] = Counter()
        """The same of other libraries."""
        self.bytes = self.peak = 0
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._storages: dict[int, Any] = {}

    def __enter__(self) -> "PretendedGpu":
        from transformers.utils import import_utils

        self._fake.__enter__()
        self._reads = _Reads(self)
        self._reads.__enter__()
        self._replaced = [(torch.nn.Module, "_apply", _apply), (import_utils, "is_fake_tensor", lambda tensor: False)]
        self._replaced = [(owner, name, getattr(owner, name), new) for owner, name, new in self._replaced]
        for owner, name, _, new in self._replaced:  # transformers would take this for a compilation
            setattr(owner, name, new)
        super().__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        for owner, name, old, _ in self._replaced:
            setattr(owner, name, old)
        self._reads.__exit__(*args)
        self._fake.__exit__(*args)

    def reset(self) -> None:
        self.our_waits.clear()
        self.other_waits.clear()
        self.peak = self.bytes

    def note(self, kind: str) -> None:
        line, is_ours = line_of_call()
        (self.our_waits if is_ours else self.other_waits)[f"{kind} at {line}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "aten" and torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), "CompositeImplicitAutograd"
        ):
            with OnceMore(self):  # in inference mode
                decomposed = func.decompose(*args, **kwargs)
            if decomposed is not NotImplemented:
                return decomposed
        tensors = _tensors((args, kwargs))
        self._note_waits(func, args, kwargs, tensors)
        answer = self._answer(func, args, kwargs, tensors)
        if answer is not NotImplemented:
            return answer
        if func in INDEXED:
            args = (args[0], [one for index in args[1] for one in _as_numbers(index)], *args[2:])
        out = func(*args, **kwargs)
        _follow(func, args, kwargs, out)
        for item in _tensors(out):
            self._count(item)
        return out

    def _answer(self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """What FakeTensorMode cannot say, because it depends on values; NotImplemented for all else."""
        if func is aten._pin_memory.default:
            return args[0]
        if func is aten.is_pinned.default:
            return False
        values = [known(tensor) for tensor in tensors]
        all_known = all(value is not None and value.numel() <= SMALL for value in values)
        if func is aten._local_scalar_dense.default:
            with RealArithmetic():
                if values[0] is not None:
                    return values[0].item()
                return torch.ones((), dtype=args[0].dtype).item()
        if func in SIZED_BY_VALUES:
            real = [invented(tensor) if value is None else value for tensor, value in zip(tensors, values, strict=True)]
            with RealArithmetic():
                sized = func(*real, *[arg for arg in args if not isinstance(arg, Tensor)], **kwargs)
            device = args[0].device
            return tree_map(lambda item: with_values(item, device) if isinstance(item, Tensor) else item, sized)
        if func in (aten.equal.default, aten.is_nonzero.default):
            with RealArithmetic():
                return func(*values) if all_known else True
        return NotImplemented

    def _note_waits(self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> None:
        if func in WAITS and any(map(on_gpu, tensors)):
            self.note(WAITS[func])
        if func in INDEXED and on_gpu(args[0]):
            for index in args[1]:
                if isinstance(index, Tensor) and not on_gpu(index):
                    self.note("copy of an index to the GPU")
                elif isinstance(index, Tensor) and index.dtype == torch.bool:
                    self.note("boolean index")
        if func is aten._to_copy.default and kwargs.get("device") is not None:
            self._note_copy(args[0], torch.device(kwargs["device"]), bool(kwargs.get("non_blocking")))
        if func is aten.copy_.default and len(tensors) == 2:
            self._note_copy(tensors[1], tensors[0].device, bool([*args, False, False][2]))

    def _note_copy(self, source: Tensor, target: torch.device, non_blocking: bool) -> None:
        """From ordinary memory torch waits until the copy is done, and with it all that was queued before."""
        if target.type == source.device.type:
            return
        if target.type == "cpu":
            self.note("copy to the CPU")
        elif not non_blocking:
            self.note("copy to the GPU")

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if not on_gpu(tensor) or key in self._storages:
            return
        size = storage.nbytes()
        self._storages[key] = weakref.finalize(storage, self._free, key, size)
        self._storages[key].atexit = False
        self.bytes += size
        self.peak = max(self.peak, self.bytes)

    def _free(self, key: int, size: int) -> None:
        self.bytes -= size
        del self._storages[key]


class _Reads(TorchFunctionMode):
    """tolist and numpy, which fake tensors refuse."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self._gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (Tensor.tolist, Tensor.numpy) or not isinstance(args[0], FakeTensor):
            return func(*args, **(kwargs or {}))
        if on_gpu(args[0]):
            self._gpu.note("tolist")
        values = known(args[0])
        values = invented(args[0]) if values is None else values
        with RealArithmetic():
            return values.tolist() if func is Tensor.tolist else values.numpy()


def _tensors(tree: Any) -> list[Tensor]:
    """Those in nested tuples, lists and dicts, which is all that an operator takes or gives."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, tuple | list):
        return []
    return [tensor for item in tree for tensor in _tensors(item)]


def _as_numbers(index: Any) -> list[Any]:
    """A boolean index as the integers that it stands for."""
    if not isinstance(index, Tensor) or index.dtype not in (torch.bool, torch.uint8):
        return [index]
    values = known(index)
    values = invented(index) if values is None else values
    with RealArithmetic():
        axes = values.nonzero(as_tuple=True)
    return [with_values(axis, index.device) for axis in axes]


def _follow(func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Compute an operator's values too, where they are small and follow from known ones."""
    tensors, outs = _tensors((args, kwargs)), _tensors(out)
    values = {id(tensor): known(tensor) for tensor in tensors}
    all_known = all(value is not None for value in values.values())
    floats = [item.numel() for item in (*tensors, *outs) if item.dtype.is_floating_point]
    small = max([item.numel() for item in (*tensors, *outs)], default=0) <= SMALL
    is_random = torch.Tag.nondeterministic_seeded in func.tags
    if is_random or func in WITHOUT_VALUES or not all_known or not small:
        _forget_written(func, args)
        if not all_known:
            _invent_places(func, args, out)
        return
    if max(floats, default=0) > SMALL_FLOAT:
        _forget_written(func, args)
        return

    def real(item: Any) -> Any:
        if isinstance(item, torch.device):
            return torch.device("cpu")
        return values[id(item)] if isinstance(item, Tensor) else item

    try:
        with RealArithmetic(), torch.no_grad():
            results = func(*tree_map(real, args), **{key: tree_map(real, value) for key, value in kwargs.items()})
    except (RuntimeError, NotImplementedError):  # an operator that the CPU does not have
        return
    for item, value in zip(outs, _tensors(results), strict=True):
        if isinstance(item, FakeTensor):
            item._known = value


def _forget_written(func: Any, args: Any) -> None:
    for arg, spec in zip(args, func._schema.arguments, strict=False):
        if spec.alias_info is not None and spec.alias_info.is_write:
            for tensor in arg if isinstance(arg, list | tuple) else [arg]:
                forget(tensor)


def _invent_places(func: Any, args: Any, out: Any) -> None:
    """Places that depend on unknown values: any will do, but they differ where they would. What is copied to the CPU
    has values there, whatever they are."""
    if func is aten._to_copy.default and out.device.type == "cpu" and on_gpu(args[0]):
        out._known = invented(out)
        return
    places = None
    if func in (aten.topk.default, aten.sort.default, aten.sort.stable, aten.max.dim, aten.min.dim, aten.mode.default):
        places = out[1]
    elif func is aten.argmax.default:
        places = out
    if isinstance(places, FakeTensor) and places.numel() <= SMALL:
        with RealArithmetic():
            row = torch.arange(places.shape[-1] if places.ndim else 1) + (3 if func is aten.argmax.default else 0)
            places._known = row.expand(tuple(places.shape)).clone() if places.ndim else row[0]


def _apply(self: Any, fn: Any, recurse: bool = True) -> Any:
    """torch.nn.Module._apply for fake tensors: parameters are replaced, since what has weak references cannot be
    swapped."""
    for module in self.children() if recurse else ():
        module._apply(fn)
    for key, parameter in self._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                applied = fn(parameter)
            if applied.device != parameter.device or applied.dtype != parameter.dtype:
                self._parameters[key] = torch.nn.Parameter(applied, requires_grad=parameter.requires_grad)
    for key, buffer in self._buffers.items():
        if buffer is not None:
            self._buffers[key] = fn(buffer)
    return self

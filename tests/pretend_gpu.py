"""A GPU for machines without one: tensors whose device is 'cuda', held by tensors of the CPU.

Much of what a GPU forbids raises RuntimeError here, too: an operation on tensors of both devices, or with the other's
generator, and, while a CUDA graph is captured, what waits for the device, copies from the host or draws from a
generator that the graph does not know. A graph replays its operations into the memory that they wrote when it was
captured. Speed and rounding are the CPU's; there are no streams, and no autocast.
"""

import contextlib
import threading

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
COPIES = ("aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put_")  # take tensors of both devices
WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::_unique2")


class OnGpu(torch.Tensor):
    """A tensor of the pretended device, whose entries are those of `inner`. To PyTorch itself it is on 'meta'."""

    @staticmethod
    def __new__(cls, inner):
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, **layout, device="meta")

    def __init__(self, inner):
        self.inner = inner

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return call(func, args, kwargs or {})

    def tolist(self):
        return self.cpu().tolist()

    def __deepcopy__(self, memo):
        copy = self.detach().clone()
        return torch.nn.Parameter(copy, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copy

    def __reduce_ex__(self, protocol):
        return self.inner.detach().clone().__reduce_ex__(protocol)


class Names(TorchFunctionMode):
    """What asks for 'cuda' gets 'meta'. Generators are checked here, for operations get their bare likes."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map(rename, (args, kwargs or {}))
        if isinstance(generator := kwargs.get("generator"), Generator):
            place = args[0].device if isinstance(args[0], torch.Tensor) else kwargs.get("device") or "cpu"
            if generator.device.type != ("cpu" if str(place) == "cpu" else "cuda"):
                raise RuntimeError(f"{func.__name__}: a generator of the other device")
            if Graph.capturing is not None and generator not in Graph.capturing.generators:
                raise RuntimeError(f"{func.__name__}: a generator that the captured graph does not know")
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == "meta":  # copies from the host
            return func(*args, **{**kwargs, "device": None}).to("meta")
        return func(*args, **kwargs)


def rename(x):
    return "meta" if isinstance(x, str | torch.device) and str(x).startswith("cuda") else x


class Calls(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return call(func, args, kwargs or {})


def call(func, args, kwargs):
    """An operation, on the CPU; its results are on the GPU if its tensors, or the device it is asked for, are."""
    name, device = func._schema.name, kwargs.get("device")
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    ours, others = ([x for x in tensors if isinstance(x, OnGpu) == here] for here in (True, False))
    to_gpu = torch.device(device).type == "meta" if device is not None else bool(ours)
    if not ours and not to_gpu:
        return func(*args, **kwargs)
    if ours and name not in COPIES and any(x.dim() for x in others):
        raise RuntimeError(f"{name}: tensors of both devices")
    if Graph.capturing is not None:
        masks = name in COPIES and any(x.dtype == torch.bool for x in tensors[1:]) and "index" in name
        if name in WAITS or masks or not to_gpu or name in COPIES and others:
            raise RuntimeError(f"{name} while a graph is captured")

    def unwrap(x):
        return x.inner if isinstance(x, OnGpu) else torch.device("cpu") if isinstance(x, torch.device) else x

    args, kwargs = tree_map(unwrap, (args, kwargs))
    result = func(*args, **kwargs)
    if Graph.capturing is not None:
        Graph.capturing.calls.append((func, args, kwargs, result))
    if not to_gpu:
        return result.clone() if any(result is x.inner for x in ours) else result
    wrappers = {id(x.inner): x for x in ours}  # what is changed in its place stays what it is
    return tree_map(lambda x: wrappers[id(x)] if id(x) in wrappers else OnGpu(x) if isinstance(x, torch.Tensor) else x,
                    result)


class Graph:
    """torch.cuda.CUDAGraph."""

    capturing = None  # the graph

    def __init__(self):
        self.calls, self.generators = [], []

    @classmethod
    @contextlib.contextmanager
    def capture(cls, graph):
        """torch.cuda.graph."""
        cls.capturing = graph
        try:
            yield
        finally:
            cls.capturing = None

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def replay(self):
        for func, args, kwargs, written in self.calls:
            for old, new in zip(tree_leaves(written), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Stream:
    def wait_stream(self, other):
        pass


class Generator(torch.Generator):
    """torch.Generator, which draws on the CPU whatever its device is."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu")

    def __init__(self, device="cpu"):
        self.named = torch.device(device)

    device = property(lambda self: self.named)


@contextlib.contextmanager
def at_hand(patch):
    """Let there be a GPU, for this thread and those that it starts; patch is the pytest.MonkeyPatch that undoes it."""
    load, run = torch.load, threading.Thread.run

    def load_to(path, map_location="cpu", **kwargs):
        state = load(path, map_location="cpu", **kwargs)
        return tree_map(lambda x: x.to(map_location) if isinstance(x, torch.Tensor) else x, state)

    def run_pretending(thread):
        with Names(), Calls():
            run(thread)

    patch.setattr(torch, "load", load_to)
    patch.setattr(torch, "Generator", Generator)
    patch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())
    patch.setattr(torch.Tensor, "cuda", lambda x, device=None: x.to("cuda"))
    patch.setattr(torch.Tensor, "pin_memory", lambda x, device=None: x)
    patch.setattr(threading.Thread, "run", run_pretending)
    patch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    cuda = {"is_available": lambda: True, "set_device": lambda device: None, "synchronize": lambda: None,
            "mem_get_info": lambda device: (2**34, 2**35), "max_memory_allocated": lambda: 2**30, "Stream": Stream,
            "current_stream": Stream, "stream": lambda stream: contextlib.nullcontext(), "CUDAGraph": Graph,
            "graph": Graph.capture, "is_current_stream_capturing": lambda: Graph.capturing is not None,
            "is_bf16_supported": lambda including_emulation: True}
    for name, value in cuda.items():
        patch.setattr(torch.cuda, name, value)
    with Names(), Calls():
        yield

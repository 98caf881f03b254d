"""Compiled operations for training on a CPU (native/*.cc), and the choice to use them.

`use()` builds them with the system's C++ compiler, beside the trainer's state, and puts
them in place of the torch versions in architecture.py. They do the same, faster.
"""

import ctypes
import glob
import hashlib
import os
import subprocess

import torch

import architecture

FLAGS = ["-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math",
         "-std=c++20", "-shared", "-fPIC"]
_library = None


class _Shape(ctypes.Structure):
    _fields_ = [("key_heads", ctypes.c_int), ("value_heads", ctypes.c_int),
                ("sequences", ctypes.c_int), ("borders", ctypes.c_void_p),
                ("eps", ctypes.c_float)]


_SAVED = ["before_silu", "active", "scale", "written", "read", "decay", "beta", "states"]


class _Saved(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in _SAVED]


def build(directory):
    """The path of the library, compiled into `directory` if it is not there."""
    sources = sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                            "native", "*.cc")))
    digest = hashlib.sha256()
    for source in sources:
        with open(source, "rb") as file:
            digest.update(file.read())
    path = os.path.join(directory, f"native-{digest.hexdigest()[:12]}.so")
    if not os.path.exists(path):
        subprocess.run(["g++", *FLAGS, *sources, "-o", path + ".new"], check=True)
        os.replace(path + ".new", path)
    return path


def _pointers(*tensors):
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


def _shape(borders, geometry):
    return _Shape(geometry.linear_num_key_heads, geometry.linear_num_value_heads,
                  len(borders) - 1, borders.data_ptr(), geometry.rms_norm_eps)


class _DeltaNet(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mixed, z, ba, conv, log_a, dt_bias, norm, borders, geometry):
        tokens, heads = len(mixed), geometry.linear_num_value_heads
        size = geometry.linear_value_head_dim
        span = _library.demo_delta_net_span()
        spans = int(((borders.diff() + span - 1) // span).sum())
        kept = [torch.empty_like(mixed), torch.empty_like(mixed),
                mixed.new_empty(tokens, 2 * geometry.linear_num_key_heads),
                torch.empty_like(z), torch.empty_like(z), mixed.new_empty(tokens, heads),
                mixed.new_empty(tokens, heads), mixed.new_empty(spans, heads, size, size)]
        out = torch.empty_like(z)
        inputs = [mixed, z, ba, conv, log_a, dt_bias, norm]
        shape = _shape(borders, geometry)
        _library.demo_delta_net_forward(
            ctypes.byref(shape), ctypes.byref(_Saved(*(t.data_ptr() for t in kept))),
            *_pointers(*inputs, out))
        ctx.save_for_backward(*inputs, borders, *kept)
        ctx.geometry = geometry
        return out

    @staticmethod
    def backward(ctx, out_grad):
        *inputs, borders = ctx.saved_tensors[:8]
        kept = ctx.saved_tensors[8:]
        grads = [torch.empty_like(tensor) for tensor in inputs[:4]]
        grads += [torch.zeros_like(tensor) for tensor in inputs[4:]]
        shape = _shape(borders, ctx.geometry)
        _library.demo_delta_net_backward(
            ctypes.byref(shape), ctypes.byref(_Saved(*(t.data_ptr() for t in kept))),
            *_pointers(*inputs, out_grad.contiguous(), *grads))
        return (*grads, None, None)


def _delta_net_forward(self, x, packing):
    borders = torch.tensor(packing.borders, dtype=torch.int32)
    read = _DeltaNet.apply(
        architecture.product(x, self.in_qkv), architecture.product(x, self.in_z),
        x @ self.in_ba.t(), self.conv, self.log_a, self.dt_bias, self.norm, borders,
        self.geometry)
    return architecture.product(read, self.out)


def supports(geometry):
    return (geometry.linear_key_head_dim == geometry.linear_value_head_dim == 32
            and geometry.linear_conv_kernel_dim == 4)


def use(directory):
    """Builds into `directory` and replaces the torch versions. CPU and fp32 only."""
    global _library
    os.makedirs(directory, exist_ok=True)
    _library = ctypes.CDLL(build(directory))
    architecture.DeltaNet.forward = _delta_net_forward

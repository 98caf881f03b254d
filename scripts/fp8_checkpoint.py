"""FP8 checkpoints of random weights, in the layout in which Qwen publishes them.

Projections and experts are F8_E4M3 with a BF16 scale for each block of 128 x 128; what
else there is stays BF16. They are made from a BF16 checkpoint (`switchyard synth
--format hf-bf16`), whose shapes, other tensors and shards are taken over.
"""

import json
import os
import random
import shutil
import struct

BLOCK = 128
INDEX = "model.safetensors.index.json"
# E4M3's two NaNs, for which another value is taken.
_NO_NAN = bytes(bits - 1 if bits & 0x7F == 0x7F else bits for bits in range(256))
_COPY_BYTES = 1 << 24


def _is_fp8(name):
    return name.endswith(("_proj.weight", ".in_proj_qkvz.weight"))


def _bf16(value):
    return struct.pack("<f", value)[2:]


def _blocks(length):
    return -(-length // BLOCK)


def _header(file):
    """Tensors of a safetensors file in their order, and where the first one begins."""
    (length,) = struct.unpack("<Q", file.read(8))
    tensors = json.loads(file.read(length))
    tensors.pop("__metadata__", None)
    return dict(sorted(tensors.items(), key=lambda t: t[1]["data_offsets"])), 8 + length


def _plan(tensors):
    """[(name, dtype, shape, bytes)] of the FP8 file of these BF16 tensors."""
    planned = []
    for name, tensor in tensors.items():
        shape = tensor["shape"]
        begin, end = tensor["data_offsets"]
        if not _is_fp8(name):
            planned.append((name, tensor["dtype"], shape, end - begin))
            continue
        scales = [_blocks(length) for length in shape]
        planned.append((name, "F8_E4M3", shape, shape[0] * shape[1]))
        planned.append((name + "_scale_inv", "BF16", scales, 2 * scales[0] * scales[1]))
    return planned


def _write_header(out, planned):
    header, offset = {}, 0
    for name, dtype, shape, size in planned:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset,
                                                                         offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.write(struct.pack("<Q", len(text)) + text)


def _copy(file, out, size):
    while size:
        piece = file.read(min(size, _COPY_BYTES))
        out.write(piece)
        size -= len(piece)


def _rewrite(source, target, rng):
    """Returns the names in the new file, and their bytes together."""
    with open(source, "rb") as file, open(target, "wb") as out:
        tensors, first = _header(file)
        planned = _plan(tensors)
        _write_header(out, planned)
        for name, dtype, _, size in planned:
            if dtype == "F8_E4M3":
                out.write(rng.randbytes(size).translate(_NO_NAN))
            elif name.endswith("_scale_inv"):
                # Weights of the order of 0.01: E4M3's are up to 448.
                out.write(b"".join(_bf16(rng.uniform(2 ** -15, 2 ** -13))
                                   for _ in range(size // 2)))
            else:
                file.seek(first + tensors[name]["data_offsets"][0])
                _copy(file, out, size)
    return [name for name, *_ in planned], sum(size for *_, size in planned)


def replace(source, target, seed=1):
    """Makes `target` of the BF16 checkpoint in `source`, which is deleted, shard by shard."""
    rng = random.Random(seed)
    os.makedirs(target)
    weight_map, total = {}, 0
    for name in sorted(os.listdir(source)):
        path, new = os.path.join(source, name), os.path.join(target, name)
        if name.endswith(".safetensors"):
            names, size = _rewrite(path, new, rng)
            weight_map.update(dict.fromkeys(names, name))
            total += size
            os.remove(path)
        elif name == "config.json":
            with open(path, encoding="utf-8") as file:
                config = json.load(file)
            config["quantization_config"] = {
                "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                "weight_block_size": [BLOCK, BLOCK]}
            with open(new, "w", encoding="utf-8") as file:
                json.dump(config, file, indent=2)
        elif name != INDEX:
            shutil.copy(path, new)
    with open(os.path.join(target, INDEX), "w", encoding="utf-8") as file:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, file)
    shutil.rmtree(source)

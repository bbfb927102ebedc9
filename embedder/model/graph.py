"""Writes the network as an ONNX graph (graph.onnx) and its numbers (graph.onnx.data, referred to by offset).

All but the attention works on flat rows, one per token of the batch, so that each token is quantised with a range of
its own: a text's vector then does not depend on what else is in the batch.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

ALIGNMENT = 64
WEIGHTS = "graph.onnx.data"  # rten only accepts names that end in this


class Writer:
    def __init__(self):
        self.nodes, self.tensors, self.data = [], [], bytearray()

    def constant(self, name, value):
        """A tensor in graph.onnx.data; scalars and the like stay inside the graph."""
        value = np.asarray(value, order="C")
        if value.nbytes < 256:
            self.tensors.append(numpy_helper.from_array(value, name))
            return name
        self.data += bytes(-len(self.data) % ALIGNMENT)
        tensor = TensorProto(
            name=name,
            dims=value.shape,
            data_type=helper.np_dtype_to_tensor_dtype(value.dtype),
            data_location=TensorProto.EXTERNAL,
        )
        for key, entry in (("location", WEIGHTS), ("offset", len(self.data)), ("length", value.nbytes)):
            tensor.external_data.add(key=key, value=str(entry))
        self.tensors.append(tensor)
        self.data += value.tobytes()
        return name

    def node(self, operator, *inputs, outputs=None, **attributes):
        outputs = outputs or [f"{operator}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes))
        return outputs[0]

    def norm(self, x, name, parameters):
        gain, bias = self.constant(name + ".gain", parameters[0]), self.constant(name + ".bias", parameters[1])
        return self.node("LayerNormalization", x, gain, bias, axis=-1, epsilon=1e-12)

    def quantize(self, x):
        """Rows to u8, as x = step * u8 + low: (u8[tokens, inputs], step[tokens, 1], low[tokens, 1]).

        `low` is taken into account by `linear` and not given to MatMulInteger as a zero point for each row: rten 0.27
        mixes those up between rows as soon as there are more than 14.
        """
        low = self.node("ReduceMin", x, "last_axis", keepdims=1)
        high = self.node("ReduceMax", x, "last_axis", keepdims=1)
        # A row of equal values has no range; the floor keeps it from becoming a division by zero.
        span = self.node("Max", self.node("Sub", high, low), "span_min")
        per_step = self.node("Div", "steps", span)
        # The cast cuts off the fraction, so one half is added; all values are positive by then.
        shift = self.node("Sub", "half", self.node("Mul", low, per_step))
        u8 = self.node("Cast", self.node("Add", self.node("Mul", x, per_step), shift), to=TensorProto.UINT8)
        return u8, self.node("Mul", span, "per_steps"), low

    def linear(self, x, name, weight, scale, bias):
        """(step * u8 + low) times (scale * weight), plus bias."""
        u8, step, low = x
        zeros = self.constant(name + ".zero", np.zeros(len(scale), np.int8))
        y = self.node("MatMulInteger", u8, self.constant(name + ".weight", weight.T), "u8_zero", zeros)
        y = self.node("Mul", self.node("Cast", y, to=TensorProto.FLOAT), self.constant(name + ".scale", scale))
        # One product with a single column: rten adds the bias in passing.
        sums = (scale * weight.sum(1, dtype=np.int64)).astype(np.float32)[None]
        offset = self.node("MatMul", low, self.constant(name + ".sums", sums))
        offset = self.node("Add", offset, self.constant(name + ".bias", bias))
        return self.node("Add", self.node("Mul", y, step), offset)


def write(folder, model, quantized, words):
    w = Writer()
    w.constant("last_axis", np.array([-1], np.int64))
    w.constant("rows", np.array([-1, 384], np.int64))
    for name, value in (("half", 0.5), ("steps", 255), ("per_steps", 1 / 255), ("span_min", 1e-9)):
        w.constant(name, np.float32(value))
    w.constant("u8_zero", np.uint8(0))

    word = w.node("Cast", w.node("Gather", w.constant("words", words[0]), "ids"), to=TensorProto.FLOAT)
    word = w.node("Mul", word, w.node("Gather", w.constant("words.scale", words[1]), "ids"))
    position = w.node("Gather", w.constant("positions.table", model["positions"]), "positions")
    x = w.norm(w.node("Add", word, position), "norm", model["norm"])
    linear = lambda x, name: w.linear(w.quantize(x), name, *quantized[name], model[name][1])
    for layer in range(6):
        name = f"{layer}."
        qkv = w.node("Reshape", linear(x, name + "qkv"), "heads")
        mixed = w.node(
            "MultiHeadAttention", qkv, "", "", "", "mask",
            domain="com.microsoft", num_heads=12, mask_filter_value=-10000.0,
        )
        mixed = w.node("Reshape", mixed, "rows")
        x = w.norm(w.node("Add", linear(mixed, name + "out"), x), name + "norm_attention", model[name + "norm_attention"])
        up = w.node("Gelu", linear(x, name + "up"))
        x = w.norm(w.node("Add", linear(up, name + "down"), x), name + "norm_output", model[name + "norm_output"])
    w.node("Identity", x, outputs=["hidden"])

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        w.nodes,
        "all-MiniLM-L6-v2",
        [
            value("ids", TensorProto.INT64, ["tokens"]),
            value("positions", TensorProto.INT64, ["tokens"]),
            value("mask", TensorProto.INT32, ["texts", "length"]),
            value("heads", TensorProto.INT64, [5]),
        ],
        [value("hidden", TensorProto.FLOAT, ["tokens", 384])],
        w.tensors,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    (folder / "graph.onnx").write_bytes(proto.SerializeToString(deterministic=True))
    (folder / WEIGHTS).write_bytes(w.data)

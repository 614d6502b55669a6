"""What `export_models.py` does to the graphs that torch exports: passes, weights in a file of their own, and checks.

A pass changes an `onnx_ir` model in place, returns how many places it changed, and does not read a weight.

- `three_dimensional_attention`: `Attention` without the transposes around it, as ONNX Runtime's CUDA kernels take it.
- `deterministic_norms`: `GroupNormalization`, for which ONNX Runtime has no CUDA kernel, by `LayerNormalization`. (The
  kernel for `InstanceNormalization` is of opset 6, and up to 1.31 it is not used from opset 22 on.)
- `fused_norms`: the same as `com.microsoft.GroupNorm`, with the SiLU that follows. Only CUDA has it, it is faster, and
  it adds in any order, so that two runs may differ in the last bits.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx_ir.passes import common
from onnx_ir.tape import Tape

OPSET = 23
"""The first with `Attention`; ONNX Runtime has it since 1.23."""
CONTRIB = "com.microsoft"
TO_HEADS = [0, 2, 1, 3]
"""From [rows, length, heads, size] to [rows, heads, length, size], and back."""
TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]
EXTERNAL_BYTES = 1024
"""Smaller weights stay in the graph."""
PAGE = 4096
"""Larger weights than some of these begin at a page, so that they can be mapped into memory."""

Arrays = Mapping[str, np.ndarray]


# --- passes -------------------------------------------------------------------------------------------


def nodes_of(model: ir.Model, operator: str) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == operator]


def attribute(node: ir.Node, name: str, default: object) -> object:
    found = node.attributes.get(name)
    return default if found is None else found.value


def three_dimensional_attention(model: ir.Model) -> int:
    """`Attention` on [rows, length, heads · size]: reshaping and transposing to heads and back falls away."""
    changed = 0
    for node in nodes_of(model, "Attention"):
        flat = [before_heads(value) for value in node.inputs[:3]]
        joined = after_heads(node.outputs[0])
        if joined is None or any(value is None for value in flat):
            continue
        for name, value in [("q_num_heads", node.inputs[0]), ("kv_num_heads", node.inputs[1])]:
            node.attributes[name] = ir.AttrInt64(name, value.shape[1])
        for index, value in enumerate(flat):
            node.replace_input_with(index, value)
        node.outputs[0].shape = joined.shape
        ir.convenience.replace_all_uses_with(joined, node.outputs[0])
        changed += 1
    common.RemoveUnusedNodesPass()(model)
    return changed


def before_heads(value: ir.Value) -> ir.Value | None:
    """The [rows, length, heads · size] from which a value of four dimensions was made; None if it was not."""
    transpose = value.producer()
    if not transposes(transpose, TO_HEADS) or value.shape is None or not isinstance(value.shape[1], int):
        return None
    reshape = transpose.inputs[0].producer()
    if reshape is None or reshape.op_type != "Reshape" or reshape.inputs[0].shape is None:
        return None
    flat = reshape.inputs[0]
    return flat if len(flat.shape) == 3 and flat.shape[2] == value.shape[1] * value.shape[3] else None


def after_heads(value: ir.Value) -> ir.Value | None:
    """The [rows, length, heads · size] that is made from the output of an `Attention`; None if anything else is."""
    transpose = only_reader(value)
    if not transposes(transpose, TO_HEADS):
        return None
    reshape = only_reader(transpose.outputs[0])
    if reshape is None or reshape.op_type != "Reshape" or reshape.outputs[0].is_graph_output():
        return None
    joined = reshape.outputs[0]
    return joined if joined.shape is not None and len(joined.shape) == 3 else None


def transposes(node: ir.Node | None, order: list[int]) -> bool:
    return node is not None and node.op_type == "Transpose" and list(attribute(node, "perm", [])) == order


def only_reader(value: ir.Value) -> ir.Node | None:
    readers = {use.node for use in value.uses()}
    return readers.pop() if len(readers) == 1 and not value.is_graph_output() else None


def deterministic_norms(model: ir.Model) -> int:
    """`GroupNormalization` by Reshape, `LayerNormalization` of each group, Mul and Add."""
    norms = nodes_of(model, "GroupNormalization")
    for node in norms:
        tape, (x, scale, bias) = Tape(), node.inputs
        groups = attribute(node, "num_groups", 0)
        # [rows, channels, …] as [rows, groups, rest]
        grouped = tape.op("Reshape", [x, constant(model, f"groups_{groups}", np.array([0, groups, -1], np.int64))])
        one = constant(model, "one", np.ones(1, x.dtype.numpy()))
        ones = tape.op("Expand", [one, tape.op("Shape", [grouped], {"start": 2})])
        settings = {"axis": -1, "epsilon": attribute(node, "epsilon", 1e-5)}
        normal = tape.op("LayerNormalization", [grouped, ones], settings)
        normal = tape.op("Reshape", [normal, tape.op("Shape", [x])])
        axes = list(range(1, len(x.shape) - 1))
        axes = constant(model, f"axes_{len(axes)}", np.array(axes, np.int64))
        scaled = tape.op("Mul", [normal, tape.op("Unsqueeze", [scale, axes])])
        replace(model, [node], tape, tape.op("Add", [scaled, tape.op("Unsqueeze", [bias, axes])]))
    return len(norms)


def fused_norms(model: ir.Model) -> tuple[int, int]:
    """`GroupNormalization` of images as `com.microsoft.GroupNorm`; how many, and with how many of them a SiLU."""
    norms = [node for node in nodes_of(model, "GroupNormalization") if len(node.inputs[0].shape) == 4]
    silus = 0
    for node in norms:
        tape, x = Tape(), node.inputs[0]
        silu = silu_of(node.outputs[0])
        # The kernel takes these in single precision, whatever the precision of the image.
        scale, bias = (
            value if value.dtype == ir.DataType.FLOAT else tape.op("Cast", [value], {"to": ir.DataType.FLOAT})
            for value in node.inputs[1:3]
        )
        normal = tape.op(
            "GroupNorm",
            [tape.op("Transpose", [x], {"perm": TO_NHWC}), scale, bias],
            {
                "groups": attribute(node, "num_groups", 0),
                "epsilon": attribute(node, "epsilon", 1e-5),
                "activation": int(bool(silu)),
                "channels_last": 1,
            },
            domain=CONTRIB,
        )
        replace(model, [node, *silu], tape, tape.op("Transpose", [normal], {"perm": TO_NCHW}))
        silus += bool(silu)
    if norms:
        model.opset_imports[CONTRIB] = 1
    return len(norms), silus


def silu_of(value: ir.Value) -> list[ir.Node]:
    """The nodes that compute `x · sigmoid(x)` of a value, if nothing else reads it."""
    readers = {use.node.op_type: use.node for use in value.uses()}
    if len(value.uses()) != 2 or set(readers) != {"Sigmoid", "Mul"} or value.is_graph_output():
        return []
    sigmoid, product = readers["Sigmoid"], readers["Mul"]
    whole = set(product.inputs) == {value, sigmoid.outputs[0]} and only_reader(sigmoid.outputs[0]) is product
    return [sigmoid, product] if whole else []


def replace(model: ir.Model, old: list[ir.Node], tape: Tape, value: ir.Value) -> None:
    """Puts the tape's nodes in the place of others; `value` replaces the output of the last of these."""
    output = old[-1].outputs[0]
    value.shape, value.dtype = output.shape, output.dtype
    ir.convenience.replace_nodes_and_values(model.graph, old[0], old, tape.nodes, [output], [value])


def constant(model: ir.Model, name: str, values: np.ndarray) -> ir.Value:
    """A constant of the graph, which passes share by its name."""
    name = f"{name}_{values.dtype}"
    if name not in model.graph.initializers:
        tensor = ir.Tensor(values, name=name)
        value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        model.graph.register_initializer(value)
    return model.graph.initializers[name]


def tidied(model: ir.Model, axes: Mapping[str, Mapping[int, str]]) -> None:
    """Removes what torch says of itself, and names the free dimensions of inputs and outputs."""
    common.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.outputs]:
        names = axes.get(value.name, {})
        value.shape = ir.Shape(names.get(index, size) for index, size in enumerate(value.shape))
    for node in model.graph:  # Shapes of what is inside have torch's names, and no runtime needs them.
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = value.type = None


# --- weights ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a weight stands in the file of weights; `dtype` is ONNX's name, offset and length are in bytes."""

    name: str
    dtype: str
    shape: list[int]
    offset: int
    length: int


def places(model: ir.Model) -> list[Place]:
    """The places of all weights but small ones, one after another. Other constants than floats stay in the graph."""
    found, offset = [], 0
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor.nbytes >= EXTERNAL_BYTES and tensor.dtype.is_floating_point():
            alignment = PAGE if tensor.nbytes >= 16 * PAGE else 64
            offset = -(-offset // alignment) * alignment
            found.append(Place(name, tensor.dtype.name, [int(side) for side in tensor.shape], offset, tensor.nbytes))
            offset += tensor.nbytes
    return found


def write_weights(model: ir.Model, found: list[Place], file: Path) -> None:
    with file.open("wb") as out:
        for place in found:
            out.seek(place.offset)
            out.write(model.graph.initializers[place.name].const_value.tobytes())


def write_graph(model: ir.Model, found: list[Place], file: Path, weights: str) -> None:
    """Writes a graph whose weights are in another file of its folder, which need not exist yet."""
    for place in found:
        value = model.graph.initializers.get(place.name)
        if value is not None:
            kind, shape = ir.DataType[place.dtype], ir.Shape(place.shape)
            value.const_value = ir.ExternalTensor(
                weights, place.offset, place.length, kind, shape=shape, name=place.name, base_dir=file.parent
            )
    ir.save(model, file)


def write_layout(found: list[Place], file: Path) -> None:
    file.write_text(json.dumps([asdict(place) for place in found]) + "\n")


# --- checks -------------------------------------------------------------------------------------------


class GroupNorm(OpRun):
    """`com.microsoft.GroupNorm` as ONNX Runtime documents it, for onnx's reference evaluator."""

    op_domain = CONTRIB

    def _run(self, x, scale, bias, groups=None, epsilon=None, activation=None, channels_last=None):  # noqa: ANN001, ANN202
        if not channels_last:
            raise NotImplementedError("only the layout NHWC")
        split = x.astype(np.float32).reshape(len(x), -1, groups, x.shape[3] // groups)
        centred = split - split.mean((1, 3), keepdims=True)
        normal = (centred / np.sqrt(split.var((1, 3), keepdims=True) + epsilon)).reshape(x.shape) * scale + bias
        return ((normal / (1 + np.exp(-normal)) if activation else normal).astype(x.dtype),)


def evaluated(file: Path, inputs: Arrays) -> np.ndarray:
    """The first output by onnx's own evaluator, all in single precision. It is slow: for a few latents only.

    Weights are given as inputs, so that none is copied that is in single precision already.
    """
    model, half = ir.load(file), ir.DataType.FLOAT16
    weights = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    weights = {
        name: value.astype(np.float32) if value.dtype == np.float16 else value for name, value in weights.items()
    }
    model.graph.initializers.clear()
    for node in model.graph:
        if node.op_type == "Cast" and attribute(node, "to", None) == half:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
    return ReferenceEvaluator(ir.to_proto(model), new_ops=[GroupNorm]).run(None, {**inputs, **weights})[0]


def relative(actual: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """The largest difference, and its share of the largest value."""
    if actual.shape != expected.shape:
        return float("inf"), float("inf")
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    largest = float(np.abs(actual - expected).max())
    return largest, largest / float(np.abs(expected).max())


def operators(file: Path) -> Iterator[str]:
    """The operators of a graph, without its weights; those of other domains as `DOMAIN.OPERATOR`."""
    for node in onnx.load(file, load_external_data=False).graph.node:
        yield f"{node.domain}.{node.op_type}" if node.domain else node.op_type

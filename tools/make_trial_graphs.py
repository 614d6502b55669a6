"""Writes the graphs with which discl-pipe tries a device: a convolution, a matrix product and an attention.

    python tools/make_trial_graphs.py      # needs numpy and onnx, as in requirements-export.txt

Each computes in half precision on constants that are multiplied by its only input, `one`, so that no optimizer can
compute them in advance. The output `y` has the result, the output `expected` what it must be, computed here by numpy
in double precision.
"""

from pathlib import Path

import numpy
from onnx import TensorProto, checker, helper, numpy_helper, save

HERE = Path(__file__).resolve().parent.parent / "src" / "models" / "onnx" / "trial"
random = numpy.random.default_rng(0)


def half(*shape: int) -> numpy.ndarray:
    """Values of a normal distribution."""
    return random.standard_normal(shape).astype(numpy.float16)


def write(name: str, operator: str, constants: list[numpy.ndarray], expected: numpy.ndarray, **attributes: object) -> None:
    """Writes `name`.onnx: `y` is `operator` of the constants."""
    inputs = [f"x{index}" for index in range(len(constants))]
    nodes = [helper.make_node("Cast", ["one"], ["half"], to=TensorProto.FLOAT16)]
    nodes += [helper.make_node("Mul", [f"constant_{name}", "half"], [name]) for name in inputs]
    nodes.append(helper.make_node(operator, inputs, ["result"], **attributes))
    nodes.append(helper.make_node("Cast", ["result"], ["y"], to=TensorProto.FLOAT))
    weights = [numpy_helper.from_array(value, f"constant_{name}") for name, value in zip(inputs, constants)]
    weights.append(numpy_helper.from_array(expected.astype(numpy.float32), "expected"))
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, expected.shape) for output in ("y", "expected")]
    one = helper.make_tensor_value_info("one", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, name, [one], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    checker.check_model(model)
    save(model, HERE / f"{name}.onnx")


def convolution() -> None:
    """3 × 3, padded, from 16 channels to 8."""
    x, w = half(1, 16, 8, 8), half(8, 16, 3, 3)
    padded = numpy.pad(x.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = numpy.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    expected = numpy.einsum("bchwij,ocij->bohw", windows, w.astype(float))
    write("convolution", "Conv", [x, w], expected, pads=[1, 1, 1, 1])


def product() -> None:
    a, b = half(2, 16, 32), half(32, 16)
    write("product", "MatMul", [a, b], a.astype(float) @ b.astype(float))


def attention() -> None:
    """Eight tokens, two heads of 64."""
    q, k, v = half(1, 8, 128), half(1, 8, 128), half(1, 8, 128)
    heads = [value.astype(float).reshape(8, 2, 64).transpose(1, 0, 2) for value in (q, k, v)]
    scores = heads[0] @ heads[1].transpose(0, 2, 1) / 8
    weights = numpy.exp(scores) / numpy.exp(scores).sum(axis=-1, keepdims=True)
    expected = (weights @ heads[2]).transpose(1, 0, 2).reshape(1, 8, 128)
    write("attention", "Attention", [q, k, v], expected, q_num_heads=2, kv_num_heads=2)


HERE.mkdir(exist_ok=True)
convolution()
product()
attention()

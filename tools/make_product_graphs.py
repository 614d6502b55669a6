"""Writes the graphs of `src/models/onnx/product.rs`: 16 products of a square matrix, and the largest value of the last.

    python tools/make_product_graphs.py          # with onnx, as in tools/requirements-export.txt
"""

from pathlib import Path

import onnx
from onnx import TensorProto, checker, helper

PRODUCTS = 16
OUT = Path(__file__).parent.parent / "src/models/onnx/product"


def graph(kind: int) -> onnx.ModelProto:
    """Only one value leaves the device, so that copying the result takes no time."""
    names = ["matrix", *(f"power_{number}" for number in range(PRODUCTS))]
    products = [helper.make_node("MatMul", [before, "matrix"], [after]) for before, after in zip(names, names[1:])]
    nodes = [*products, helper.make_node("ReduceMax", [names[-1]], ["largest"], keepdims=0)]
    inputs = [helper.make_tensor_value_info("matrix", kind, ["side", "side"])]
    outputs = [helper.make_tensor_value_info("largest", kind, [])]
    body = helper.make_graph(nodes, "product", inputs, outputs)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


OUT.mkdir(exist_ok=True)
for name, kind in [("float32", TensorProto.FLOAT), ("float16", TensorProto.FLOAT16)]:
    model = graph(kind)
    checker.check_model(model)
    (OUT / f"{name}.onnx").write_bytes(model.SerializeToString())

"""What the passes of tools/onnx_graphs.py do to graphs, without torch: on small graphs made here, and on the exports in
tests/fixtures/opset23; and what benches/gpu/trim.py takes out of a library. Prints what fails; exit code 1 if anything does.

    python tests/graphs/check.py
"""

import json
import shutil
import struct
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "benches/gpu")]
import onnx_graphs as graphs
import trim

FIXTURES = ROOT / "tests/fixtures"
MODELS = {"digits": ROOT / "models/digits"} | {
    name: FIXTURES / "pipelines" / name for name in ["sd1", "sd2", "sdxl_base", "sdxl_refiner"]
}
"""Each export by opset 23, and the model with the older graphs, in which its weights are."""
RANDOM = np.random.default_rng(0)


def model_of(nodes, inputs, outputs, weights, kind=TensorProto.FLOAT, inside=None):  # noqa: ANN001, ANN201
    """A model with the shapes of everything inside, as torch's exporter has them; `inside` has those that onnx's shape
    inference does not find.
    """
    ports, results, values = (
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in side.items()]
        for side in (inputs, outputs, inside or {})
    )
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "graph", ports, results, tensors, value_info=values)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", graphs.OPSET)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return ir.from_proto(onnx.shape_inference.infer_shapes(made))


def run(model, **inputs):  # noqa: ANN001, ANN003, ANN201
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    return ReferenceEvaluator(proto, new_ops=[graphs.GroupNorm]).run(None, inputs)


def normals(*shape):  # noqa: ANN002, ANN201
    return RANDOM.normal(size=shape).astype(np.float32)


def kinds(model):  # noqa: ANN001, ANN201
    return [node.op_type for node in model.graph]


def attention(extra=False):  # noqa: ANN001, ANN201
    """Attention of two heads as torch exports it; with `extra`, something else reads it before the heads are joined."""
    nodes = []
    for name in "qkv":
        nodes.append(helper.make_node("Reshape", [name, "split"], [f"{name}4"]))
        nodes.append(helper.make_node("Transpose", [f"{name}4"], [f"{name}t"], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Attention", ["qt", "kt", "vt"], ["made"]))
    nodes.append(helper.make_node("Transpose", ["made"], ["back"], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Reshape", ["back", "join"], ["joined"]))
    nodes.append(helper.make_node("Relu", ["joined"], ["y"]))
    outputs = {"y": [2, 5, 8]}
    if extra:
        nodes.append(helper.make_node("Relu", ["made"], ["z"]))
        outputs["z"] = [2, 2, 5, 4]
    weights = {"split": np.array([0, -1, 2, 4]), "join": np.array([0, 0, 8])}
    return model_of(nodes, {"q": [2, 5, 8], "k": [2, 3, 8], "v": [2, 3, 8]}, outputs, weights)


def test_attention_loses_its_transposes_and_not_a_bit() -> None:
    model = attention()
    inputs = {"q": normals(2, 5, 8), "k": normals(2, 3, 8), "v": normals(2, 3, 8)}
    (before,) = run(model, **inputs)
    assert graphs.three_dimensional_attention(model) == 1
    assert kinds(model) == ["Attention", "Relu"], kinds(model)
    (after,) = run(model, **inputs)
    assert np.array_equal(before, after), np.abs(before - after).max()


def test_attention_that_is_read_by_heads_stays() -> None:
    model = attention(extra=True)
    assert graphs.three_dimensional_attention(model) == 0
    assert kinds(model).count("Transpose") == 4


def norms(read_twice=False, kind=np.float32):  # noqa: ANN001, ANN201
    """A norm with SiLU, a convolution, and a norm without; with `read_twice`, the first norm has a third reader."""
    weights = {"s": normals(8), "b": normals(8), "w": normals(8, 8, 3, 3) / 9}
    norm = {"num_groups": 4, "epsilon": 1e-5}
    nodes = [
        helper.make_node("GroupNormalization", ["x", "s", "b"], ["n"], **norm),
        helper.make_node("Sigmoid", ["n"], ["g"]),
        helper.make_node("Mul", ["n", "g"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("GroupNormalization", ["c", "s", "b"], ["y"], **norm),
    ]
    outputs = {"y": [2, 8, 5, 3]}
    if read_twice:
        nodes.append(helper.make_node("Relu", ["n"], ["z"]))
        outputs["z"] = [2, 8, 5, 3]
    weights = {name: value.astype(kind) for name, value in weights.items()}
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return model_of(nodes, {"x": [2, 8, 5, 3]}, outputs, weights, element, dict.fromkeys("nc", [2, 8, 5, 3]))


def test_norms_compute_the_same_in_both_forms() -> None:
    for read_twice, silus in [(False, 1), (True, 0)]:
        raw, x = norms(read_twice), normals(2, 8, 5, 3) * 3 + 1
        deterministic, fast = raw.clone(), raw.clone()
        assert graphs.deterministic_norms(deterministic) == 2
        assert graphs.fused_norms(fast) == (2, silus)
        assert "GroupNormalization" not in kinds(deterministic) + kinds(fast)
        assert kinds(fast).count("GroupNorm") == 2
        for expected, *others in zip(run(raw, x=x), run(deterministic, x=x), run(fast, x=x), strict=True):
            for other in others:
                assert graphs.relative(other, expected)[1] < 1e-6


def test_norms_in_half_precision_have_their_weights_in_single() -> None:
    fast = norms(kind=np.float16)
    graphs.fused_norms(fast)
    casts = [node for node in fast.graph if node.op_type == "Cast"]
    assert [node.inputs[0].name for node in casts] == ["s", "b", "s", "b"]
    assert all(graphs.attribute(node, "to", None) == ir.DataType.FLOAT for node in casts)


def test_weights_stand_in_one_file_for_both_graphs() -> None:
    model = norms()
    model.graph.register_initializer(ir.Value(name="ids", const_value=ir.Tensor(np.arange(400), name="ids")))
    x = normals(2, 8, 5, 3)
    expected = run(model, x=x)[0]
    found = graphs.places(model)
    assert [place.name for place in found] == ["w"], "small weights and integers stay in the graph"
    with tempfile.TemporaryDirectory() as folder:
        graphs.write_weights(model, found, Path(folder) / "model.onnx_data")
        fast = model.clone()
        graphs.fused_norms(fast)
        graphs.deterministic_norms(model)
        for graph, name in [(model, "model.onnx"), (fast, "model.cuda.onnx")]:
            graphs.tidied(graph, {"x": {0: "rows"}, "y": {0: "rows"}})
            graphs.write_graph(graph, found, Path(folder) / name, "model.onnx_data")
            made = graphs.evaluated(Path(folder) / name, {"x": x})
            assert graphs.relative(made, expected)[1] < 1e-6
            first = onnx.load(Path(folder) / name, load_external_data=False).graph.input[0]
            assert first.type.tensor_type.shape.dim[0].dim_param == "rows"


def test_large_weights_begin_at_pages_and_none_overlap() -> None:
    model = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)
    for name, size in {"a": 300, "b": 40_000, "c": 1_000, "d": 90_000, "e": 10}.items():
        model.graph.register_initializer(ir.Value(name=name, const_value=ir.Tensor(normals(size), name=name)))
    found, end = graphs.places(model), 0
    assert [place.name for place in found] == ["a", "b", "c", "d"]
    for place in found:
        assert place.offset >= end and place.length == 4 * place.shape[0]
        assert place.offset % (4096 if place.length >= 65536 else 64) == 0
        end = place.offset + place.length


def library(entries: list[tuple[int, int, bytes]], name: str = ".nv_fatbin") -> bytes:
    """A library with GPU code: for each piece its kind, the GPU and the bytes."""
    pieces = [struct.pack("<HHIQI8xI32x", kind, 0, 64, len(code), 0, gpu) + code for kind, gpu, code in entries]
    body = b"".join(pieces)
    section = bytes(8) + struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body
    names = b"\0" + name.encode() + b"\0"
    header = bytearray(64)
    at = 64 + len(section) + len(names)
    struct.pack_into("<Q", header, 0x28, at)
    struct.pack_into("<HHH", header, 0x3A, 64, 2, 1)
    table = [(1, 1, 0, 0, 64, len(section)), (0, 3, 0, 0, 64 + len(section), len(names))]
    return bytes(header) + section + names + b"".join(struct.pack("<IIQQQQ24x", *row) for row in table)


def test_a_library_keeps_the_code_for_one_gpu() -> None:
    conv, experts = b"_ZN4conv6kernelEv ".ljust(32, b"c"), b"_ZN7gemm_moe3runEv ".ljust(32, b"m")
    made = library([(2, 90, conv), (2, 80, conv), (2, 90, experts), (1, 90, conv)])
    trimmed, kept, dropped = trim.trimmed(made, 90)
    assert (kept, dropped, len(trimmed)) == (32, 96, len(made))
    assert trimmed == library([(2, 90, conv), (2, 80, bytes(32)), (2, 90, bytes(32)), (1, 90, bytes(32))])
    for wrong in [library([(2, 80, conv)]), library([(2, 90, conv)], ".text")]:
        try:
            trim.trimmed(wrong, 90)
        except ValueError as error:
            assert "the library has no" in str(error)
        else:
            raise AssertionError("a library without code for the GPU was accepted")


# --- the exports in the repository --------------------------------------------------------------------


def laid(name: str, folder: Path) -> Path:
    """The model with its graphs by opset 23, as tests of the program lay them over the older ones."""
    out, made = folder / name, FIXTURES / "opset23" / name
    shutil.copytree(MODELS[name], out)
    for part in made.iterdir():
        (out / part.name / "model.onnx").rename(out / part.name / "model.onnx_data")
        shutil.copytree(part, out / part.name, dirs_exist_ok=True)
    return out


def inputs_of(file: Path, rows: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Random inputs of a UNet by the names and sizes that it declares."""
    sizes = {"batch_size": rows, "height": height, "width": width, "sequence_length": 16}
    made = {}
    for port in onnx.load(file, load_external_data=False).graph.input:
        made[port.name] = normals(*(dim.dim_value or sizes[dim.dim_param] for dim in port.type.tensor_type.shape.dim))
    made["timestep"] = np.linspace(1, 901, rows).astype(np.float32)
    return made


def session(file: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def test_exports_have_the_operators_that_a_gpu_has(models: dict[str, Path]) -> None:
    for name, folder in models.items():
        for file in (FIXTURES / "opset23" / name).rglob("*.onnx"):
            graph = onnx.load(folder / file.relative_to(FIXTURES / "opset23" / name), load_external_data=False).graph
            found = list(graphs.operators(file))
            assert not {"GroupNormalization", "InstanceNormalization"} & set(found), file
            assert ("com.microsoft.GroupNorm" in found) == (file.name == "model.cuda.onnx"), file
            for node in graph.node:
                heads = {item.name for item in node.attribute} & {"q_num_heads", "kv_num_heads"}
                assert node.op_type != "Attention" or len(heads) == 2, f"{file}: {node.name}"
                assert not node.metadata_props and not node.doc_string, f"{file}: {node.name}"


def test_a_unet_has_a_timestep_for_each_row(models: dict[str, Path]) -> None:
    for folder in models.values():
        for file in (folder / "unet").glob("*.onnx"):
            (port,) = [p for p in onnx.load(file, load_external_data=False).graph.input if p.name == "timestep"]
            (dim,) = port.type.tensor_type.shape.dim
            assert (port.type.tensor_type.elem_type, dim.dim_param) == (TensorProto.FLOAT, "batch_size"), file


def test_both_graphs_of_a_unet_agree_at_any_size(models: dict[str, Path]) -> None:
    for name, folder in models.items():
        deterministic, fast = folder / "unet/model.onnx", folder / "unet/model.cuda.onnx"
        for height, width in [(8, 8), (5, 7)]:
            inputs = inputs_of(deterministic, 2, height, width)
            expected = session(deterministic, 1).run(None, inputs)[0]
            distance = graphs.relative(graphs.evaluated(fast, inputs), expected)[1]
            assert distance <= 1e-5, f"{name}, {height} x {width}: {distance:.1e}"


def test_a_row_does_not_depend_on_the_batch(models: dict[str, Path]) -> None:
    file = models["digits"] / "unet/model.onnx"
    # Up to 1.24, convolutions of opset 22 are divided among threads by the batch.
    newer = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 25)
    for threads in [1, 2] if newer else [1]:
        opened = session(file, threads)
        for rows, height, width in [(2, 8, 8), (7, 8, 8), (16, 8, 8), (3, 5, 7)]:
            inputs = inputs_of(file, rows, height, width)
            together = opened.run(None, inputs)[0]
            alone = [opened.run(None, {k: v[row : row + 1] for k, v in inputs.items()})[0] for row in range(rows)]
            assert np.array_equal(together, np.concatenate(alone)), f"{threads} threads, {rows} rows"


def test_costs_follow_from_the_polynomial(models: dict[str, Path]) -> None:
    for name, folder in models.items():
        config = json.loads((folder / "unet/config.json").read_text())
        costs = config["flops_per_evaluation"]
        constant, linear, square = costs["polynomial"]
        latents = costs["latents"]
        assert latents == config["sample_size"] ** 2 and costs["tokens"] == 16, name
        assert costs["flops"] == constant + linear * latents + square * latents**2, name
        # The first convolution alone, and the attention among latents of the first level at least.
        assert linear > 2 * 9 * 4 * config["block_out_channels"][0] and square > 0 and constant > 0, name


def main() -> int:
    failed = 0
    tests = {name: test for name, test in globals().items() if name.startswith("test_")}
    with tempfile.TemporaryDirectory() as folder:
        models = {name: laid(name, Path(folder)) for name in MODELS}
        for name, test in tests.items():
            try:
                test(models) if "models" in test.__code__.co_varnames else test()
            except Exception:  # Whatever it is, the others are run and it is printed.
                failed += 1
                print(f"{name}\n{traceback.format_exc()}")
    print(f"{len(tests) - failed} of {len(tests)} hold")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

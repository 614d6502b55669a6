"""Exports the recorded pipelines and the UNet of the digits by opset 23, as `tools/export_models.py` does.

    pip install -r tools/requirements-export.txt
    python tests/oracle/make_opset23.py [--out FOLDER]

For maintainers: the tests need only the recorded files. `tests/fixtures/opset23/NAME` has the graphs of a model that is
in the repository already. They hold no weights: these stand, as bytes, in the older graph of the same part. To get the
model, a test copies the older one, renames each `model.onnx` to `model.onnx_data`, and copies these graphs over it.

Every graph is compared with torch, and each UNet's two graphs with one another, before its weights are taken out.
"""

import argparse
import logging
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import diffusers
import make  # make.py, which sets the environment for the packages below
import numpy as np
import onnx
import onnx_ir as ir
import torch
import transformers
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

sys.path.insert(0, str(make.HERE.parents[2] / "tools"))
import export_models
import onnx_graphs

OUT = make.HERE.parents[1] / "fixtures" / "opset23"
DIGITS = make.HERE.parents[2] / "models" / "digits"
TOKENS = 16


def refer(graph: Path, older: Path) -> int:
    """Writes a graph again with the weights that stand in an older file; returns how many bytes of weights it keeps.

    There they are in half precision, of which they are exact values, so that a cast takes them back.
    """
    model, contents = ir.load(graph), older.read_bytes()
    casts, places = [], []
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor.nbytes < onnx_graphs.EXTERNAL_BYTES or tensor.dtype != ir.DataType.FLOAT:
            continue
        half = tensor.numpy().astype(np.float16)
        if not np.array_equal(half.astype(np.float32), tensor.numpy()):
            raise ValueError(f"{graph}: {name} is not a weight of half precision")
        offset = contents.find(half.tobytes())
        if offset < 0:  # It stands there transposed.
            continue
        short = ir.Value(name=f"{name}_f16", shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT16))
        short.const_value = ir.Tensor(half, name=short.name)
        cast = ir.node("Cast", [short], {"to": ir.DataType.FLOAT})
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del model.graph.initializers[name]
        model.graph.register_initializer(short)
        places.append(onnx_graphs.Place(short.name, "FLOAT16", list(half.shape), offset, half.nbytes))
        casts.append(cast)
    model.graph.insert_before(model.graph[0], casts)
    onnx_graphs.write_graph(model, places, graph, export_models.WEIGHTS)
    return sum(value.const_value.nbytes for value in model.graph.initializers.values()) - sum(p.length for p in places)


def check(parts: list[export_models.Part], out: Path, expected: dict[str, export_models.Tensors]) -> None:
    """Fails unless each graph is close to torch, and the UNet's two to one another."""
    for part in parts:
        rows = list(export_models.compare(out, part, expected[part.folder], "fp32"))
        if part.folder == "unet":
            # A row alone differs in the last bits where its time embedding does not fill whole vectors of the CPU, as
            # that of these narrow UNets.
            rows += [row for row in export_models.compare_unet(out, part) if row.limit > 0]
        for row in rows:
            print(f"  {row.what}: {row.relative:.1e}", flush=True)
            if not row.holds:
                raise ValueError(f"{row.what} differs by {row.relative:.1e}")


def keep(parts: list[str], made: Path, older: Path, folder: Path) -> None:
    """Keeps the graphs of some parts, without weights, and the UNet's configuration, which says what it costs."""
    for part in parts:
        (folder / part).mkdir(parents=True)
        for graph in sorted((made / part).glob("*.onnx")):
            kept = refer(graph, older / part / "model.onnx")
            print(f"  {part}/{graph.name}: {graph.stat().st_size} bytes, {kept} of weights", flush=True)
            shutil.copy(graph, folder / part)
    shutil.copy(made / "unet/config.json", folder / "unet")


def recorded(number: int, folder: Path) -> None:
    """One of the recorded pipelines. The encoder of an old export returns something else, and stays."""
    spec = make.SPECS[number]
    pipeline = make.build(spec, make.TOKENIZER, number)
    for part, module in [("unet", pipeline.unet), ("vae_encoder", pipeline.vae), ("vae_decoder", pipeline.vae)]:
        take_named(module, make.OUT / spec.name / part / "model.onnx")
    for name in spec.encoders:
        getattr(pipeline, name).set_attn_implementation("sdpa")  # Which transformers takes by default.
    with tempfile.TemporaryDirectory() as made:
        done = export_models.export_pipeline(pipeline, Path(made), "fp32")
        check(done.parts, Path(made), done.expected)
        parts = [part.folder for part in done.parts if not (spec.old_graphs and part.folder == "vae_encoder")]
        keep(parts, Path(made), make.OUT / spec.name, folder)


def values_of(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """The weights of an older graph by the name under which they are used, after their cast."""
    stored = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.initializer}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in stored]
    return stored | {node.output[0]: stored[node.input[0]].astype(np.float32) for node in casts}


def take_named(module: nn.Module, file: Path) -> None:
    """Gives a module the weights that have their names in an older graph. Some of them were solved for, and are not the
    same on every machine.
    """
    state = module.state_dict()
    for name, value in values_of(onnx.load(file).graph).items():
        if name.removeprefix("module.") in state:
            state[name.removeprefix("module.")].copy_(torch.tensor(value))


def take_unnamed(unet: UNet2DConditionModel, file: Path) -> None:
    """The same for weights that have no names in the graph, in the order in which the layers run: those of products in
    three dimensions are transposed, and those of group norms have axes for height and width.
    """
    graph, layers = onnx.load(file).graph, []
    values = {name: value for name, value in values_of(graph).items() if not name.startswith("module.")}
    waiting = {
        kind: iter([values[node.input[1]] for node in graph.node if node.op_type == kind and node.input[1] in values])
        for kind in ["MatMul", "Mul", "Add"]
    }

    def note(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        if isinstance(layer, nn.GroupNorm) or inputs[0].ndim == 3:
            layers.append(layer)

    kinds = (nn.Linear, nn.GroupNorm)
    hooks = [layer.register_forward_pre_hook(note) for layer in unet.modules() if isinstance(layer, kinds)]
    unet(torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.zeros(1, TOKENS, unet.config.cross_attention_dim))
    for hook in hooks:
        hook.remove()
    for layer in layers:
        if isinstance(layer, nn.Linear):
            layer.weight.copy_(torch.tensor(next(waiting["MatMul"]).T))
        else:
            layer.weight.copy_(torch.tensor(next(waiting["Mul"]).reshape(-1)))
            layer.bias.copy_(torch.tensor(next(waiting["Add"]).reshape(-1)))


def digits_unet() -> UNet2DConditionModel:
    """The UNet of the digits, with the weights of its graph, which is the only place where they are."""
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(DIGITS / "unet")).eval()
    unet.requires_grad_(False)
    take_named(unet, DIGITS / "unet/model.onnx")
    take_unnamed(unet, DIGITS / "unet/model.onnx")
    return unet


def digits(folder: Path) -> None:
    unet = digits_unet()
    part = export_models.unet_part(unet, TOKENS, None)
    expected = {part.folder: part.run()}
    even = {"sample": torch.randn(1, 4, 8, 8), "timestep": torch.tensor([501.0])}
    even["encoder_hidden_states"] = part.inputs["encoder_hidden_states"][:1]
    session = export_models.open_graph(DIGITS / "unet/model.onnx")
    (older,) = session.run(None, export_models.feeds(session, even))
    distance = onnx_graphs.relative(older, part.graph(*even.values())[0].numpy())
    print(f"  the older graph with torch: {distance[1]:.1e}")
    if distance[1] > export_models.TOLERANCES["fp32"]:
        raise ValueError("the weights are not those of the older graph")
    with tempfile.TemporaryDirectory() as made:
        out = Path(made)
        export_models.export(part, out, torch.float32)
        export_models.write_unet_config(unet, out / "unet", TOKENS, None)
        check([part], out, expected)
        keep(["unet"], out, DIGITS, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the models' folders")
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("torch").setLevel(logging.ERROR)
    diffusers.utils.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    shutil.rmtree(out, ignore_errors=True)
    with torch.no_grad():
        for number, spec in enumerate(make.SPECS):
            print(spec.name, flush=True)
            recorded(number, out / spec.name)
        print("digits", flush=True)
        digits(out / "digits")
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{out}: {size} bytes in all")


if __name__ == "__main__":
    main()

"""Checkpoints as they are published: TorchScript whole or in halves, prefixes, wrappers, buffers; and damaged ones."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.wfm.models.convert.conftest import DENOISER, DISCRETE, DIT, IMAGE, VIDEO, make, same
from wfm.errors import ConfigError, DataError
from wfm.models.convert import from_cosmos, read_cosmos, to_cosmos
from wfm.models.convert.cosmos import cosmos_names
from wfm.models.diffusion.network import DiffusionTransformer

BUFFERS = {
    "encoder.patcher3d.wavelets": torch.ones(2), "encoder.patcher3d._arange": torch.arange(2),
    "encoder.patcher3d.patch_size_buffer": torch.tensor([4]), "decoder.unpatcher3d.wavelets": torch.ones(2),
    "quantizer._levels": torch.tensor([4, 3, 3]), "quantizer._basis": torch.tensor([1, 4, 12]),
    "quantizer.implicit_codebook": torch.ones(36, 3),
}  # fmt: skip


class Tree(nn.Module):
    """Modules and tensors at any dotted names, so that torch can write the TorchScript of a model it does not have."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        within: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            first, dot, rest = name.partition(".")
            if dot:
                within.setdefault(first, {})[rest] = tensor
            elif tensor.is_floating_point():
                self.register_parameter(first, nn.Parameter(tensor))
            else:
                self.register_buffer(first, tensor)
        for name, held in within.items():
            self.add_module(name, Tree(held))

    def forward(self, x: Tensor) -> Tensor:
        return x


def script(tensors: dict[str, Tensor], path) -> None:
    torch.jit.save(torch.jit.script(Tree(tensors)), str(path))


def theirs(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    return {name: state[ours] for ours, name in cosmos_names(module).items()}


@pytest.mark.parametrize(("kind", "config"), [("video", VIDEO), ("discrete", DISCRETE), ("image", IMAGE)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torchscript_whole_and_in_halves(tmp_path, kind, config, dtype):
    module = make(kind, dtype)
    tensors = theirs(module) | BUFFERS
    script(tensors, tmp_path / "autoencoder.jit")
    encoder = {name: held for name, held in tensors.items() if name.startswith(("encoder.", "quant_conv."))}
    decoder = {name: held for name, held in tensors.items() if name.startswith(("decoder.", "post_quant_conv."))}
    halves = tmp_path / "halves"
    halves.mkdir()
    code_book = {name: held for name, held in BUFFERS.items() if name.startswith("quantizer.")}
    script(encoder | code_book, halves / "encoder.jit")
    script(decoder | {f"inv_quant.{name}": held for name, held in code_book.items()}, halves / "decoder.jit")
    for source in (tmp_path, tmp_path / "autoencoder.jit", halves):
        read = read_cosmos(source, config)  # no flag: nothing in a .jit is run
        assert same(read.module, module)
        assert {name.removeprefix("inv_quant.") for name in read.left_out} == set(BUFFERS)
        assert all("anew" in reason for reason in read.left_out.values())
    (halves / "decoder.jit").unlink()
    with pytest.raises(DataError, match="no weights here"):
        from_cosmos(halves, config)
    script(tensors, halves / "decoder.jit")  # a whole one in place of a half
    with pytest.raises(DataError, match="stands twice"):
        from_cosmos(halves, config)


@pytest.fixture
def transformer(tmp_path):
    module = make("dit")
    to_cosmos(module, tmp_path / "a.safetensors")
    return module, load_file(str(tmp_path / "a.safetensors")), tmp_path


def test_prefix_wrapper_and_what_is_beside(transformer):
    module, tensors, folder = transformer
    assert all(name.startswith("net.") for name in tensors)
    bare = {name.removeprefix("net."): tensor for name, tensor in tensors.items()}
    beside = {
        "logvar.0.freqs": torch.ones(8), "logvar.0.phases": torch.ones(8), "logvar.1.weight": torch.ones(1, 8),
        "net.pos_embedder.seq": torch.arange(8.0),
    }  # fmt: skip
    bookkeeping = {
        "net.blocks.block0.blocks.0.block.attn.to_q.1._extra_state": b"state",
        "net.affline_norm._extra_state": None,
    }
    for held in (tensors, bare, tensors | beside, {"model": tensors | beside | bookkeeping, "iteration": 7}):
        torch.save(held, folder / "model.pt")
        read = read_cosmos(folder / "model.pt", DIT, allow_pickle_file=True)
        assert same(read.module, module)
        assert read.left_out.keys() in (set(), beside.keys())
    torch.save(tensors, folder / "model.pt")
    with pytest.raises(DataError, match="missing logvar"):
        from_cosmos(folder / "model.pt", DENOISER, allow_pickle_file=True)


def test_extra_states_as_tensors_are_left_out_by_name(transformer):
    module, tensors, folder = transformer
    save_file(
        tensors | {"net.t_embedder.1._extra_state": torch.zeros(3, dtype=torch.uint8)}, str(folder / "b.safetensors")
    )
    read = read_cosmos(folder / "b.safetensors", DIT)
    assert read.left_out == {"net.t_embedder.1._extra_state": "bookkeeping of Transformer Engine"}
    assert same(read.module, module)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("net.final_layer.linear.weight"), "missing final_layer.linear.weight"),
        (lambda t: t.update({"net.surprise": torch.ones(1)}), "unexpected surprise"),
        (lambda t: t.update({"surprise.logvar.0": torch.ones(1)}), "unexpected surprise.logvar.0"),
        (lambda t: t.update({"affline_norm.weight": torch.ones(24)}), "affline_norm.weight stands twice"),
        (lambda t: t.update({"net.affline_norm.weight": torch.ones(25)}), r"\[25\], wanted \[24\]"),
        (lambda t: t.update({"net.affline_norm.weight": torch.ones(24).int()}), "int32, wanted one of float64"),
    ],
)
def test_what_does_not_fit_is_refused(transformer, change, words):
    _, tensors, folder = transformer
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(folder / "b.safetensors"))
    with pytest.raises(DataError, match=words):
        from_cosmos(folder / "b.safetensors", DIT)


def test_dtype_and_shards(transformer):
    module, _, folder = transformer
    to_cosmos(module, folder / "out", dtype=torch.bfloat16, max_shard_bytes=4000)
    assert len(list((folder / "out").glob("model-*.safetensors"))) > 2
    found = from_cosmos(folder / "out", DIT)
    state = module.state_dict()
    assert all(torch.equal(tensor, state[name].bfloat16()) for name, tensor in found.state_dict().items())
    wide = from_cosmos(folder / "out", DIT, dtype=torch.float64)
    assert all(torch.equal(tensor, state[name].bfloat16().double()) for name, tensor in wide.state_dict().items())


def test_targets_that_are_not_written(transformer):
    module, _, folder = transformer
    with pytest.raises(ConfigError, match=r"\.jit files are not written"):
        to_cosmos(module, folder / "a.jit")
    with pytest.raises(ConfigError, match="never cut"):
        to_cosmos(module, folder / "a.pt", max_shard_bytes=100)
    with pytest.raises(ConfigError, match="Linear is none of Cosmos's"):
        to_cosmos(nn.Linear(2, 2), folder / "b")
    textless = DiffusionTransformer(DIT.model_copy(update={"text_embed_dim": 0}))
    with pytest.raises(ConfigError, match="text_embed_dim is 0"):
        to_cosmos(textless, folder / "b")


def test_actions_have_the_originals_names():
    names = cosmos_names(make("action"))
    found = {theirs for theirs in names.values() if theirs.startswith("action")}
    layers = {
        f"action_embedder_B_{side}.fc{n}.{part}" for side in ("D", "3D") for n in (1, 2) for part in ("weight", "bias")
    }
    assert found == layers

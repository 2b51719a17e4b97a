"""A head from a file gives what torch's layers of the same weights give; what is no head is refused with its shapes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from wfm.curation.embed.aesthetic import load_head
from wfm.errors import DataError


def test_a_stack_of_layers_equals_torchs(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(24, 8), torch.nn.Dropout(0.2), torch.nn.ReLU(), torch.nn.Linear(8, 1)
    ).eval()
    save_file({f"layers.{name}": value for name, value in net.state_dict().items()}, tmp_path / "head.safetensors")
    vectors = torch.nn.functional.normalize(torch.randn(6, 24), dim=1)
    with torch.no_grad():
        true = net(vectors)[:, 0].numpy()
    head = load_head(tmp_path / "head.safetensors", "relu")
    assert head(vectors.numpy()) == pytest.approx(true, abs=1e-6)
    assert np.isnan(head(np.zeros((1, 24)))).all()
    assert load_head(tmp_path / "head.safetensors")(vectors.numpy()) != pytest.approx(true, abs=1e-3)
    with pytest.raises(DataError, match="takes embeddings of 24 numbers, these have 16"):
        head(np.ones((2, 16)))


def test_what_is_no_head_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(3, 8), "bias": torch.ones(3)}, tmp_path / "three.safetensors")
    with pytest.raises(DataError, match="ends in one number"):
        load_head(tmp_path / "three.safetensors")
    save_file({"weight": torch.ones(1, 8)}, tmp_path / "bare.safetensors")
    with pytest.raises(DataError, match="has no bias"):
        load_head(tmp_path / "bare.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(DataError, match="is no safetensors file"):
        load_head(tmp_path / "text.safetensors")

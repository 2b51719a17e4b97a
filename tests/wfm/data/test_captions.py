"""Text embeddings of samples: one copy a caption, padded by batch, merged over parts."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from wfm.data.captions import CaptionTable, mirrored_caption, read_captions
from wfm.data.loader import ArrayDataset, Loader
from wfm.data.order import one_shape
from wfm.errors import DataError


def part(folder, number, captions, *, width=3, lengths=None):
    """A part's two files; caption i of part n has i + 1 tokens, all equal to 10 n + i."""
    sizes = lengths or [i + 1 for i in range(len(captions))]
    rows = [torch.full((size, width), 10.0 * number + i, dtype=torch.bfloat16) for i, size in enumerate(sizes)]
    file, table = folder / f"{number}.safetensors", folder / f"{number}.parquet"
    save_file({"embeddings": torch.cat(rows), "lengths": torch.tensor(sizes, dtype=torch.int32)}, str(file))
    pq.write_table(pa.table({"caption": captions}), table)
    return file, table


def test_parts_become_one_table(tmp_path):
    one, two = part(tmp_path, 1, ["a", "b", "never used"]), part(tmp_path, 2, ["c", "b"])
    table = read_captions([one[0], two[0]], [one[1], two[1]], ["b", "a", "c", "b"])
    assert (table.width, table.lengths.tolist()) == (3, [1, 2, 1]), "a, b, c; of two parts' b either will do"
    batch = table.rows(torch.tensor([0, 2, 3]))
    assert batch["text"].dtype == torch.float32
    assert batch["text"].shape == (3, 2, 3)
    assert batch["text_lengths"].tolist() == [2, 1, 2]
    assert batch["text"][1].tolist() == [[20.0] * 3, [0.0] * 3]
    assert torch.equal(batch["text"][0], batch["text"][2])


def test_what_does_not_fit_is_refused(tmp_path):
    one = part(tmp_path, 1, ["a"])
    with pytest.raises(DataError, match="no embedding, such as 'b'"):
        read_captions([one[0]], [one[1]], ["a", "b"])
    two = part(tmp_path, 2, ["b"], width=4)
    with pytest.raises(DataError, match=r"\[3, 4\] wide"):
        read_captions([one[0], two[0]], [one[1], two[1]], ["a", "b"])
    with pytest.raises(DataError, match="do not fit"):
        read_captions([one[0]], [part(tmp_path, 3, ["a", "b"])[1]], ["a"])
    with pytest.raises(DataError, match="2 captions for 1 samples"):
        ArrayDataset(("a",), {}, CaptionTable(torch.zeros(1, 3), torch.tensor([1]), torch.tensor([0, 0])))


def test_batches_carry_the_text_of_their_samples(tmp_path):
    file, texts = part(tmp_path, 0, ["a", "b", "c"])
    captions = read_captions([file], [texts], ["a", "b", "b", "c"])
    data = ArrayDataset(tuple("wxyz"), {"latents": torch.arange(4.0)[:, None]}, captions)
    batch = Loader(data, one_shape(data.sample_ids, 4, 0)).next()
    for latent, text, length in zip(batch["latents"], batch["text"], batch["text_lengths"], strict=True):
        caption = [0, 1, 1, 2][int(latent)]
        assert length == caption + 1
        assert text[:length].unique().tolist() == [caption]
        assert not text[length:].any()
    assert "text" not in ArrayDataset(data.sample_ids, data.arrays).rows([0])


def test_a_mirror_image_has_a_mirrored_caption():
    assert mirrored_caption("Left of it, a ball slides to the right.") == "Right of it, a ball slides to the left."
    assert mirrored_caption("turns clockwise, leftover rights") == "turns counterclockwise, leftover rights"
    assert mirrored_caption("Counter-clockwise") == "Clockwise"
    assert mirrored_caption("the leftmost ball, moving rightwards") == "the rightmost ball, moving leftwards"
    assert mirrored_caption("turns anticlockwise, anti-clockwise") == "turns clockwise, clockwise"
    assert mirrored_caption("TURN LEFT, left-handed") == "TURN RIGHT, right-handed"

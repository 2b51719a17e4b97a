import pytest
import torch

from wfm.errors import DataError
from wfm.models.autoregressive.vocabulary import Vocabulary
from wfm.models.tokenizer.quantizer import FiniteScalarQuantizer

LEVELS = (8, 8, 8, 5, 5, 5)


@pytest.mark.parametrize("digits", [True, False])
def test_ids_and_symbols_are_inverses(digits: bool) -> None:
    vocabulary = Vocabulary(LEVELS, digits=digits)
    ids = torch.randint(0, 64_000, (3, 4, 5), generator=torch.Generator().manual_seed(0))
    symbols = vocabulary.symbols(ids)
    assert symbols.shape == (3, 4, 5, 6 if digits else 1)
    assert torch.equal(vocabulary.ids(symbols), ids)


def test_digits_are_those_of_the_quantizer() -> None:
    ids = torch.arange(0, 64_000, 37)[None]
    codes = FiniteScalarQuantizer(LEVELS).codes(ids)  # [1, 6, n] in -1..1
    half = torch.tensor([4, 4, 4, 2, 2, 2])[:, None]
    digits = (codes[0] * half + half).round().long()
    assert torch.equal(Vocabulary(LEVELS, digits=True).symbols(ids)[0].T, digits)


@pytest.mark.parametrize("bad", [-1, 64_000])
def test_ids_of_another_tokenizer_are_refused(bad: int) -> None:
    with pytest.raises(DataError, match="another tokenizer"):
        Vocabulary(LEVELS, digits=True).symbols(torch.tensor([0, bad]))


def test_split_gives_one_block_per_symbol() -> None:
    vocabulary = Vocabulary(LEVELS, digits=True)
    assert [block.shape[-1] for block in vocabulary.split(torch.zeros(2, vocabulary.width))] == list(LEVELS)

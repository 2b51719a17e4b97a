"""The attention kernels against the fp64 reference and against plain arithmetic."""

import math

import pytest
import torch

from wfm.errors import ConfigError
from wfm.parallel.attention import attention, attention_with_lse


def pack(lengths: list[int], *, heads: int = 3, dim: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(sum(lengths), heads, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mask", ["full", "causal"])
@pytest.mark.parametrize(
    ("q_lengths", "kv_lengths"), [([4, 4], [4, 4]), ([1, 1], [5, 5]), ([2, 3], [6, 3]), ([7], [9])]
)
def test_fused_equals_reference(mask, q_lengths, kv_lengths):
    q, k, v = pack(q_lengths), pack(kv_lengths, seed=1), pack(kv_lengths, seed=2)
    found = attention_with_lse(q, k, v, q_lengths, kv_lengths, mask=mask, kernel="fused_cpu")
    wanted = attention_with_lse(q, k, v, q_lengths, kv_lengths, mask=mask, kernel="naive")
    assert torch.allclose(found[0], wanted[0], atol=2e-6)  # measured worst case 3e-7
    assert torch.allclose(found[1].double(), wanted[1].double(), atol=2e-6)


def test_reference_equals_softmax_by_hand():
    q, k, v = pack([2], heads=1, dim=4), pack([3], heads=1, dim=4, seed=1), pack([3], heads=1, dim=4, seed=2)
    scores = [[float(q[i, 0] @ k[j, 0]) / 2 for j in range(3)] for i in range(2)]
    out, lse = attention_with_lse(q, k, v, [2], [3], kernel="naive")
    for i, row in enumerate(scores):
        total = sum(math.exp(score) for score in row)
        wanted = sum(math.exp(score) / total * v[j, 0] for j, score in enumerate(row))
        assert torch.allclose(out[i, 0], wanted, atol=1e-6)
        assert float(lse[i, 0]) == pytest.approx(math.log(total), abs=1e-6)


def test_no_segment_sees_another():
    q, k, v = pack([3, 5]), pack([3, 5], seed=1), pack([3, 5], seed=2)
    before = attention(q, k, v, [3, 5], [3, 5])
    k, v = k.clone(), v.clone()
    k[3:], v[3:] = 9.0, -9.0
    after = attention(q, k, v, [3, 5], [3, 5])
    assert torch.equal(before[:3], after[:3])
    assert not torch.equal(before[3:], after[3:])


def test_causal_is_aligned_at_the_end():
    q, k, v = pack([6]), pack([6], seed=1), pack([6], seed=2)
    whole = attention(q, k, v, [6], [6], mask="causal")
    tail = attention(q[4:], k, v, [2], [6], mask="causal")
    assert torch.allclose(whole[4:], tail, atol=1e-6)
    v2 = v.clone()
    v2[5] = 100.0
    changed = attention(q, k, v2, [6], [6], mask="causal")
    assert torch.equal(changed[:5], whole[:5])


def test_gradients_equal_the_reference():
    gradients = []
    for kernel in ("fused_cpu", "naive"):
        q, k, v = (pack([4, 4], seed=i).double().requires_grad_() for i in range(3))
        attention(q, k, v, [4, 4], [4, 4], mask="causal", kernel=kernel).square().sum().backward()
        gradients.append(torch.stack([q.grad, k.grad, v.grad]))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mask": "diagonal"}, "full, causal"),
        ({"kernel": "flash"}, "fused_cpu"),
        ({"q_segments": [3]}, "do not cover"),
        ({"q_segments": [2, 2], "kv_segments": [4]}, "2 query segments"),
        ({"q_segments": [1, 3], "kv_segments": [2, 2], "mask": "causal"}, "as many keys"),
    ],
)
def test_wrong_use_is_refused(arguments, words):
    q = pack([4])
    given = {"q_segments": [4], "kv_segments": [4], **arguments}
    with pytest.raises(ConfigError, match=words):
        attention(q, q, q, **given)

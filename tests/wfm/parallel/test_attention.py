"""The attention kernels against the fp64 reference and against plain arithmetic."""

import inspect
import math
import sys
import types

import pytest
import torch
import torch._dynamo.testing
import torch.nn.attention.varlen

from wfm.errors import ConfigError, MissingPackage
from wfm.parallel.attention import BY_BOUNDS, KERNELS, attention, attention_with_lse, kernel_for
from wfm.parallel.opaque import pack_attention
from wfm.parallel.segments import Segments


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


@pytest.mark.parametrize("kernel", ["naive", "fused_cpu"])
@pytest.mark.parametrize("mask", ["full", "causal"])
def test_grouped_heads_are_those_of_their_group(kernel, mask):
    """Each head of keys and values serves as many query heads, in order; the broken twin takes them in turn."""
    q = torch.randn(7, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    k, v = (torch.randn(9, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    found, lse = attention_with_lse(q, k, v, [3, 4], [4, 5], mask=mask, kernel=kernel)
    whole = [x.repeat_interleave(3, dim=1) for x in (k, v)]
    wanted, its_lse = attention_with_lse(q, *whole, [3, 4], [4, 5], mask=mask, kernel=kernel)
    assert torch.equal(found, wanted)
    assert torch.equal(lse, its_lse)
    in_turn = [x.repeat(1, 3, 1) for x in (k, v)]
    assert not torch.allclose(attention(q, *in_turn, [3, 4], [4, 5], mask=mask, kernel=kernel), wanted)


EMPTY = {
    "no keys": ([3], [0]), "no queries": ([0], [3]), "neither": ([0], [0]), "no segments": ([], []),
    "some": ([2, 0, 3, 1, 0], [4, 2, 0, 1, 0]), "in turn": ([2, 0], [0, 5]), "alike": ([2, 2, 2], [3, 0, 3]),
}  # fmt: skip


def by_hand(q, k, v, q_lengths, kv_lengths, *, causal):
    """Output and log-sum-exp, query by query, in fp64."""
    outs, lses, begin = [], [], [0, 0]
    for n, m in zip(q_lengths, kv_lengths, strict=True):
        keys, values = (x[begin[1] : begin[1] + m].double() for x in (k, v))
        for i in range(n):
            seen = m - n + i + 1 if causal else m
            scores = torch.einsum("hd,khd->hk", q[begin[0] + i].double(), keys[:seen]) / q.shape[-1] ** 0.5
            outs.append(torch.einsum("hk,khd->hd", scores.softmax(-1), values[:seen]))
            lses.append(scores.logsumexp(-1))
        begin = [begin[0] + n, begin[1] + m]
    empty = q.new_zeros(0, q.shape[1], dtype=torch.float64)
    return torch.stack(outs) if outs else q.double(), torch.stack(lses) if lses else empty


@pytest.mark.parametrize("kernel", ["naive", "fused_cpu", "auto"])
@pytest.mark.parametrize(("q_lengths", "kv_lengths"), EMPTY.values(), ids=EMPTY)
def test_empty_segments_give_zeros_and_nothing_to_merge(kernel, q_lengths, kv_lengths):
    """Before: the CPU's fused kernel divided by zero and SIGFPE ended the process; the reference could not reshape."""
    for dtype, close in ((torch.float64, 1e-14), (torch.float32, 2e-6), (torch.bfloat16, 2e-2)):
        q, k, v = (
            pack(n, seed=i).to(dtype).requires_grad_() for i, n in enumerate((q_lengths, kv_lengths, kv_lengths))
        )
        for mask in ("full", "causal"):
            if mask == "causal" and any(n > m for n, m in zip(q_lengths, kv_lengths, strict=True)):
                continue
            out, lse = attention_with_lse(q, k, v, q_lengths, kv_lengths, mask=mask, kernel=kernel)
            wanted, its_lse = by_hand(q, k, v, q_lengths, kv_lengths, causal=mask == "causal")
            assert (out.dtype, out.shape, lse.shape) == (dtype, q.shape, q.shape[:2])
            assert torch.allclose(out.double(), wanted, atol=close)  # measured worst: 3e-16, 2e-7, 8e-3
            assert torch.allclose(lse.double(), its_lse, atol=close)  # -inf where there are no keys, on both sides
            assert torch.equal(out[lse.isneginf()], torch.zeros_like(out[lse.isneginf()]))
            found = torch.autograd.grad(out.double().square().sum(), (q, k, v))
            told = torch.autograd.grad(wanted.square().sum(), (q, k, v), allow_unused=True, materialize_grads=True)
            for one, other in zip(found, told, strict=True):
                assert torch.allclose(one.double(), other.double(), atol=10 * close)  # NaN and None would not be


def test_every_kernel_is_shown_segments_that_have_tokens_only(monkeypatch):
    """Those for CUDA too: stand-ins of both libraries, which see what they would be given."""
    given = []

    def flash(q, k, v, q_starts, k_starts, longest_q, longest_k, **_):
        given.append((q_starts.diff().tolist(), k_starts.diff().tolist(), len(q), len(k)))
        return torch.ones_like(q), torch.zeros(q.shape[1], q.shape[0]), None

    def own(*rest, return_aux, window_size, enable_gqa):
        return flash(*rest)[:2]

    monkeypatch.setitem(sys.modules, "flash_attn", types.SimpleNamespace(flash_attn_varlen_func=flash))
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", own)
    q, k = pack([2, 0, 3, 1]), pack([4, 2, 0, 1])
    for name in ("flash", "torch_varlen"):
        out, lse = KERNELS[name](q, k, k, [2, 0, 3, 1], [4, 2, 0, 1], causal=False)
        assert given.pop() == ([2, 1], [4, 1], 3, 5)
        assert out[:, 0, 0].tolist() == [1, 1, 0, 0, 0, 1]
        assert lse.isneginf()[:, 0].tolist() == [False, False, True, True, True, False]
        out, _ = KERNELS[name](q[:2], k[:0], k[:0], [2], [0], causal=False)
        assert not given
        assert not out.any()
    q, k = (torch.empty(n, 3, 8, device="meta") for n in (6, 7))
    out, lse = attention_with_lse(q, k, k, [2, 0, 3, 1], [4, 2, 0, 1], kernel="efficient")
    assert (tuple(out.shape), tuple(lse.shape)) == ((6, 3, 8), (6, 3))


@pytest.mark.parametrize(
    "shapes",
    [
        ((4, 0, 8),) * 3,
        ((4, 3, 0),) * 3,
        ((4, 24),) * 3,
        ((4, 3, 8), (4, 2, 8), (4, 2, 8)),
        ((4, 4, 8), (4, 2, 8), (4, 4, 8)),
        ((4, 2, 8), (4, 4, 8), (4, 4, 8)),
        ((4, 3, 8), (4, 3, 8), (4, 3, 4)),
    ],
    ids=str,
)
def test_heads_that_are_none_or_do_not_divide_are_refused(shapes):
    with pytest.raises(ConfigError, match=r"wanted \[tokens, heads, head_dim\]"):
        attention(*map(torch.zeros, shapes), [4], [4])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"q_segments": [-1, 5], "kv_segments": [2, 2]}, "none is below 0"),
        ({"q_segments": [4], "kv_segments": [0, 4]}, "1 query segments"),
        ({"mask": "diagonal"}, "full, causal"),
        ({"kernel": "fastest"}, "fused_cpu"),
        ({"kernel": "flash"}, "on CUDA in fp16 or bf16, not on cpu"),
        ({"kernel": "torch_varlen"}, "use auto"),
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


def test_the_device_and_the_type_choose_the_kernel(monkeypatch):
    cuda, cpu, other = (torch.device(name) for name in ("cuda", "cpu", "meta"))
    assert kernel_for("auto", cpu, torch.float32) is KERNELS["fused_cpu"]
    assert kernel_for("auto", other, torch.float32) is KERNELS["naive"]
    assert kernel_for("auto", cuda, torch.float32) is KERNELS["efficient"]
    assert kernel_for("auto", cuda, torch.float64) is KERNELS["naive"]
    with pytest.raises(ConfigError, match="takes fused_cpu here"):
        kernel_for("efficient", cpu, torch.float32)
    for installed, name in ((True, "flash"), (False, "torch_varlen")):
        monkeypatch.setattr("wfm.parallel.attention.flash_is_installed", lambda found=installed: found)
        assert kernel_for("auto", cuda, torch.bfloat16) is KERNELS[name]


def test_cuda_kernels_are_given_offsets_and_give_lse_by_query(monkeypatch):
    """Without a CUDA device: stand-ins for both libraries compute the answer from the offsets they are given."""

    def from_offsets(q, k, v, q_starts, k_starts, longest_q, longest_k, causal):
        lengths = [starts.diff().tolist() for starts in (q_starts, k_starts)]
        assert (longest_q, longest_k) == tuple(max(each) for each in lengths)
        assert q_starts.dtype == k_starts.dtype == torch.int32
        mask = "causal" if causal else "full"
        out, lse = attention_with_lse(q, k, v, *lengths, mask=mask, kernel="naive")
        return out, lse.transpose(0, 1).contiguous()

    def flash(q, k, v, *rest, causal, return_attn_probs):
        assert return_attn_probs
        return *from_offsets(q, k, v, *rest, causal), None

    def own(q, k, v, *rest, return_aux, window_size, enable_gqa):
        assert return_aux.lse
        assert enable_gqa == (k.shape[1] != q.shape[1])
        return from_offsets(q, k, v, *rest, window_size == (-1, 0))

    monkeypatch.setitem(sys.modules, "flash_attn", types.SimpleNamespace(flash_attn_varlen_func=flash))
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", own)
    q, k, v = pack([2, 3]), pack([4, 3], seed=1), pack([4, 3], seed=2)
    for mask, heads in (("full", 3), ("causal", 3), ("causal", 1)):  # 1: grouped, handed over as they are
        k, v = k[:, :heads], v[:, :heads]
        wanted = attention_with_lse(q, k, v, [2, 3], [4, 3], mask=mask, kernel="naive")
        for name in ("flash", "torch_varlen"):
            found = KERNELS[name](q, k, v, [2, 3], [4, 3], causal=mask == "causal")
            assert torch.equal(found[0], wanted[0])
            assert torch.equal(found[1], wanted[1])


@pytest.mark.parametrize(("mask", "queries", "keys"), [("full", 5, 7), ("causal", 6, 6), ("causal", 5, 11)])
def test_the_efficient_kernel_of_this_torch_takes_our_arguments(mask, queries, keys):
    """Shapes alone, on the meta device: it runs on CUDA only. Its log-sum-exp comes in blocks of 32 queries."""
    q, k, v = (torch.empty(n, 3, 8, device="meta") for n in (queries, keys, keys))
    out, lse = attention_with_lse(q, k, v, [queries], [keys], mask=mask, kernel="efficient")
    assert (tuple(out.shape), tuple(lse.shape)) == ((queries, 3, 8), (queries, 3))


def test_torchs_own_kernel_takes_the_arguments_that_it_is_given():
    called = inspect.signature(torch.nn.attention.varlen.varlen_attn)
    aux = torch.nn.attention.varlen.AuxRequest(lse=True)
    called.bind(1, 2, 3, 4, 5, 6, 7, return_aux=aux, window_size=(-1, 0), enable_gqa=True)
    assert list(called.parameters)[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]


def test_one_type_for_all_three():
    q = pack([4])
    with pytest.raises(ConfigError, match=r"queries torch\.float32.*values torch\.float64"):
        attention(q, q, q.double(), [4], [4])


def test_flash_names_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    q = pack([4])
    with pytest.raises(MissingPackage, match="gpu"):
        KERNELS["flash"](q, q, q, [4], [4], causal=False)


RAGGED = ([4, 4, 2, 0, 3, 3, 1], [2, 2, 5, 3, 0, 4, 1])


@pytest.mark.parametrize("kernel", ["naive", "fused_cpu"])
def test_segments_of_a_tensor_are_those_of_numbers(kernel):
    """Padded to a fixed number of them; neighbours of one length go in one call, to the bit."""
    q, k = (pack(n, seed=i) for i, n in enumerate(RAGGED))
    padded = [Segments.of(lengths, most=9, longest=8) for lengths in RAGGED]
    assert [len(one.bounds) for one in padded] == [10, 10]
    wanted = attention_with_lse(q, k, k, *RAGGED, kernel=kernel)
    found = attention_with_lse(q, k, k, *padded, kernel=kernel)
    unknown = [Segments(one.bounds, 8) for one in padded]
    again = attention_with_lse(q, k, k, *unknown, kernel=kernel)
    for one, other, third in zip(found, wanted, again, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, third)
    singly = [
        attention(a, b, b, [len(a)], [len(b)], kernel=kernel)
        for a, b in zip(q.split(RAGGED[0]), k.split(RAGGED[1]), strict=True)
    ]
    assert torch.equal(torch.cat(singly), found[0])


@pytest.mark.parametrize("kernel", ["naive", "fused_cpu"])
@pytest.mark.parametrize(("mask", "lengths"), [("full", RAGGED), ("causal", ([4, 2, 2, 0, 3], [6, 2, 2, 3, 3]))])
@pytest.mark.parametrize("heads", [1, 3])
def test_the_operation_for_compiled_networks_is_the_kernel(kernel, mask, lengths, heads):
    """Forward to the bit, backward to rounding; `heads` of keys for three of queries, empty segments among them."""
    q, k, v = (
        pack(n, heads=h, seed=i).double().requires_grad_()
        for i, (n, h) in enumerate(((lengths[0], 3), (lengths[1], heads), (lengths[1], heads)))
    )
    bounds = [Segments.of(n, most=8).bounds for n in lengths]
    found = pack_attention(q, k, v, *bounds, kernel, mask == "causal")
    wanted = attention_with_lse(q, k, v, *lengths, mask=mask, kernel=kernel)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1].contiguous())
    weight = torch.randn(found[0].shape, generator=torch.Generator().manual_seed(7)).double()
    mine, its = (torch.autograd.grad((out[0] * weight).sum(), (q, k, v)) for out in (found, wanted))
    for one, other in zip(mine, its, strict=True):
        assert torch.allclose(one, other, atol=1e-13)  # measured worst: 2e-15


def test_the_operation_says_of_itself_what_is_true():
    """Shapes without values, gradients, and that it keeps nobody's memory: torch's own examination."""
    q, k = (pack(n, seed=i).requires_grad_() for i, n in enumerate(RAGGED))
    bounds = [Segments.of(n, most=8).bounds for n in RAGGED]
    torch.library.opcheck(pack_attention, (q, k, k.detach(), *bounds, "fused_cpu", False))


def test_one_graph_for_all_packs():
    """Eleven packs of one size, of other segments each. With lengths as numbers there is a graph for each."""
    packs = [([5, 3, 4], [2, 2, 2])] + [([12 - i, i], [i % 3, 6 - i % 3]) for i in range(1, 11)]
    q, k = pack([12]), pack([6], seed=1)
    graphs = {}
    for kind in ("tensors", "numbers"):
        torch.compiler.reset()
        counter = torch._dynamo.testing.CompileCounter()
        compiled = torch.compile(attention, backend=counter, dynamic=False)
        for lengths in packs if kind == "tensors" else packs[:3]:
            given = [Segments.of(n, most=4, longest=12) for n in lengths] if kind == "tensors" else lengths
            found = compiled(q, k, k, *given, kernel="fused_cpu")
            assert torch.equal(found, attention(q, k, k, *lengths, kernel="fused_cpu"))
        graphs[kind] = counter.frame_count
    assert graphs["tensors"] == 1
    assert graphs["numbers"] >= 3


def test_more_segments_than_there_is_room_for_are_refused():
    for lengths in ([1, 2, 3], [9], [-1]):
        with pytest.raises(ConfigError, match="raise the limits"):
            Segments.of(lengths, most=2, longest=8)


def test_cuda_kernels_are_given_the_bounds_themselves(monkeypatch):
    """Without a look at the lengths, which would wait for the device: a stand-in sees what it is given."""
    given = []

    def own(q, k, v, *rest, return_aux, window_size, enable_gqa):
        given.append(rest)
        return torch.ones_like(q), torch.zeros(q.shape[1], q.shape[0])

    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", own)
    one = Segments.of([2, 4], most=4, longest=8)
    out, _ = BY_BOUNDS["torch_varlen"](pack([6]), pack([6]), pack([6]), one, one, causal=False)
    assert out.shape == (6, 3, 8)
    ((q_bounds, k_bounds, *longest),) = given
    assert q_bounds is one.bounds
    assert k_bounds is one.bounds
    assert longest == [8, 8]

"""Captions from a local folder: a whole LLaVA (vision tower, projector, language model, tokenizer, template) of random weights.

What it says means nothing; that the same pictures give the same words, whatever happened before, and other pictures others, is
what can be seen of the path from clip to row.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.wfm.curation.caption.caption_store import caption, make_clips, run_stage
from wfm.artifacts import Artifact, Store
from wfm.curation.caption import local_model
from wfm.curation.caption.answer_cache import AnswerCache, question
from wfm.curation.caption.caption_config import CaptionConfig
from wfm.curation.caption.caption_windows import ShownConfig, Window
from wfm.curation.caption.local_model import LocalConfig, LocalModel
from wfm.curation.embed.embedders import digest
from wfm.errors import ConfigError, DataError

LENGTHS = (40, 8, 6, 12, 3)
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %} answer:{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as save_pretrained writes it."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = Tokenizer(models.BPE())
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    marks = ["<pad>", "<s>", "</s>", "<image>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    words.train_from_iterator(
        ["the red ball rolls"] * 3, trainers.BpeTrainer(vocab_size=300, special_tokens=marks, initial_alphabet=letters)
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**small, image_size=28, patch_size=14, initializer_range=0.5),
        text_config=transformers.LlamaConfig(
            **small, vocab_size=len(tokenizer), max_position_embeddings=2048, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            initializer_range=0.5,
        ),
        image_token_index=3, vision_feature_layer=-1,
    )  # fmt: skip
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("llava")
    network = transformers.LlavaForConditionalGeneration(config)
    with torch.no_grad():  # letters and spaces alone, so that two captions differ in more than marks
        plain = torch.tensor([text.strip().isalpha() and text.isascii() for text in _texts(tokenizer)])
        network.lm_head.weight[~plain] = 0.0
        network.lm_head.weight[plain] += 0.01
    network.generation_config.pad_token_id = 0
    network.save_pretrained(path)
    sizes: dict[str, Any] = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    transformers.LlavaProcessor(
        image_processor=CLIPImageProcessorPil(**sizes), tokenizer=tokenizer, patch_size=14, chat_template=TEMPLATE,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    ).save_pretrained(path)  # fmt: skip
    return path


def _texts(tokenizer: Any) -> list[str]:
    return [tokenizer.decode([number]) for number in range(len(tokenizer))]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Artifact]]:
    place = tmp_path_factory.mktemp("clips")
    store = Store.open(place / "store")
    yield store, make_clips(store, place, LENGTHS)
    local_model._open.cache_clear()


def settings(folder: Path, *, more: dict[str, Any] | None = None, **of_model: Any) -> CaptionConfig:
    local = {"folder": str(folder), "folder_sha256": digest(folder), "max_tokens": 8, **of_model}
    shown = {"window_frames": 16, "largest_side": 32}
    return CaptionConfig.parse({"source": "local", "local": local, "shown": shown, **(more or {})})


def test_clips_become_rows_the_same_each_time_and_others_for_other_pictures(
    folder: Path, clips: tuple[Store, Artifact], tmp_path: Path
) -> None:
    store, artifact = clips
    config = settings(folder, batch=3, more={"rewrite": {"lengths": ["short", "medium"]}, "length": "medium"})
    first = caption(store, artifact, tmp_path / "a", config)
    assert first.skipped == {"caption_too_short": 1}
    assert [(row.start_frame, row.end_frame) for row in first.windows] == [
        (0, 16), (16, 32), (32, 40), (0, 8), (0, 6), (0, 12),
    ]  # fmt: skip
    assert first.captions[0].caption_source == f"local:{digest(folder)[:12]}"
    assert first.words[1] == first.windows[3].medium
    assert len({row.caption for row in first.windows}) > 1, "other pictures, other words"
    assert len({row.short for row in first.windows} & {row.medium for row in first.windows}) == 0
    store.objects.delete_tree("captions")
    local_model._open.cache_clear()
    assert caption(store, artifact, tmp_path / "b", config).bytes == first.bytes
    local_model._open.cache_clear()
    gone = config.override(["local.folder=elsewhere"])
    assert caption(store, artifact, tmp_path / "c", gone).bytes == first.bytes, "all is known: no model is needed"


def test_what_is_said_is_what_the_network_says(folder: Path, tmp_path: Path) -> None:
    """A batch of unequal questions against a loop that takes the likeliest token by hand, one question at a time."""
    rng = np.random.default_rng(0)
    shown = [rng.integers(0, 256, (count, 28, 28, 3), dtype=np.uint8) for count in (1, 3)]
    config = settings(folder, batch=2).local
    model = LocalModel(config, ShownConfig(), AnswerCache(Store.open(tmp_path / "store")))
    asked = [question(name * 64, Window(0, 16), "Say <image> what {x}.", shown=None, whom=None) for name in "ab"]
    answers = [
        model.begin(of, None, functools.partial(list, pictures), lambda _: [])
        for of, pictures in zip(asked, shown, strict=True)
    ]
    network = transformers.LlavaForConditionalGeneration.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)

    def numbers(text: str, **more: bool) -> list[int]:
        return processor.tokenizer(text, add_special_tokens=False, **more).input_ids

    for of, pictures, answer in zip(asked, shown, answers, strict=True):
        tokens = numbers(f"<s>user: {'<image>' * 4 * len(pictures)}[{of.code}] Say ")  # 2 x 2 patches a picture
        tokens += numbers("<image>", split_special_tokens=True) + numbers(" what {x}. answer:")
        pixels = processor.image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        start = len(tokens)
        with torch.no_grad():
            while len(tokens) < start + config.max_tokens:
                logits = network(input_ids=torch.tensor([tokens]), pixel_values=pixels).logits[0, -1]
                tokens.append(int(logits.argmax()))
        assert answer() == [" ".join(processor.decode(tokens[start:], skip_special_tokens=True).split())]


def test_a_row_made_from_another_question_is_not_taken(
    folder: Path, clips: tuple[Store, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, artifact = clips
    config = settings(folder, batch=3)
    store.objects.delete_tree("captions")
    wanted = caption(store, artifact, tmp_path / "a", config).words
    assert set(wanted) == {0, 1, 2, 3}
    store.objects.delete_tree("captions")
    network, _ = local_model._open(config.local)
    honest = network.generate
    monkeypatch.setattr(network, "generate", lambda **given: honest(**given).flip(0))
    assert caption(store, artifact, tmp_path / "b", config).words == wanted, "rows in another order"
    store.objects.delete_tree("captions")
    monkeypatch.setattr(network, "generate", lambda **given: honest(**given)[:1].repeat(3, 1))
    lost = caption(store, artifact, tmp_path / "c", config)
    assert lost.skipped["caption_swapped"] >= 2
    assert all(wanted[clip] == words for clip, words in lost.words.items())


def test_a_batch_of_which_some_is_known_is_made_again_as_a_whole(
    folder: Path, clips: tuple[Store, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, artifact = clips
    config = settings(folder, batch=3)
    first = caption(store, artifact, tmp_path / "a", config)
    file = next(Path(store.address.root, "captions").rglob("*.json"))
    file.unlink()
    sizes: list[int] = []
    network, _ = local_model._open(config.local)
    honest = network.generate

    def counted(**given: Any) -> Any:
        sizes.append(len(given["input_ids"]))
        return honest(**given)

    monkeypatch.setattr(network, "generate", counted)
    assert caption(store, artifact, tmp_path / "b", config).bytes == first.bytes
    assert sizes == [3]
    assert file.exists()


def test_a_stage_that_is_killed_goes_on_and_ends_as_if_nothing_had_happened(folder: Path, tmp_path: Path) -> None:
    undisturbed, store = (Store.open(tmp_path / name) for name in ("undisturbed", "store"))
    clips = [make_clips(each, tmp_path, LENGTHS) for each in (undisturbed, store)]
    config = settings(folder, batch=2)
    run_stage(store, clips[1], tmp_path / "first", config, dies_after=3)  # in the middle of the second batch
    assert len(list(Path(store.address.root, "captions").rglob("*.json"))) == 3
    found, whole = (
        caption(*pair, tmp_path / "out", config) for pair in zip((store, undisturbed), clips[::-1], strict=True)
    )
    assert found.bytes == whole.bytes


def test_folders_that_are_not_the_model_are_refused(folder: Path, tmp_path: Path) -> None:
    def opened(**given: Any) -> None:
        LocalModel(LocalConfig.parse(given), ShownConfig(), AnswerCache(Store.open(tmp_path / "store"))).open()

    with pytest.raises(ConfigError, match=r"local.folder = 'nowhere' has no config.json: give the folder"):
        opened(folder="nowhere", folder_sha256="1")
    with pytest.raises(ConfigError, match=r"local.folder_sha256 = '1', but '.*' has '[0-9a-f]{64}'"):
        opened(folder=str(folder), folder_sha256="1")
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="has no chat template"):
        opened(folder=str(copy), folder_sha256=digest(copy))
    (copy / "model.safetensors").rename(copy / "weights.safetensors")
    torch.save({"a": torch.zeros(1)}, copy / "pytorch_model.bin")
    with pytest.raises(DataError, match="transformers cannot use this model"):
        opened(folder=str(copy), folder_sha256=digest(copy))
    with pytest.raises(ConfigError, match="'cuda', but torch sees no graphics card"):
        opened(folder=str(folder), folder_sha256=digest(folder), device="cuda")

"""The decoder's loss: denoising, with a share of the samples told nothing, so that guidance has its other half."""

from collections.abc import Mapping

from torch import Tensor

from wfm.data.loader.grouped import batches_of
from wfm.errors import ConfigError
from wfm.models.diffusion.denoiser import Denoiser, Prepared
from wfm.models.diffusion.objective import AnyBatch, DenoisingObjective
from wfm.models.diffusion_decoder.network import DiffusionDecoder
from wfm.models.loss import Mean


class DecoderObjective(DenoisingObjective):
    """Loss of a `DiffusionDecoder`. Batch: latents `[B, C, T, H, W]` in the tokenizer's units and tokens int64
    `[B, T, h, w]` of the same windows, seeds int64 `[B]`. `text_dropout` of the configuration is the share that is told
    nothing (Cosmos: 0.2).

    Every second step sees a window that starts later in its video: long videos are decoded in such windows.
    """

    def sums(self, model: Denoiser, batch: AnyBatch, step: int) -> tuple[dict[str, Tensor], dict[str, Mean]]:
        frames = min(one["latents"].shape[2] for one in batches_of(batch))
        self.start = 0 if step % 2 == 0 or frames < 3 else 1 + step // 2 % (frames - 2)
        return super().sums(model, batch, step)

    def clean(self, model: Denoiser, batch: Mapping[str, Tensor]) -> Tensor:
        return model.normalise(batch["latents"])[:, :, self.start :]

    def prepared(
        self, model: Denoiser, batch: Mapping[str, Tensor], clean: Tensor, draw: Mapping[str, Tensor]
    ) -> Prepared:
        assert isinstance(model, DiffusionDecoder)
        tokens = batch["tokens"].long()[:, self.start :]
        return model.conditioned(tokens, clean, keep=draw["keep_text"], start=self.start)

    def deviations(self, model: Denoiser, frames: int) -> Tensor:
        return model.statistics.of(frames + self.start)[1][:, self.start :]

    def _require(self, model: Denoiser) -> None:
        if not isinstance(model, DiffusionDecoder):
            raise ConfigError(f"DecoderObjective trains a DiffusionDecoder, not a {type(model).__name__}")
        if self.config.condition_latents != (0,):
            raise ConfigError(
                f"condition_latents is {self.config.condition_latents}; a decoder is given no latents: (0,)"
            )
        super()._require(model)

"""The whole model, loaded once, with every weight in its place."""

from __future__ import annotations

import logging
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2VocoderWithBWE
from torch import Tensor
from transformers import Gemma3TextModel

from scope_ltx.checkpoints.monolithic import Base, base_of, open_part
from scope_ltx.checkpoints.quantize.layers import KEPT_AT_EACH_END, block_weights, holds_fp8
from scope_ltx.checkpoints.quantize.view import as_fp8
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.engine import DEFAULT_ENGINE, GIB, EngineOptions
from scope_ltx.errors import CheckpointError
from scope_ltx.lora.errors import LoraError
from scope_ltx.lora.loras import NO_LORAS
from scope_ltx.lora.merging import LoraMerger, ReadTensor
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.audio import load_audio_vae, load_vocoder
from scope_ltx.models.connectors import CONNECTOR_BLOCKS, PROJECTIONS, connector_blocks, open_connectors
from scope_ltx.models.placement import Block, Placement, plan_both
from scope_ltx.models.stage_upsampler import StageUpsampler
from scope_ltx.models.text_encoder import open_text_encoder, text_encoder_blocks
from scope_ltx.models.tokenizer import Tokenizer, load_tokenizer
from scope_ltx.models.transformer import open_transformer, transformer_blocks
from scope_ltx.models.upsampler import load_upsampler
from scope_ltx.models.video_vae import load_video_vae
from scope_quant.capability import Fp8Path, Fp8Support, probe_fp8
from scope_streaming.weights.backend import host_memory
from scope_streaming.weights.plan import ResidencyPlan

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")


def _no_file(name: str, target: Tensor) -> None:
    raise RuntimeError(f"this model was not read from files: {name} cannot be read again")


@dataclass(frozen=True)
class Components:
    """Parts of one model, in evaluation mode and without gradients.

    dtype: what everything computes in, except the vocoder (float32). fp8: how FP8 layers are computed, and why.
    blocks: the transformer's blocks and the text path's, whose weights are wherever their placement has them.
    fixed_nbytes: device memory of everything else.
    directory: of the model, where LoRAs and control models are looked for. base: what the transformer is, None
    where its file does not tell. merger: what the blocks are read through. read_transformer: gives the pristine
    value of any tensor of the transformer. upsampler: None where the directory has none.
    """

    transformer: LTX2VideoTransformer3DModel
    connectors: LTX2TextConnectors
    text_encoder: Gemma3TextModel
    tokenizer: Tokenizer
    video_vae: AutoencoderKLLTX2Video
    audio_vae: AutoencoderKLLTX2Audio
    vocoder: LTX2VocoderWithBWE
    device: torch.device
    dtype: torch.dtype
    fp8: Fp8Support
    blocks: tuple[list[Block], list[Block]]
    engine: EngineOptions
    fixed_nbytes: int = 0
    directory: Path = Path()
    base: Base | None = None
    merger: LoraMerger = field(default_factory=lambda: LoraMerger(CPU))
    read_transformer: ReadTensor = _no_file
    upsampler: StageUpsampler | None = None

    def plan(self, headroom_nbytes: int) -> tuple[ResidencyPlan, ResidencyPlan]:
        """Plans for the transformer's and the text path's blocks that leave `headroom_nbytes` to activations.
        Raises BudgetError."""
        transformer, text = self.blocks
        budget = allowed_nbytes(self.engine, self.device)
        if self.device.type != "cpu":
            budget -= self.fixed_nbytes + headroom_nbytes
        return plan_both([block.nbytes for block in transformer], [block.nbytes for block in text], budget)

    def activations_nbytes(self, plans: tuple[ResidencyPlan, ResidencyPlan]) -> int | None:
        """The most device memory that was reserved beside the weights since the last call; None on the CPU."""
        if self.device.type != "cuda":
            return None
        peak = torch.cuda.max_memory_reserved(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        transformer, text = plans
        # The two share their slots.
        return peak - self.fixed_nbytes - transformer.device_nbytes - text.resident_nbytes

    def place(self, plans: tuple[ResidencyPlan, ResidencyPlan]) -> Placement:
        """Read the blocks into their places, with LoRAs merged. Without any where their files have been damaged
        since: a model that cannot be placed could not be given other LoRAs either. Raises PinningError,
        OutOfMemoryError."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        # Also in the middle of a chunk: other threads write these tensors, so they must be ordinary ones.
        with torch.inference_mode(False):
            try:
                return self._placed(plans)
            except LoraError as error:
                logger.warning("blocks are placed without LoRAs, because one cannot be read again: %s", error)
            # Outside the except clause: the exception's traceback holds on to what was placed so far.
            self._take_loras_out()
            return self._placed(plans)

    def _placed(self, plans: tuple[ResidencyPlan, ResidencyPlan]) -> Placement:
        host = host_memory(self.device, pageable=self.engine.pageable)
        return Placement(*self.blocks, self.device, plans, host)

    def _take_loras_out(self) -> None:
        layers = self.merger.loras.modules
        self.merger.use(NO_LORAS)
        blocks = [block for blocks in self.blocks for block in blocks]
        outside = [layer for layer in layers if not any(block.holds(layer) for block in blocks)]
        self.merger.write_again(self.transformer, outside, self.read_transformer)


def allowed_nbytes(engine: EngineOptions, device: torch.device) -> int:
    """Device memory that this process may hold: the budget, and no more than what is free for it; on the CPU the
    budget, or everything."""
    budget = sys.maxsize if engine.vram_budget_gb is None else int(engine.vram_budget_gb * GIB)
    if device.type == "cpu":
        return budget
    return min(budget, torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))


def compute_dtype(device: torch.device) -> torch.dtype:
    """float32 on the CPU, whose bfloat16 is slow; bfloat16, in which the model was trained, elsewhere."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def load_components(files: ModelFiles, device: torch.device, engine: EngineOptions = DEFAULT_ENGINE) -> Components:
    """Load every part but the blocks onto `device`, and the upsampler if it is there. All files are opened, and so
    checked to be whole, before any is read. A file may be a complete checkpoint, of which a part is read.

    Raises CheckpointError naming the file, the keys and what to do.
    """
    dtype, fp8 = compute_dtype(device), probe_fp8(device)
    transformer_file = _as_computed(open_part(files.transformer, "transformer"), device, engine, fp8)
    projection_file = open_part(files.text_projection, "text_projection")
    text_file = open_part(files.text_encoder, "text_encoder")
    video_file = open_part(files.video_vae, "video_vae")
    audio_file = open_part(files.audio_vae, "audio_vae")
    upsampler_file = CheckpointFile(files.upsampler) if files.upsampler.is_file() else None

    tokenizer = load_tokenizer(text_file)
    text_encoder = open_text_encoder(text_file, dtype=dtype, fp8_path=fp8.path)
    connectors = open_connectors(transformer_file, projection_file, dtype=dtype, fp8_path=fp8.path)
    _require_same_text_width(text_file, text_encoder.module, connectors.module)
    transformer = open_transformer(transformer_file, dtype=dtype, fp8_path=fp8.path)
    merger = LoraMerger(device)
    text_blocks = [*text_encoder_blocks(text_encoder), *connector_blocks(connectors, merger)]
    text_encoder.load(device, later=["layers"], on_host=["embed_tokens"])
    connectors.load(device, later=[*PROJECTIONS, *CONNECTOR_BLOCKS])
    transformer.load(device, later=["transformer_blocks"])
    video_vae = load_video_vae(video_file, device=device, dtype=dtype)
    return Components(
        transformer=transformer.module,
        connectors=connectors.module,
        text_encoder=text_encoder.module,
        tokenizer=tokenizer,
        video_vae=video_vae,
        audio_vae=load_audio_vae(audio_file, device=device, dtype=dtype),
        vocoder=load_vocoder(audio_file, device=device),
        device=device,
        dtype=dtype,
        fp8=fp8,
        blocks=(transformer_blocks(transformer, merger), text_blocks),
        engine=engine,
        fixed_nbytes=torch.cuda.memory_reserved(device) if device.type == "cuda" else 0,
        directory=files.directory,
        base=base_of(transformer_file),
        merger=merger,
        read_transformer=transformer.read_into,
        upsampler=_upsampler(upsampler_file, video_vae, device, dtype),
    )


def _as_computed(
    file: CheckpointFile, device: torch.device, engine: EngineOptions, fp8: Fp8Support
) -> CheckpointFile:
    """A transformer in bfloat16 is quantized while it is read where the device multiplies FP8, which is what this
    engine is fast with, and where its blocks alone exceed the memory that they may take: half the bytes to stream.
    Everywhere else it stays as it is. A file with FP8 weights is read as it is always."""
    weights = block_weights(file)
    nbytes = sum(math.prod(file.shapes[key]) for key in weights) * compute_dtype(device).itemsize
    if holds_fp8(file) or not (fp8.path is Fp8Path.SCALED_MM or nbytes > allowed_nbytes(engine, device)):
        return file
    # Only a toy has so few blocks that none would be left between the ends that are kept.
    few = len(set(weights.values())) <= 2 * KEPT_AT_EACH_END
    return as_fp8(file, keep_blocks=() if few else None, device=device)


def _upsampler(
    file: CheckpointFile | None, video_vae: AutoencoderKLLTX2Video, device: torch.device, dtype: torch.dtype
) -> StageUpsampler | None:
    """Raises CheckpointError for a file that is not LTX-2.3's x2 upsampler, or not this VAE's."""
    if file is None:
        return None
    model = load_upsampler(file, device=CPU, dtype=dtype)
    try:
        return StageUpsampler(model, video_vae, device)
    except ValueError as error:
        advice = "Use the upsampler that plugin.toml names, or take it out of the model directory"
        raise CheckpointError(file.path, f"does not fit the video VAE: {error}", advice=advice) from error


def _require_same_text_width(
    file: CheckpointFile, text_encoder: Gemma3TextModel, connectors: LTX2TextConnectors
) -> None:
    """The projection takes every hidden state of the text encoder: the embedding's and each layer's."""
    gives = (text_encoder.config.hidden_size, text_encoder.config.num_hidden_layers + 1)
    takes = (connectors.config.caption_channels, connectors.config.text_proj_in_factor)
    if gives != takes:
        problem = (
            f"gives {gives[1]} hidden states of width {gives[0]}, the projection takes {takes[1]} of {takes[0]}"
        )
        raise CheckpointError(file.path, problem, advice="Use the text encoder that belongs to the projection")

"""The small transformer's weights: a velocity field whose flow ends in a smooth, slowly moving picture.

The width is cut into lanes. A lane of the picture's own latents, a lane of latents that stay noise (the seed's
randomness), a lane of constants that keeps every norm nearly linear, and a target lane that is computed:

    target   = (noise lane averaged over neighbours) + (colours of the prompt's words)
    velocity = (picture lane - target) / last sigma       on the picture's latents, 0 on all others

The averaging is self-attention whose queries and keys are constants: after RoPE their product depends only on
how far apart two tokens are. With the velocity linear in the latents the last distilled step lands on the
target whatever came before. Around the lanes everything is small and random, so every weight takes part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scope_ltx.models.small.draw import State, draw_state, generator_for, shapes_of
from scope_ltx.models.small.sizes import AUDIO_HEAD, AUDIO_WIDTH, VIDEO_HEAD, VIDEO_WIDTH, build_transformer
from scope_ltx.models.small.video_vae_weights import CLEAN_LATENT, CLEAN_LEVEL

LAST_SIGMA = 0.421875
"""The last non-zero sigma of the distilled schedule."""

FLAG, COLOURED, COLOUR, HASH = 0, 16, 17, 20
"""Places in a video context token: is it a word (16 places, +-1), does it name a colour, which, and its hash."""
AUDIO_FLAG, AUDIO_HASH = 0, 8
CLEAN_LANE = 32
"""A place in a video token: 1 where a picture was encoded, small where there is noise."""

_RANDOM_GAIN = 0.5
_COUPLING = 0.02
"""How strongly random weights write into the lanes: 2 % keeps them in use and the picture smooth."""

# About 240 tokens are averaged, so the noise that is left has a deviation of 0.06. The prompt decides the colours
# and the seed what is where: half as much of it in the colours as in the texture that chooses between words.
_PICTURE_GAIN = torch.tensor([12.0] * 3 + [24.0] * 5)
_SOUND_GAIN = torch.full((16,), 9.0)


@dataclass(frozen=True)
class Lanes:
    """Where each lane starts in a stream's width. `picture`, `target` and `noise` have `size` places each."""

    width: int
    size: int
    constants: int
    constant: float
    noise_latents: int

    @property
    def picture(self) -> int:
        return 0

    @property
    def target(self) -> int:
        return self.size

    @property
    def noise(self) -> int:
        return 2 * self.size

    @property
    def constant_start(self) -> int:
        return 3 * self.size

    @property
    def free(self) -> int:
        return self.constant_start + self.constants

    @property
    def rms(self) -> float:
        """Root mean square of a token: the constants, and lanes of about unit variance."""
        return math.sqrt((self.constants * self.constant**2 + self.width - self.constants) / self.width)


VIDEO = Lanes(width=VIDEO_WIDTH, size=8, constants=8, constant=10.0, noise_latents=8)
AUDIO = Lanes(width=AUDIO_WIDTH, size=16, constants=8, constant=8.0, noise_latents=16)


def transformer_weights(seed: int) -> State:
    """State dict of `build_transformer`, float32."""
    generator = generator_for(seed, "transformer")
    state = draw_state(shapes_of(build_transformer), generator, _RANDOM_GAIN)
    for name, table in state.items():
        if name.endswith("scale_shift_table"):
            state[name] = torch.randn(table.shape, generator=generator) * 0.02
    _soften_timesteps(state)
    _protect_lanes(state)
    _open_gates(state)
    _edges(state, VIDEO, "")
    _edges(state, AUDIO, "audio_")
    # The pairs 13 to 15 turn by 0.33 rad a frame and 0.31 rad a row or column: bells whose deviations are 1.7
    # frames (0.6 s) and 1.8 rows and columns.
    _average_neighbours(
        state, "transformer_blocks.0.attn1", VIDEO, VIDEO_HEAD, {13: 3.2, 14: 3.2, 15: 3.2}, _PICTURE_GAIN
    )
    # Audio tokens are 40 ms apart and turn the fastest pair of the first head by 0.05 rad: 0.3 s wide.
    _average_neighbours(
        state, "transformer_blocks.0.audio_attn1", AUDIO, AUDIO_HEAD, {6: 5.0, 7: 4.0}, _SOUND_GAIN
    )
    _look_around(state, "transformer_blocks.0.attn1")
    _read_colours(state, "transformer_blocks.1.attn2")
    _read_words(state, "transformer_blocks.1.audio_attn2")
    return state


def _soften_timesteps(state: State) -> None:
    """Modulations move by a few percent with sigma: enough to notice a wrong timestep, not to be seen."""
    for name, weight in state.items():
        if name.endswith("timestep_embedder.linear_2.weight"):
            weight.mul_(0.04)
        elif name.endswith(".linear.weight") and weight.shape[0] % weight.shape[1] == 0:
            weight.mul_(4.0)


def _protect_lanes(state: State) -> None:
    """Random weights of the blocks write freely only outside the lanes."""
    for name, weight in state.items():
        if name.endswith(("to_out.0.weight", "ff.net.2.weight")):
            lanes = VIDEO if weight.shape[0] == VIDEO_WIDTH else AUDIO
            weight[: lanes.free] *= _COUPLING


def _open_gates(state: State) -> None:
    """Rows (shift, scale, gate) of attention, feed-forward and text; the sound-picture gates stay ajar."""
    for name, table in state.items():
        if not name.startswith("transformer_blocks"):
            continue
        if name.endswith((".scale_shift_table", ".audio_scale_shift_table")):
            table[2] += 1.0
            table[5] += 0.5
            table[8] += 1.0
        elif name.endswith("cross_attn_scale_shift_table"):
            table[4] += 0.3


def _edges(state: State, lanes: Lanes, prefix: str) -> None:
    """Latents into their lanes, and (picture - target) / last sigma out again."""
    weight, bias = state[f"{prefix}proj_in.weight"], state[f"{prefix}proj_in.bias"]
    weight[: lanes.free] = 0
    latents = torch.arange(lanes.size)
    weight[lanes.picture + latents, latents] = 1.0
    weight[lanes.noise + latents, lanes.noise_latents + latents] = 1.0
    bias[lanes.constant_start : lanes.free] = _alternating(lanes.constants) * lanes.constant

    weight = state[f"{prefix}proj_out.weight"]
    weight.zero_()
    gain = lanes.rms / LAST_SIGMA
    weight[latents, lanes.picture + latents] = gain
    weight[latents, lanes.target + latents] = -gain


def _alternating(count: int) -> Tensor:
    return torch.tensor([1.0, -1.0]).repeat(count // 2)


def _average_neighbours(
    state: State, attention: str, lanes: Lanes, head_dim: int, sharpness: dict[int, float], gain: Tensor
) -> None:
    """Head 0 averages the noise lane over nearby tokens into the target lane, times `gain`.

    sharpness: for pairs of that head, the coefficient m of the score m * cos(angle); a pair that turns by t
    between neighbours gives a bell of deviation 1 / (t * sqrt(m)) tokens.
    """
    half = head_dim // 2
    for projection in ("to_q", "to_k"):
        state[f"{attention}.{projection}.weight"].mul_(0.1)
        bias = state[f"{attention}.{projection}.bias"]
        bias.view(-1, head_dim)[:, :half] = 1.0
        norm = state[f"{attention}.norm_{projection[-1]}.weight"]
        norm[:head_dim] = 0.02
        for pair, m in sharpness.items():
            # The normalised bias is sqrt(2), and scores are divided by sqrt(head_dim).
            norm[pair] = math.sqrt(m * math.sqrt(head_dim) / 2)
    _carry(state, attention, lanes, lanes.noise, gain)


def _look_around(state: State, attention: str) -> None:
    """Head 1 sees the nearest places most, and a lane tells encoded tokens from noise: in-context LoRAs use both.

    Its scores are three times those that constants of unit norm give: it sees little but the place itself.
    """
    for norm in ("norm_q", "norm_k"):
        state[f"{attention}.{norm}.weight"][VIDEO_HEAD : VIDEO_HEAD + VIDEO_HEAD // 2] = math.sqrt(3.0)
    weight = state["proj_in.weight"]
    weight[CLEAN_LANE] = 0
    weight[CLEAN_LANE, CLEAN_LATENT] = 1 / CLEAN_LEVEL


def _carry(state: State, attention: str, lanes: Lanes, source: int, gain: Tensor) -> None:
    """Value and output of head 0: places from `source` on, times `gain`, are added to the target lane."""
    value, out = state[f"{attention}.to_v.weight"], state[f"{attention}.to_out.0.weight"]
    places = torch.arange(lanes.size)
    value[places] = 0
    value[places, source + places] = gain.sqrt()
    out[:, places] = 0
    out[lanes.target + places, places] = gain.sqrt()


def _read_colours(state: State, attention: str) -> None:
    """Where the target's places 3 to 5 point, words of such a colour are looked at: two colours share a picture.

    Queries and keys have a ballast in places where the other is zero, so that their norms hardly move.
    """
    lanes, head = VIDEO, VIDEO_HEAD
    query, key = (state[f"{attention}.{part}.weight"] for part in ("to_q", "to_k"))
    query.mul_(_COUPLING)
    key.mul_(_COUPLING)
    query_bias, key_bias = (state[f"{attention}.{part}.bias"] for part in ("to_q", "to_k"))
    query_bias[[0, 1]] = 1.0
    query_bias[3 * head :] = 1.0
    key_bias[2 * head : 3 * head] = 1.0
    for place in range(8):
        key[0, FLAG + 2 * place] = 1 / 8
    key[1, COLOURED] = 1.0
    for colour in range(3):
        query[2 + colour, lanes.target + 3 + colour] = lanes.rms
        key[2 + colour, COLOUR + colour] = 1.0
    # Ballast gives a root mean square of about 0.5 to both, so that 1 becomes 2; scores divide by sqrt(32).
    scale = torch.tensor([10.0, 6.0, 3.0, 3.0, 3.0])
    scale = (scale * math.sqrt(head) / 4).sqrt()
    state[f"{attention}.norm_q.weight"][:5] = scale
    state[f"{attention}.norm_k.weight"][:5] = scale
    value, out = state[f"{attention}.to_v.weight"], state[f"{attention}.to_out.0.weight"]
    value[: lanes.size] = 0
    out[:, : lanes.size] = 0
    for place in range(lanes.size):
        source = COLOUR + place if place < 3 else HASH + place
        value[place, source] = 1.0
        out[lanes.target + place, place] = 1.0 if place < 3 else 0.3


def _read_words(state: State, attention: str) -> None:
    """Every word of the prompt has its say in how loud each tone is; registers have none."""
    lanes, head = AUDIO, AUDIO_HEAD
    query, key = (state[f"{attention}.{part}.weight"] for part in ("to_q", "to_k"))
    query.mul_(_COUPLING)
    key.mul_(_COUPLING)
    state[f"{attention}.to_q.bias"][0] = 1.0
    state[f"{attention}.to_q.bias"][3 * head :] = 1.0
    state[f"{attention}.to_k.bias"][2 * head : 3 * head] = 1.0
    for place in range(4):
        key[0, AUDIO_FLAG + 2 * place] = 1 / 4
    scale = math.sqrt(10.0 * math.sqrt(head) / 4)
    state[f"{attention}.norm_q.weight"][0] = scale
    state[f"{attention}.norm_k.weight"][0] = scale
    _carry(state, attention, lanes, AUDIO_HASH, torch.ones(lanes.size))

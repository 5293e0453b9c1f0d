"""Control models without training: the real classes at their smallest, and stand-ins that can be predicted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
)

from scope_ltx.manifest import Manifest


def write_control_models(manifest: Manifest, models: Path) -> None:
    """Every control model of the manifest, tiny and random, where it belongs below `models`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny_depth().save_pretrained(models / manifest.control_model("depth").path)
        tiny_pose().save_pretrained(models / manifest.control_model("pose").path)
        tiny_detector().save_pretrained(models / manifest.control_model("person_detector").path)


def tiny_depth() -> Any:
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14,
        out_features=stages, reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, patch_size=14,
        neck_hidden_sizes=[4, 8, 16, 16], fusion_hidden_size=8, head_hidden_size=4,
    )  # fmt: skip
    return DepthAnythingForDepthEstimation(config)


def tiny_pose() -> Any:
    backbone = VitPoseBackboneConfig(
        image_size=[256, 192], patch_size=[16, 16], hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        mlp_ratio=2, out_indices=[1],
    )  # fmt: skip
    return VitPoseForPoseEstimation(
        VitPoseConfig(backbone_config=backbone, num_labels=17, use_simple_decoder=True)
    )


def tiny_detector() -> Any:
    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = RTDetrConfig(
        backbone_config=backbone, encoder_in_channels=[8, 8, 16], encoder_hidden_dim=16, encoder_ffn_dim=16,
        encoder_layers=1, encoder_attention_heads=2, d_model=16, decoder_in_channels=[16, 16, 16],
        num_queries=10, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16, num_denoising=0,
        id2label={0: "dog", 1: "person"}, label2id={"dog": 0, "person": 1}, use_pretrained_backbone=False,
    )  # fmt: skip
    return RTDetrForObjectDetection(config)


@dataclass
class FakeDetector:
    """Says that there are people (label 1) in these boxes of every picture, and a dog (label 0) everywhere."""

    boxes: list[tuple[float, float, float, float]]
    sizes: list[tuple[int, ...]] = field(default_factory=list)

    def __call__(self, pixel_values: Tensor) -> Any:
        self.sizes.append(tuple(pixel_values.shape))
        boxes = torch.tensor([*self.boxes, (0.5, 0.5, 1.0, 1.0)])
        logits = torch.full((len(boxes), 2), -9.0)
        logits[:-1, 1] = 9.0
        logits[-1, 0] = 9.0
        pictures = len(pixel_values)
        return SimpleNamespace(logits=logits.expand(pictures, -1, -1), pred_boxes=boxes.expand(pictures, -1, -1))


class FakePose:
    """Sees nose, left eye and right eye where the crop is red, green and blue; no other joint, ever."""

    def __call__(self, pixel_values: Tensor) -> Any:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        colours = pixel_values * std[:, None, None] + mean[:, None, None]
        seen = interpolate(colours, (64, 48), mode="bilinear", align_corners=True)
        return SimpleNamespace(heatmaps=torch.cat([seen, torch.zeros(len(seen), 14, 64, 48)], dim=1))


class FakeDepth:
    """Says that bright is near, and remembers how it was asked."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def __call__(self, pixel_values: Tensor) -> Any:
        self.sizes.append(tuple(pixel_values.shape))
        return SimpleNamespace(predicted_depth=pixel_values.mean(dim=1))

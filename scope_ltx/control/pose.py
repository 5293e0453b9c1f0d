"""Pose skeletons of every person in the picture: RT-DETR finds people, ViTPose their joints.

COCO's 17 joints only: fingers and faces, which the published workflow's annotator draws too, are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from scope_ltx.control.frames import batches, check_frames
from scope_ltx.control.local_models import normalised, open_local_model
from scope_ltx.control.skeleton import draw_skeletons
from scope_ltx.errors import CheckpointError
from scope_ltx.manifest import ControlModel

DETECTOR_SIDE_PX = 640
PERSON_SCORE = 0.5
BOX_MARGIN = 1.25
"""A person's box is made this much larger before the joints are looked for, as ViTPose was trained."""

_BATCH = 8


def load_pose_estimator(
    pose: ControlModel, detector: ControlModel, models: Path, device: torch.device
) -> PoseEstimator:
    """Raises CheckpointError if a model is not below `models`, with the command that downloads it."""
    from transformers import RTDetrForObjectDetection, VitPoseForPoseEstimation  # noqa: PLC0415 - seconds

    joints = open_local_model(VitPoseForPoseEstimation, pose, models, device)
    people = open_local_model(RTDetrForObjectDetection, detector, models, device)
    height, width = (int(side) for side in joints.config.backbone_config.image_size)
    person = _person_label(people.config.id2label, models / detector.path)
    return PoseEstimator(joints, (height, width), people, person, device)


class PoseEstimator:
    """Frames to skeletons on black. Call it from one thread at a time.

    pose: pixel_values (N, 3, *crop_size) to an output with `heatmaps` (N, 17, h, w) of COCO's joints.
    detector: pixel_values (N, 3, 640, 640) to an output with `logits` (N, boxes, labels) and `pred_boxes`
        (N, boxes, 4), centre x, centre y, width and height as fractions. person_label: its label of people.
    device: where both are.
    """

    def __init__(
        self, pose: Any, crop_size: tuple[int, int], detector: Any, person_label: int, device: torch.device
    ) -> None:
        self._pose, self._crop_size = pose, crop_size
        self._detector, self._person = detector, person_label
        self._device = device

    @torch.inference_mode()
    def __call__(self, frames: Tensor) -> Tensor:
        """Skeletons of uint8 (F, H, W, 3), same shape and device; black where nobody is."""
        check_frames(frames)
        height, width = frames.shape[1:3]
        people: list[Tensor] = []
        for part in batches(frames, _BATCH):
            planes = part.to(self._device).permute(0, 3, 1, 2).float() / 255
            people += [self._joints(plane, boxes) for plane, boxes in zip(planes, self._find(planes), strict=True)]
        return draw_skeletons(people, height, width).to(frames.device)

    def _find(self, planes: Tensor) -> list[Tensor]:
        """Boxes of people per picture, (people, 4) as left, top, right, bottom in pixels."""
        height, width = planes.shape[2:]
        side = (DETECTOR_SIDE_PX, DETECTOR_SIDE_PX)
        found = self._detector(
            pixel_values=interpolate(planes, side, mode="bilinear", align_corners=False, antialias=True)
        )
        scores = found.logits.sigmoid()
        size = torch.tensor([width, height], dtype=torch.float32, device=planes.device)
        centres, sizes = found.pred_boxes[..., :2] * size, found.pred_boxes[..., 2:] * size
        boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=2)
        best, labels = scores.max(dim=2)
        keep = (labels == self._person) & (best > PERSON_SCORE)
        return [boxes[index][keep[index]] for index in range(len(boxes))]

    def _joints(self, plane: Tensor, boxes: Tensor) -> Tensor:
        """COCO joints in one picture, (people, 17, 3): x and y in pixels, and the score."""
        if not len(boxes):
            return torch.zeros(0, 17, 3, device=plane.device)
        height, width = self._crop_size
        centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        # The model sees one aspect: the shorter side of the box grows to it, so that nobody is stretched.
        wide = torch.maximum(sizes[:, 0], sizes[:, 1] * width / height) * BOX_MARGIN
        sizes = torch.stack([wide, wide * height / width], dim=1)
        crops = _crop(plane, centres, sizes, height, width)
        heatmaps = torch.cat(
            [self._pose(pixel_values=normalised(part)).heatmaps for part in batches(crops, _BATCH)]
        )
        peaks = _peaks(heatmaps)
        places = centres[:, None] + (peaks[..., :2] - 0.5) * sizes[:, None]
        return torch.cat([places, peaks[..., 2:]], dim=2)


def _crop(plane: Tensor, centres: Tensor, sizes: Tensor, height: int, width: int) -> Tensor:
    """Boxes of one picture (3, H, W) at the model's size, black outside the picture.

    The first and last sample lie on the box's edges, as ViTPose's heatmaps do.
    """
    across = torch.linspace(-0.5, 0.5, width, device=plane.device)
    down = torch.linspace(-0.5, 0.5, height, device=plane.device)
    x = centres[:, 0, None, None] + sizes[:, 0, None, None] * across[None, None, :]
    y = centres[:, 1, None, None] + sizes[:, 1, None, None] * down[None, :, None]
    rows, columns = plane.shape[1:]
    shape = (len(centres), height, width)
    x = (x * 2 / max(1, columns - 1) - 1).expand(shape)
    y = (y * 2 / max(1, rows - 1) - 1).expand(shape)
    pictures = plane.expand(len(centres), -1, -1, -1)
    return grid_sample(pictures, torch.stack([x, y], dim=3), mode="bilinear", align_corners=True)


def _peaks(heatmaps: Tensor) -> Tensor:
    """Where each heatmap (people, joints, h, w) is highest: (people, joints, 3), x and y as 0..1, and the value.

    The peak is moved a quarter of a cell towards its higher neighbour, the usual correction of heatmap poses.
    """
    people, joints, height, width = heatmaps.shape
    scores, cells = heatmaps.flatten(2).max(dim=2)
    x, y = cells % width, cells // width
    flat = heatmaps.flatten(0, 1)
    index = torch.arange(people * joints, device=heatmaps.device).view(people, joints)

    def value(rows: Tensor, columns: Tensor) -> Tensor:
        return flat[index, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]

    right = (value(y, x + 1) - value(y, x - 1)).sign() * 0.25 * ((x > 0) & (x < width - 1))
    down = (value(y + 1, x) - value(y - 1, x)).sign() * 0.25 * ((y > 0) & (y < height - 1))
    return torch.stack([(x + right) / (width - 1), (y + down) / (height - 1), scores], dim=2)


def _person_label(labels: dict[int, str], directory: Path) -> int:
    found = [int(index) for index, name in labels.items() if name == "person"]
    if len(found) != 1:
        problem = f"must know one class called 'person', it knows {len(found)}"
        raise CheckpointError(directory / "config.json", problem, advice="Use a detector trained on COCO")
    return found[0]

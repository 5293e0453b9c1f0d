"""Depth and pose: where they look for their models, what they say when one is missing, and what they draw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scope_ltx.control.depth import DepthEstimator
from scope_ltx.control.groups import ControlGroup, build_control
from scope_ltx.control.pose import PoseEstimator
from scope_ltx.control.skeleton import draw_skeletons
from scope_ltx.errors import CheckpointError
from scope_ltx.manifest import load_manifest
from tests.fakes.control_models import FakeDepth, FakeDetector, FakePose, write_control_models

CPU = torch.device("cpu")
MANIFEST = load_manifest()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    write_control_models(MANIFEST, directory)
    return directory


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("group", ["none", "canny", "depth", "pose"])
def test_every_group_maps_frames_to_frames(group: ControlGroup, models: Path) -> None:
    draw = build_control(group, manifest=MANIFEST, models=models, device=CPU)
    frames = noise(3, 40, 56, 3)
    drawn = draw(frames)
    assert drawn.shape == frames.shape
    assert drawn.dtype == torch.uint8
    assert drawn.is_contiguous()
    assert torch.equal(drawn, frames) == (group == "none")
    assert torch.equal(draw(frames), drawn)
    with pytest.raises(ValueError, match="frames must be uint8"):
        draw(frames.float())


def test_an_unknown_group_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="control_group must be one of none, canny, depth, pose, got 'edges'"):
        build_control("edges", manifest=MANIFEST, models=tmp_path, device=CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("group", "command"),
    [
        (
            "depth",
            "hf download depth-anything/Depth-Anything-V2-Small-hf config.json model.safetensors "
            "--local-dir {}/control/depth-anything-v2-small",
        ),
        (
            "pose",
            "hf download usyd-community/vitpose-base-simple config.json model.safetensors "
            "--local-dir {}/control/vitpose-base-simple",
        ),
    ],
)
def test_a_missing_model_is_told_with_its_download_command(
    group: ControlGroup, command: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="model is missing") as caught:
        build_control(group, manifest=MANIFEST, models=tmp_path, device=CPU)
    assert caught.value.keys == ("config.json", "model.safetensors")
    assert f"`{command.format(tmp_path)}`" in str(caught.value)


def test_the_detector_is_missed_as_well(tmp_path: Path) -> None:
    write_control_models(MANIFEST, tmp_path)
    (tmp_path / "control/rtdetr-r50vd/model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"the person detector model is missing: model\.safetensors"
    ) as caught:
        build_control("pose", manifest=MANIFEST, models=tmp_path, device=CPU)
    assert "hf download PekingU/rtdetr_r50vd_coco_o365 config.json model.safetensors" in caught.value.advice


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("html", "cannot be loaded"),
        ("wrong model", "is a model of type 'vitpose', expected 'depth_anything'"),
        ("no json", "is not JSON"),
        ("wrong shape", "1 tensors are missing or misshapen: head.conv1.weight"),
        ("left out", "1 tensors are missing or misshapen: head.conv1.weight"),
    ],
)
def test_a_damaged_model_is_refused(damage: str, message: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    write_control_models(MANIFEST, tmp_path)
    directory = tmp_path / MANIFEST.control_model("depth").path
    weights, config = directory / "model.safetensors", directory / "config.json"
    if damage == "html":
        weights.write_bytes(b"<!DOCTYPE html><html></html>")
    elif damage == "wrong model":
        config.write_text(json.dumps({"model_type": "vitpose"}))
    elif damage == "no json":
        config.write_text("{")
    else:
        tensors = {name: tensor.clone() for name, tensor in load_file(weights).items()}
        if damage == "left out":
            del tensors["head.conv1.weight"]
        else:
            tensors["head.conv1.weight"] = torch.zeros(1, 2, 3, 3)
        save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message) as caught:
        build_control("depth", manifest=MANIFEST, models=tmp_path, device=CPU)
    assert "hf download depth-anything/" in caught.value.advice


@pytest.mark.parametrize(
    ("size", "asked"), [((384, 320), (518, 434)), ((1080, 1920), (518, 924)), ((64, 64), (518, 518))]
)
def test_depth_is_asked_at_whole_patches_near_518(size: tuple[int, int], asked: tuple[int, int]) -> None:
    model = FakeDepth()
    frames = torch.zeros(1, *size, 3, dtype=torch.uint8)
    assert not DepthEstimator(model, 14, CPU)(frames).any()
    assert model.sizes == [(1, 3, *asked)]


def test_depth_is_scaled_over_the_whole_clip() -> None:
    """Near and far are those of the clip, so a frame without either has neither white nor black."""
    frames = torch.full((12, 28, 28, 3), 100, dtype=torch.uint8)
    frames[0] = 50
    frames[11] = 250
    drawn = DepthEstimator(FakeDepth(), 14, CPU)(frames)
    assert (drawn[0] == 0).all()
    assert (drawn[11] == 255).all()
    assert (drawn[1:11] == 64).all()
    bright = torch.zeros(1, 28, 28, 3, dtype=torch.uint8)
    bright[:, :, 14:] = 255
    halves = DepthEstimator(FakeDepth(), 14, CPU)(bright)[0, 14]
    assert halves[2].tolist() == [0, 0, 0]
    assert halves[25].tolist() == [255, 255, 255]


def dots(places: dict[int, tuple[int, int]], height: int = 96, width: int = 128) -> Tensor:
    """A frame with a dot at each (x, y): red for COCO's joint 0 (nose), green for 1 and blue for 2 (eyes)."""
    frame = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    for joint, (x, y) in places.items():
        frame[0, y - 2 : y + 3, x - 2 : x + 3, joint] = 255
    return frame


@pytest.mark.parametrize("box", [(0.5, 0.5, 0.7, 0.9), (0.55, 0.5, 0.9, 0.3), (0.5, 0.5, 1.0, 1.0)])
def test_joints_are_drawn_where_the_person_has_them(box: tuple[float, float, float, float]) -> None:
    """Through detection, crop, heatmap and back, whatever the form of the box."""
    places = {0: (60, 40), 1: (70, 55), 2: (50, 50)}
    pose = PoseEstimator(FakePose(), (256, 192), FakeDetector([box]), 1, CPU)
    drawn = pose(dots(places))[0]
    nose, left_eye, right_eye = (255, 0, 0), (255, 0, 255), (170, 0, 255)
    for (x, y), colour in zip(places.values(), (nose, left_eye, right_eye), strict=True):
        rows, columns = (drawn == torch.tensor(colour, dtype=torch.uint8)).all(dim=2).nonzero().unbind(1)
        assert len(rows)
        assert abs(columns.float().mean() - x) < 2.5
        assert abs(rows.float().mean() - y) < 2.5


def test_everyone_is_drawn_and_nothing_else() -> None:
    frames = torch.cat([dots({0: (20, 40)}), dots({0: (100, 60)}), dots({})])
    detector = FakeDetector([(0.2, 0.5, 0.3, 0.9), (0.8, 0.5, 0.3, 0.9)])
    drawn = PoseEstimator(FakePose(), (256, 192), detector, 1, CPU)(frames)
    assert detector.sizes == [(3, 3, 640, 640)]
    assert drawn[0, :, :64].any()
    assert not drawn[0, :, 64:].any()
    assert drawn[1, :, 64:].any()
    assert not drawn[1, :, :64].any()
    assert not drawn[2].any()


def test_nobody_gives_black() -> None:
    drawn = PoseEstimator(FakePose(), (256, 192), FakeDetector([]), 1, CPU)(dots({0: (60, 40)}))
    assert not drawn.any()


def test_a_whole_skeleton_has_18_joints_and_17_limbs() -> None:
    """Every joint in its own colour, each limb at 60 % of the colour of its number; the neck is made up."""
    joints = torch.zeros(1, 17, 3)
    for index in range(17):
        joints[0, index] = torch.tensor([40.0 + 20 * (index % 6), 40.0 + 60 * (index // 6) + 3 * index, 1.0])
    drawn = draw_skeletons([joints, torch.zeros(0, 17, 3)], 256, 256)
    assert not drawn[1].any()
    colours = {tuple(int(level) for level in pixel) for pixel in drawn[0].flatten(0, 1).tolist()}
    full = {colour for colour in colours if max(colour) == 255}
    assert len(full) == 18
    assert (255, 85, 0) in full, "the neck, between the shoulders"
    assert (153, 0, 0) in colours, "the first limb: 60 % red"
    joints[0, 5, 2] = 0.1
    without = draw_skeletons([joints], 256, 256)[0]
    left = {tuple(int(level) for level in pixel) for pixel in without.flatten(0, 1).tolist()}
    assert full - left == {(255, 85, 0), (85, 255, 0)}, "no left shoulder, so no neck"

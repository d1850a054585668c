"""Encoders of images, and flows aligned with them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from monge.apps.generate.encoders import Classes, Contrastive, Encoder, Images, Pretrain, encoder_of, view
from monge.apps.generate.recipes import Generate
from monge.cli import main
from monge.math.types import Pair
from monge.objective.alignment import Alignment, GridProjector
from monge.objective.self_supervised import SelfAlignment
from monge.run import fit
from monge.training.config import TrainConfig
from monge.training.log import read_records

SHORT = TrainConfig(steps=4, save_every=4, log_every=1, warmup_steps=1, threads=1, device="cpu")
SMALL = Pretrain(width=8, depth=1, batch_size=32, train=SHORT)
FLOW = Generate(network="dit", width=16, depth=2, batch_size=16, align_layer=1, train=SHORT)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `monge generate pretrain` on the digits."""
    directory = tmp_path_factory.mktemp("encoder") / "run"
    fit(SMALL, directory)
    return directory


def test_features_of_a_patch_are_the_mean_over_its_pixels():
    torch.manual_seed(0)
    encoder, x = Encoder(1, width=8, depth=1, outputs=2), torch.randn(3, 1, 4, 6)
    tokens, pixels = encoder.tokens(x, 2), encoder.map(x)
    assert tokens.shape == (3, 6, 8)
    torch.testing.assert_close(tokens[1, 4], pixels[1, :, 2:4, 2:4].mean((1, 2)))


def test_views_differ_from_the_image_by_a_shift_a_rectangle_and_noise():
    torch.manual_seed(0)
    x = torch.arange(1.0, 65.0).reshape(1, 1, 8, 8).expand(500, -1, -1, -1)
    views = view(x)
    shown, inside = views.round(), views[:, :, 2:-2, 2:-2].round()
    erased = (shown == 0).flatten(1).sum(1)
    assert 0.3 < (erased > 8).float().mean() < 0.7
    assert erased.max() <= 16 + 4
    differences = {int(d) for d in (inside - x[:, :, 2:-2, 2:-2])[inside > 0]}
    assert differences == {0, 1, -1, 8, -8, 9, -9, 7, -7}  # shifts by at most a row and a column


@pytest.mark.parametrize("objective", [Classes(), Contrastive()])
def test_an_encoder_learns_two_images(objective: torch.nn.Module):
    torch.manual_seed(0)
    encoder = Encoder(1, width=8, depth=1, outputs=4)
    images = Images(torch.randn(2, 1, 4, 4), torch.tensor([0, 1]))
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-2)
    values = []
    for _ in range(60):
        loss = objective(encoder, images)
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        values.append(float(loss.value.detach()))
    assert np.mean(values[-10:]) < 0.7 * np.mean(values[:5])


def test_the_contrastive_loss_of_perfect_features_is_near_zero():
    """Identical views of four orthogonal images: each positive has similarity 1, every other pair 0."""

    class Identity(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.eye(4).repeat(2, 1)

    loss = Contrastive(temperature=0.05)(Identity(), Images(torch.zeros(4, 1, 4, 4)))
    assert float(loss.value) < 1e-6
    assert float(loss.metrics["accuracy"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("align", ["encoder", "self", "dispersive"])
def test_an_aligned_run_starts_from_the_same_weights_and_data(align: str, encoder: Path, tmp_path: Path):
    name = str(encoder) if align == "encoder" else align
    fit(FLOW, tmp_path / "plain")
    fit(replace(FLOW, align=name), tmp_path / "aligned")
    plain, aligned = (list(read_records(tmp_path / kind / "metrics.jsonl")) for kind in ("plain", "aligned"))
    assert plain[0]["loss"] == aligned[0]["velocity"]
    assert plain[3]["loss"] != aligned[3]["velocity"]
    assert all("alignment" in row for row in aligned)


def test_targets_are_those_of_the_image_of_each_row(encoder: Path):
    recipe = replace(FLOW, align=str(encoder), coupling="ot-across")
    run, prepared = recipe.build(), recipe.prepared()
    pair = run.objective.coupling(run.batches(0))
    align = run.objective.align
    assert isinstance(align, Alignment)
    trained = encoder_of(encoder, prepared.constants["data"])
    torch.testing.assert_close(align.encoder(pair.x_1, pair.condition), trained.tokens(pair.x_1, recipe.patch))


def test_spatial_normalisation_changes_the_loss(encoder: Path):
    values = []
    for spatial in (False, True):
        torch.manual_seed(0)
        run = replace(FLOW, align=str(encoder), align_spatial=spatial).build()
        values.append(float(run.objective(run.model, run.batches(0)).metrics["alignment"]))
        assert isinstance(run.objective.align.projector, GridProjector) == spatial
    assert values[0] != values[1]


def test_a_flow_without_classes_uses_an_encoder_of_data_with_classes(encoder: Path):
    run = replace(FLOW, align=str(encoder), conditional=False).build()
    assert "alignment" in run.objective(run.model, run.batches(0)).metrics


@pytest.mark.parametrize("align", ["encoder", "dispersive"])
def test_an_alignment_ends_after_the_given_number_of_batches(align: str, encoder: Path, tmp_path: Path):
    recipe = replace(FLOW, align=str(encoder) if align == "encoder" else align, align_until=3)
    run = recipe.build()
    values = [float(run.objective(run.model, run.batches(number)).metrics["alignment"]) for number in range(5)]
    assert [value != 0 for value in values] == [True, True, True, False, False]
    loss = run.objective(run.model, run.batches(4))
    loss.value.backward()
    assert float(loss.value) == float(loss.metrics["velocity"])
    assert all(p.grad is not None and not p.grad.any() for p in run.objective.parameters())
    fit(recipe, tmp_path / "run")


def test_an_alignment_can_count_more_at_noisy_or_at_clean_times(encoder: Path):
    values: dict[str, float] = {}
    for times in ("all", "noisy", "clean"):
        torch.manual_seed(0)
        run = replace(FLOW, align=str(encoder), align_times=times).build()
        values[times] = float(run.objective(run.model, run.batches(0)).metrics["alignment"])
    assert values["noisy"] + values["clean"] == pytest.approx(2 * values["all"], rel=1e-4)
    assert abs(values["noisy"] - values["clean"]) > 1e-3


def test_the_teacher_of_self_alignment_is_on_the_path_of_the_flow():
    """At t = 1/2 a trigonometric path has weights of 1/sqrt(2), not 1/2."""
    run = replace(FLOW, align="self", path="trigonometric", conditional=False).build()
    align = run.objective.align
    assert isinstance(align, SelfAlignment)
    pair = Pair(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8))
    torch.testing.assert_close(align.later(pair, torch.tensor([0.5]))[0], torch.full((1, 1, 8, 8), 2**0.5))


@pytest.mark.slow
def test_a_resumed_run_may_find_its_encoder_elsewhere_but_not_another_one(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fit(replace(FLOW, align=str(encoder)), tmp_path / "run")
    moved = tmp_path / "moved"
    encoder.rename(moved)
    try:
        words = ["generate", "train", "--resume", "--out", str(tmp_path / "run"), "--steps", "6"]
        assert main([*words, "--align", str(moved)]) == 0
    finally:
        moved.rename(encoder)
    fit(replace(SMALL, train=replace(SHORT, seed=1)), tmp_path / "other")
    assert main([*words, "--steps", "8", "--align", str(tmp_path / "other")]) == 2
    assert "encoder does not match" in capsys.readouterr().err
    assert main([*words, "--steps", "8", "--align", "self"]) == 2
    assert "encoder does not match" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "mlp", "align": "self"}, "network mlp: --align needs --network dit"),
        ({"align": "self", "align_layer": 3}, "align_layer 3: the network has 2 blocks"),
        ({"align_weight": -1.0}, "align_weight and align_until must be finite and not negative"),
        ({"align_weight": float("inf")}, "align_weight and align_until must be finite and not negative"),
        ({"align": "self", "train": replace(SHORT, compile=True)}, "--compile has no effect on hidden states"),
        ({"times_std": 0.0}, "times_std must be positive"),
        ({"times_std": 2.0}, "--times-std needs --times logit-normal"),
        ({"align": "self", "align_spatial": True}, "--align self: --align-spatial and --align-times need an encoder"),
        ({"align": "self", "align_times": "noisy"}, "--align self: --align-spatial and --align-times need an encoder"),
        ({"align_until": 5}, "--align-until has no effect without --align; leave it out"),
        (
            {"align": "self", "align_until": -1},
            "align_weight and align_until must be finite and not negative, got 0.5, -1",
        ),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        replace(FLOW, **settings)  # pyright: ignore[reportArgumentType]


def test_unusable_data_and_encoders_are_one_sentence(encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    np.save(tmp_path / "points.npy", np.random.default_rng(0).standard_normal((50, 3)))
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8))

    def error(*words: str) -> str:
        assert main(["generate", *words, "--out", str(tmp_path / "run")]) == 2
        return capsys.readouterr().err

    assert "are not images" in error("pretrain", "--data", str(tmp_path / "points.npy"))
    images = ["--data", str(tmp_path / "images.npy")]
    assert "use --method contrastive" in error("pretrain", *images, "--method", "classes")
    assert "was trained on other data" in error("train", *images, "--network", "dit", "--align", str(encoder))
    assert "choose none, self, dispersive, or a directory" in error(
        "train", "--network", "dit", "--align", str(tmp_path / "nothing")
    )
    assert "holds a run of encoder, not of generate" in error("reflow", str(encoder))


def test_the_standard_deviation_of_logit_normal_times_reaches_the_loss():
    drawn = []
    for std in (0.5, 2.0):
        torch.manual_seed(0)
        times = replace(FLOW, times="logit-normal", times_std=std).objective().times(torch.zeros(1000, 2))
        drawn.append(float(torch.logit(times.double()).std()))
    assert drawn == pytest.approx([0.5, 2.0], rel=0.05)


@pytest.mark.slow
def test_the_command_trains_an_encoder_that_classifies(tmp_path: Path):
    flags = ["--method", "classes", "--batch-size", "64", "--steps", "250", "--threads", "1"]
    assert main(["generate", "pretrain", *flags, "--out", str(tmp_path / "run")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["held-out accuracy"] > 0.9

"""What is learned from, judged and figured out, by formulas: with no labels, with some, and of which images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.digits import write_digits
from tests.unit.representation.conftest import lively
from workers.engine import rng
from workers.families.base import Placement, TrainState
from workers.families.representation.config import MaeConfig, VaeConfig
from workers.families.representation.data import Batch, flipped, judging_labels, to_unit
from workers.families.representation.mae import Mae
from workers.families.representation.patches import moments, seen_first, to_patches
from workers.families.representation.vae import Vae, VaeNetwork, cross_entropy, divergence, entropy

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)
Digits = Callable[[str], Path]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    """Return what stores a few digits, as `images` without classes or with them."""
    built: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in built:
            directory = tmp_path_factory.mktemp(family)
            (directory / "canonical").mkdir()
            folder = write_digits(directory / "in", size=8, train=9, val=5, classes=3)
            if family == "images":
                for file in sorted(folder.glob("*/*/*.png")):
                    file.rename(file.parent.parent / f"{file.parent.name}-{file.name}")
            import_folder(folder, directory / "canonical", source_format=None, family=family, limits=ImportLimits())
            built[family] = directory / "canonical"
        return built[family]

    return get


def vae(digits: Digits, family: str = "classification", **sections: dict[str, Any]) -> tuple[Vae, TrainState]:
    return begun(Vae(config_of(VaeConfig, sections), digits(family)))


def mae(digits: Digits, family: str = "images", **sections: dict[str, Any]) -> tuple[Mae, TrainState]:
    return begun(Mae(config_of(MaeConfig, sections), digits(family)))


def config_of(kind: Any, sections: dict[str, dict[str, Any]]) -> Any:
    document = kind.preset("tiny").model_dump(mode="json")
    return kind.model_validate(document | {name: document[name] | section for name, section in sections.items()})


def begun(recipe: Any) -> tuple[Any, TrainState]:
    rng.seed_all(0)
    state = recipe.build(CPU)
    lively(state.modules["network"])
    return recipe, state


def first(recipe: Any, step: int = 0) -> Batch:
    batch: Batch = recipe.to_device(recipe.train_batches().batch(step), CPU)
    return batch


class Answers(nn.Module):
    """Stands for a masked autoencoder: finds what it is told to, whatever it sees."""

    def __init__(self, found: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.found = found

    def forward(self, images: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
        del seen
        return self.found(to_patches(images, 2), hidden)


# --- vae


def test_a_vae_learns_from_pixels_at_a_draw_and_from_beta_times_the_divergence(digits: Digits) -> None:
    recipe, state = vae(digits, loss={"beta": 3.0})
    network, batch = state.modules["network"], first(recipe)
    assert isinstance(network, VaeNetwork)

    found = recipe.losses(network, batch, CPU)

    mean, log_variance = network.encode(batch.images)
    logits = network.decode(mean + log_variance.exp().sqrt() * batch.noise)
    reconstruction = (cross_entropy(logits, batch.images) - entropy(batch.images)).mean()
    torch.testing.assert_close(found["reconstruction"], reconstruction)
    torch.testing.assert_close(found["kl"], 3 * divergence(mean, log_variance).mean())
    assert float(reconstruction.detach()) > 0


def test_noise_is_normal_and_another_at_each_step(digits: Digits) -> None:
    recipe, _ = vae(digits, model={"latent_size": 500})

    noise, later = first(recipe, 0).noise, first(recipe, 1).noise

    assert float(noise.mean()) == pytest.approx(0, abs=0.1)
    assert float(noise.std()) == pytest.approx(1, abs=0.1)
    assert not torch.equal(noise, later)
    assert torch.equal(noise, first(recipe, 0).noise)


def test_the_bound_counts_the_divergence_once_whatever_beta_is_and_is_the_same_each_time(digits: Digits) -> None:
    recipe, state = vae(digits, loss={"beta": 7.0}, eval={"batch_size": 2})
    network = state.modules["network"]
    assert isinstance(network, VaeNetwork)

    found, again = recipe.evaluate(state, CPU), recipe.evaluate(state, CPU)

    with torch.no_grad():
        means, log_variances = network.encode(to_unit(recipe._held_out.gather(np.arange(5))))
    kl = float(divergence(means, log_variances).mean())
    assert found == again
    assert found["eval/kl"] == pytest.approx(kl, rel=1e-4)
    assert found["eval/elbo"] == pytest.approx(-(found["eval/reconstruction"] + kl), rel=1e-5)
    # Of all pixels together, at least what they leave open.
    assert found["eval/reconstruction"] > 10
    with torch.no_grad():
        network.mean.weight.zero_()
        network.log_variance.weight.zero_()
    assert recipe.evaluate(state, CPU)["eval/active_units"] == 0


def test_units_count_as_active_by_their_means_not_their_variances(digits: Digits) -> None:
    recipe, state = vae(digits)
    network = state.modules["network"]
    assert isinstance(network, VaeNetwork)
    with torch.no_grad():
        network.mean.weight.zero_()

    assert recipe.evaluate(state, CPU)["eval/active_units"] == 0


def test_sampled_reconstructions_are_of_the_means(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, state = vae(digits, eval={"num_samples": 3})
    network, shown = state.modules["network"], []
    assert isinstance(network, VaeNetwork)
    monkeypatch.setattr(network.decoder, "forward", _noting(network.decoder.forward, shown))

    recipe.sample(state, CPU)

    with torch.no_grad():
        means, _ = network.encode(to_unit(recipe.held_out(3)))
    torch.testing.assert_close(shown[0], means)


def _noting(forward: Callable[[Tensor], Tensor], seen: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def noted(inputs: Tensor) -> Tensor:
        seen.append(inputs.clone())
        return forward(inputs)

    return noted


# --- judged by labels


def test_features_of_images_all_over_the_training_split_are_judged_by_their_own_labels(digits: Digits) -> None:
    recipe, state = vae(digits, eval={"label_images": 3, "batch_size": 2})
    network = state.modules["network"]
    assert isinstance(network, VaeNetwork)

    with torch.no_grad():
        found = recipe.judged_features(network, CPU)
        assert found is not None
        (known, labels), (asked, truth) = found
        places = [0, 4, 8]
        expected = network.encode(to_unit(recipe._judged.gather(np.asarray(places))))[0]
        held_out = network.encode(to_unit(recipe._held_out.gather(np.arange(5))))[0]

    torch.testing.assert_close(known, expected)
    torch.testing.assert_close(asked, held_out)
    assert labels.tolist() == recipe._train.labels[places].tolist()
    assert truth.tolist() == recipe._held_out.records.labels.tolist()


def test_without_classes_nothing_is_judged(digits: Digits) -> None:
    recipe, state = vae(digits, "images")
    labelled, _ = vae(digits)

    assert "eval/knn_accuracy" not in recipe.evaluate(state, CPU)
    assert judging_labels(labelled._train, recipe._held_out.records) is None
    assert recipe.held_out(2).equal(recipe._held_out.gather(np.asarray([0, 4])))


# --- changes


def test_mirrors_turn_left_to_right_as_often_as_asked_for() -> None:
    images = torch.arange(2000 * 6).reshape(2000, 1, 2, 3)
    torch.manual_seed(0)

    found = flipped(images, 0.25)

    is_turned = (found != images).flatten(1).any(1)
    assert 0.2 < float(is_turned.float().mean()) < 0.3
    assert torch.equal(found[is_turned], images[is_turned].flip(3))
    assert torch.equal(flipped(images, 0), images)


def test_bytes_become_numbers_from_0_to_1() -> None:
    assert to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])


def test_crops_are_parts_of_the_stored_image_in_the_network_s_shape(digits: Digits) -> None:
    recipe, _ = mae(digits, data={"stored_size": 16, "crop_scale": (0.1, 0.3)})
    whole, _ = mae(digits)
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(4, -1, -1, -1)
    torch.manual_seed(0)

    cut = recipe.change(images)

    assert cut.shape == (4, 1, 8, 8)
    assert int((cut.flatten(1).amax(1).int() - cut.flatten(1).amin(1).int()).max()) < 200
    assert torch.equal(whole.change(images[:, :, :8, :8]), images[:, :, :8, :8])


# --- mae


def test_a_masked_autoencoder_learns_from_hidden_patches_alone(digits: Digits) -> None:
    recipe, _ = mae(digits)
    batch = first(recipe)
    _, hidden = seen_first(batch.noise, recipe.config.num_seen)
    patches = to_patches(batch.images, 2)

    def spoilt(where: Tensor) -> Tensor:
        network = Answers(lambda wanted, hidden: wanted + 0.5 * (hidden == where)[:, :, None])
        return recipe.errors(network, batch, CPU)

    nothing = recipe.errors(Answers(lambda wanted, hidden: torch.zeros_like(wanted)), batch, CPU)
    torch.testing.assert_close(spoilt(torch.tensor(False)), torch.zeros(len(batch.images)))
    torch.testing.assert_close(spoilt(torch.tensor(True)), torch.full((len(batch.images),), 0.25))
    expected = torch.stack([one[where].square().mean() for one, where in zip(patches, hidden, strict=True)])
    torch.testing.assert_close(nothing, expected)
    found = recipe.losses(Answers(lambda wanted, hidden: torch.zeros_like(wanted)), batch, CPU)
    torch.testing.assert_close(found["hidden"], expected.mean())


def test_with_norm_pix_each_patch_is_to_be_found_less_its_mean_and_over_its_deviation(digits: Digits) -> None:
    recipe, _ = mae(digits, loss={"norm_pix": True})
    batch = first(recipe)

    def right(wanted: Tensor, hidden: Tensor) -> Tensor:
        del hidden
        mean, deviation = moments(wanted)
        return (wanted - mean) / deviation

    torch.testing.assert_close(recipe.errors(Answers(right), batch, CPU), torch.zeros(len(batch.images)))


@pytest.mark.parametrize(("norm_pix", "scale"), [(False, 0.5), (True, 1.0)])
def test_its_figure_is_of_pixels_from_0_to_1_or_of_patches_over_their_deviation(
    norm_pix: bool, scale: float, digits: Digits
) -> None:
    recipe, state = mae(digits, loss={"norm_pix": norm_pix}, eval={"batch_size": 2})

    def off(wanted: Tensor, hidden: Tensor) -> Tensor:
        del hidden
        mean, deviation = moments(wanted)
        return ((wanted - mean) / deviation if norm_pix else wanted) + 0.5

    state.modules["network"] = Answers(off)

    assert recipe.evaluate(state, CPU) == {"eval/masked_mse": pytest.approx((0.5 * scale) ** 2)}


def test_each_held_out_image_hides_the_same_patches_at_every_evaluation(digits: Digits) -> None:
    recipe, state = mae(digits)

    assert recipe.evaluate(state, CPU) == recipe.evaluate(state, CPU)

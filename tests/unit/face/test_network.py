from __future__ import annotations

import pytest
import torch

from workers.families.face.config import Model
from workers.families.face.network import MILLION, Embedder, ServedNetwork
from workers.families.face.siamese import Difference, contrastive_loss


@pytest.mark.parametrize("name", ["small", "resnet18", "mobilenet_v3_small"])
def test_embeddings_have_length_one_and_the_asked_numbers(name: str) -> None:
    embedder = Embedder(Model.model_validate({"name": name, "dim": 24}), 48).eval()

    with torch.inference_mode():
        embeddings = embedder(torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0)))

    assert embeddings.shape == (3, 24)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


def test_the_threshold_travels_with_the_weights_and_survives_bf16() -> None:
    model = Model(name="small", dim=8)
    trained, loaded = ServedNetwork(Embedder(model, 16), 0.437219), ServedNetwork(Embedder(model, 16))
    loaded.load_state_dict(trained.state_dict())

    _, threshold = loaded.to(torch.bfloat16).eval()(torch.zeros(2, 3, 16, 16, dtype=torch.bfloat16))

    assert (threshold.float() / MILLION).tolist() == [[pytest.approx(0.437219)]] * 2


def test_both_siamese_losses_do_not_care_which_face_is_first() -> None:
    first, second = torch.nn.functional.normalize(
        torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)), dim=2
    )
    is_same = torch.tensor([1.0, 0, 1, 0, 1, 0])
    head = Difference()

    torch.testing.assert_close(head(first, second), head(second, first))
    assert contrastive_loss(first, second, is_same, margin=1.0) == contrastive_loss(second, first, is_same, margin=1.0)


def test_the_contrastive_loss_pulls_one_person_together_and_pushes_two_apart_up_to_the_margin() -> None:
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    second = torch.tensor([[0.6, 0.8], [0.6, 0.8], [-1.0, 0.0]])

    found = contrastive_loss(first, second, torch.tensor([1.0, 0.0, 0.0]), margin=1.0)

    distance = (0.4**2 + 0.8**2) ** 0.5
    assert float(found) == pytest.approx((distance**2 + (1 - distance) ** 2 + 0) / 3, rel=1e-5)

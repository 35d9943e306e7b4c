"""A generator behind one real TorchServe: asked over its own address, and by the command line through the API."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import structlog
import torch
from click.testing import CliRunner, Result
from PIL import Image

from services.client.cli import main
from services.core.states import DeploymentState
from tests.builders.gan_bundle import CONCEPT, write_gan_bundle
from tests.builders.gan_networks import LATENT
from tests.integration.client.conftest import Server
from tests.integration.serving.yard import BuiltModel, ServingYard
from tests.stack.identity import admit
from workers.families.base import Instance, InstanceInvalid
from workers.families.latent import draw
from workers.serving.bundle import Parts, read_parts
from workers.serving.form import load_eager

READY = DeploymentState.READY
Answer = Mapping[str, Any]


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> ServingYard:
    return ServingYard(tmp_path_factory.mktemp("yard"))


@pytest.fixture(scope="module")
def model(yard: ServingYard) -> BuiltModel:
    return yard.publish_bundle(write_gan_bundle(yard.root / "faces"), model_id="faces")


@pytest.fixture(scope="module")
def agent(yard: ServingYard, model: BuiltModel) -> Iterator[psutil.Process]:
    yard.deploy("faces", model)
    with yard.agent() as process:
        yard.wait_state("faces", READY)
        yield process


@pytest.fixture(scope="module")
def parts(yard: ServingYard, model: BuiltModel) -> Parts:
    return read_parts(yard.root / "faces")


class Caller:
    """Asks TorchServe, and the same network in this process."""

    def __init__(self, yard: ServingYard, parts: Parts) -> None:
        self._yard, self._parts = yard, parts
        self._network = load_eager(parts.module, memory_format=torch.contiguous_format, device=torch.device("cpu"))

    def send(self, *wishes: Any, **params: Any) -> Any:
        body = json.dumps({"instances": list(wishes), "params": params}).encode()
        return self._yard.predict("faces", body)

    def ask(self, *wishes: Any, **params: Any) -> list[Answer]:
        return list(self.send(*wishes, **params).raise_for_status().json()["predictions"])

    def one(self, **wish: Any) -> Answer:
        return self.ask(wish)[0]

    def here(self, **wish: Any) -> Answer:
        (answer,) = self._parts.handler.predict([Instance(None, wish, {})], self._network)
        assert not isinstance(answer, InstanceInvalid)
        return answer


@pytest.fixture(scope="module")
def caller(yard: ServingYard, parts: Parts, agent: psutil.Process) -> Caller:
    return Caller(yard, parts)


def pixels(encoded: Mapping[str, str]) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(base64.b64decode(encoded["b64"]))) as picture:
        return np.array(picture)


def test_torchserve_answers_the_trainer_s_very_bytes(
    yard: ServingYard, agent: psutil.Process, model: BuiltModel
) -> None:
    answers = [yard.predict("faces", body).raise_for_status().json()["predictions"][0] for body in model.inputs]

    assert answers == list(model.answers)
    assert {"images", "before"} <= {name for answer in answers for name in answer}


def test_the_same_seed_gives_the_same_bytes_whoever_else_asks(caller: Caller) -> None:
    (alone,) = caller.one(seed=3)["images"]
    with ThreadPoolExecutor(8) as pool:
        crowd = list(pool.map(lambda n: caller.one(seed=n % 4, n=1 + n % 3), range(24)))

    shown = [answer["images"][answer["seeds"].index(3)] for answer in crowd if 3 in answer["seeds"]]
    assert len(shown) > 4
    assert all(one == alone for one in shown)


def test_a_walk_ends_exactly_where_it_should(caller: Caller) -> None:
    walked = caller.one(**{"op": "walk", "from": 1, "to": 2, "steps": 6})

    assert [walked["images"][0]] == caller.one(seed=1)["images"]
    assert [walked["images"][-1]] == caller.one(op="decode", z=draw([2], LATENT)[0].tolist())["images"]
    assert walked == caller.here(**{"op": "walk", "from": 1, "to": 2, "steps": 6})


def test_arithmetic_is_that_of_the_latents(caller: Caller) -> None:
    terms = [{"group": [1, 2, 3]}, {"sign": -1, "group": [4, 5, 6]}, {"group": [7, 8, 9]}]
    z = draw(range(1, 10), LATENT).reshape(3, 3, LATENT).mean(1)
    summed = z[0] - z[1] + z[2]

    answer = caller.one(op="arithmetic", terms=terms)

    expected = summed * LATENT**0.5 / summed.norm()
    assert torch.allclose(torch.tensor(answer["z"][0]), expected)
    assert caller.one(op="decode", z=answer["z"])["images"] == answer["images"]
    assert caller.one(op="arithmetic", terms=terms, jitter=0.3, n=5) == caller.here(
        op="arithmetic", terms=terms, jitter=0.3, n=5
    )


def test_ablation_takes_away_what_the_stored_units_draw(caller: Caller, parts: Parts) -> None:
    layer, units = parts.handler.spec.constants["row"]["layers"][-1]

    named = caller.one(op="ablate", seed=5, n=3, concept=CONCEPT)
    every = caller.one(op="ablate", seed=5, n=3, layer=layer, units=list(range(units)))

    assert named["units"] == list(range(0, units, 2))
    assert named["before"] == every["before"] == caller.one(seed=5, n=3)["images"]
    assert named == caller.here(op="ablate", seed=5, n=3, concept=CONCEPT)
    # Without any map of the last hidden layer nothing is drawn.
    assert all((pixels(one) == 128).all() for one in every["after"])
    assert not any((pixels(one) == 128).all() for one in named["after"])


def test_one_bad_wish_spoils_no_other(caller: Caller) -> None:
    good, bad, other = caller.ask({"seed": 1}, {"op": "walk", "from": 1}, {"seed": 2})

    assert bad.keys() == {"error"}
    assert "to is missing: give a seed" in bad["error"]
    assert [good["images"], other["images"]] == [caller.one(seed=1)["images"], caller.one(seed=2)["images"]]


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        pytest.param({"op": "paint"}, "op must be one of", id="an operation nobody knows"),
        pytest.param({"n": 100_000}, "n must be a whole number from 1 to 256", id="too many"),
        pytest.param({"op": "decode", "z": [1e300] * LATENT}, "from -100 to 100", id="a latent out of range"),
        pytest.param({"image": {"b64": "aGk="}}, "takes no image", id="an image"),
        pytest.param({"op": "mix", "coarse": 1, "fine": 2}, "stylegan2", id="styles of a generator without"),
    ],
)
def test_a_bad_wish_alone_is_a_400_with_the_reason(caller: Caller, wish: dict[str, Any], reason: str) -> None:
    response = caller.send(wish)

    assert response.status_code == 400
    assert reason in response.json()["message"]


def test_more_than_a_request_may_draw_is_refused_as_a_whole(caller: Caller) -> None:
    response = caller.send(*[{"n": 256}] * 4)

    assert response.status_code == 400
    assert "send fewer" in response.json()["message"]


class Shell:
    """The command line against an API server over the same database as the agent."""

    def __init__(self, server: Server) -> None:
        self._environment = {"TRAINYARD_SERVER": server.address, "TRAINYARD_TOKEN": server.token}

    def run(self, *arguments: str) -> Result:
        return CliRunner(env=self._environment).invoke(main, ["predict", "faces", *arguments])


@pytest.fixture(scope="module")
def shell(yard: ServingYard, agent: psutil.Process) -> Iterator[Shell]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    server = Server(yard.settings, yard.database)
    server.token = admit(yard.database)
    server.start()
    yield Shell(server)
    server.close()
    structlog.reset_defaults()


def test_the_command_line_asks_without_an_image_and_saves_the_pictures(
    shell: Shell, caller: Caller, tmp_path: Path
) -> None:
    parameters = ("--param", "op=walk", "--param", "from=1", "--param", "to=2", "--param", "steps=4")
    result = shell.run(*parameters, "--out", str(tmp_path / "walk"), "--draw", str(tmp_path / "strip.png"))

    assert result.exit_code == 0, result.output
    walked = caller.one(**{"op": "walk", "from": 1, "to": 2, "steps": 4})
    names = [*(f"001-answer-images-{k:03d}.png" for k in range(4)), "001-answer-sheet.png"]
    assert sorted(path.name for path in (tmp_path / "walk").iterdir()) == names
    for k, one in enumerate(walked["images"]):
        assert (tmp_path / "walk" / names[k]).read_bytes() == base64.b64decode(one["b64"])
    with Image.open(tmp_path / "strip.png") as strip, Image.open(tmp_path / "walk" / names[0]) as one:
        # Four abreast, each under its caption, and small ones enlarged.
        assert strip.width >= 4 * one.width
        assert strip.height < 2 * strip.width / 4
    assert "images: 4 pictures" in result.stdout
    assert len(result.stdout) < 2000


def test_machines_read_the_answer_or_where_its_pictures_are(shell: Shell, tmp_path: Path) -> None:
    plain = json.loads(shell.run("--param", "seed=1", "--json").stdout)["predictions"][0]
    saved = json.loads(shell.run("--param", "seed=1", "--json", "--out", str(tmp_path)).stdout)["predictions"][0]

    picture = base64.b64decode(plain["result"]["images"][0]["b64"])
    assert plain["image"] is None
    assert saved["result"]["images"] == [{"size_bytes": len(picture)}]
    assert Path(saved["saved"][0]).read_bytes() == picture


def test_a_bad_wish_is_told_and_exits_as_a_failure(shell: Shell) -> None:
    result = shell.run("--param", "op=fly")

    assert result.exit_code == 1
    assert "op must be one of sample, decode, walk" in result.stderr

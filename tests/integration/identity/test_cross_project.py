"""Everything one project may try on another: all of it is refused, and nothing is read or written.

Each case is checked where it counts: the rows of every table and the digest of every object are the same
afterwards, no object was opened, no model was asked, and where the guard refuses, no table was.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from services.core.roles import Role
from services.identity.access import ACCESS
from tests.integration.api.failures import Refusal, refused
from tests.integration.identity.conftest import Town
from tests.integration.identity.wire import VALID, Fields, call, field_of, services_by_reflection, texts, with_field
from tests.integration.identity.world import SECRET, Estate
from tests.stack.identity import bearer

CODE = grpc.StatusCode
OURS = sorted(path for path in ACCESS if path.startswith("/trainyard."))
SCOPED = [path for path in OURS if ACCESS[path].names]
LISTS = [path for path in OURS if "/List" in path and ACCESS[path].names]
READS = [path for path in OURS if not ACCESS[path].is_audited]


@dataclass(frozen=True)
class Attempt:
    """A call that red makes; `make` builds it from the estates of red and blue."""

    path: str
    what: str
    make: Callable[[Estate, Estate], Fields]

    def __str__(self) -> str:
        return f"{self.path.rpartition('.')[2]}: {self.what}"


def name_attempts() -> Iterable[Attempt]:
    """Yield every field that carries a name, holding blue's, what blue might have, and ways around the check."""
    for path in SCOPED:
        yield Attempt(path, "all names are blue's", lambda red, blue, p=path: VALID[p](blue))
        for field in ACCESS[path].names:
            for what, change in DISGUISES.items():
                yield Attempt(path, f"{field} is {what}", _named(path, field, change))


def _named(path: str, field: str, change: Callable[[str], str]) -> Callable[[Estate, Estate], Fields]:
    def make(red: Estate, blue: Estate) -> Fields:
        return with_field(VALID[path](red), field, change(field_of(VALID[path](blue), field)))

    return make


DISGUISES: dict[str, Callable[[str], str]] = {
    "blue's": lambda name: name,
    "what blue does not have": lambda name: f"{name}x",
    "reached from red": lambda name: f"projects/red/../{name.removeprefix('projects/')}",
    "blue's behind a slash": lambda name: f"/{name}",
    "blue's in capitals": lambda name: name.replace("projects/blue", "projects/BLUE"),
    "of any project": lambda name: name.replace("projects/blue", "projects/-"),
}


def _job(red: Estate, blue: Estate) -> str:
    return f"projects/red/jobs/{blue.job.rpartition('/')[2]}"


def _child(red: Estate, blue: Estate, kind: str, *, of: str) -> str:
    """Return the name of blue's checkpoint or artifact under a job that red may name."""
    parent = _job(red, blue) if of == "blue" else red.job
    found = blue.checkpoint if kind == "checkpoints" else blue.artifact
    return f"{parent}/{kind}/{found.rpartition('/')[2]}"


def _own(name: str) -> str:
    """Return blue's name as if it were red's."""
    return name.replace("projects/blue/", "projects/red/")


def _model_attempts() -> Iterable[Attempt]:
    models = "/trainyard.v1.ModelService"
    for of in ("blue", "red"):
        make = f"{models}/CreateModelVersion"
        yield Attempt(
            make,
            f"blue's checkpoint of {of}'s job",
            lambda r, b, o=of: {"checkpoint": _child(r, b, "checkpoints", of=o)},
        )
    for method in ("GetModelVersion", "DeleteModelVersion"):
        yield Attempt(f"{models}/{method}", "blue's model", lambda _, b: {"name": _own(b.model_version)})


def id_attempts() -> Iterable[Attempt]:
    """Yield blue's ids under names of red, which only the stores can tell apart."""
    named = ("GetJob", "WatchJob", "CancelJob", "PauseJob", "ResumeJob", "DeleteJob")
    for method, field in {
        **dict.fromkeys(named, "name"),
        "ListCheckpoints": "parent",
        "ListArtifacts": "parent",
    }.items():
        yield Attempt(f"/trainyard.v1.JobService/{method}", "blue's job", lambda r, b, f=field: {f: _job(r, b)})
    for of in ("blue", "red"):
        yield Attempt(
            "/trainyard.v1.JobService/DeleteCheckpoint",
            f"blue's checkpoint of {of}'s job",
            lambda r, b, o=of: {"name": _child(r, b, "checkpoints", of=o)},
        )
    for method in ("DownloadArtifact", "CreateDownloadLink"):
        path = f"/trainyard.v1.ModelService/{method}"
        for of in ("blue", "red"):
            for kind in ("artifacts", "checkpoints"):
                what = f"blue's {kind[:-1]} of {of}'s job"
                yield Attempt(path, what, lambda r, b, k=kind, o=of: {"name": _child(r, b, k, of=o)})
        yield Attempt(path, "blue's model", lambda _, b: {"name": _own(b.model_version), "file": "content.txt"})
        yield Attempt(path, "blue's newest model", lambda _, b: {"name": f"{_own(b.model)}/versions/latest"})
    yield from _model_attempts()
    deployments = "/trainyard.v1.DeploymentService"
    for method in ("GetDeployment", "DeleteDeployment", "UpdateDeployment", "Predict"):
        path = f"{deployments}/{method}"
        yield Attempt(
            path,
            "blue's deployment",
            lambda _, b, p=path: {**VALID[p](b), "name": _own(b.deployment)} | _own_model(p, b),
        )
    for method in ("CreateDeployment", "UpdateDeployment"):
        path = f"{deployments}/{method}"
        yield Attempt(
            path, "blue's model", lambda r, b, p=path: {**VALID[p](r), "model_version": _own(b.model_version)}
        )
    for method in ("GetDataset", "DeleteDataset"):
        yield Attempt(
            f"/trainyard.v1.DatasetService/{method}", "blue's dataset", lambda _, b: {"name": _own(b.dataset)}
        )
    yield from _gallery_attempts()
    create = "/trainyard.v1.JobService/CreateJob"
    yield Attempt(create, "blue's dataset", lambda r, b: {**VALID[create](r), "dataset": _own(b.dataset)})
    yield Attempt(
        create,
        "blue's dataset and its version",
        lambda r, b: {**VALID[create](r), "dataset": _own(b.dataset), "dataset_version": 1},
    )


def _gallery_attempts() -> Iterable[Attempt]:
    galleries = "/trainyard.v1.GalleryService"
    parents = {"EnrolIdentity": "parent", "ListIdentities": "parent"}
    for method in ("GetGallery", "UpdateGallery", "DeleteGallery", *parents, "Verify", "Identify"):
        path, field = f"{galleries}/{method}", parents.get(method, "name")
        yield Attempt(path, "blue's gallery", lambda _, b, p=path, f=field: {**VALID[p](b), f: _own(b.gallery)})
    delete = f"{galleries}/DeleteIdentity"
    person = "blue's identity"
    yield Attempt(delete, f"{person} of blue's gallery", lambda _, b: {"name": _own(b.identity)})
    yield Attempt(
        delete,
        f"{person} of red's gallery",
        lambda r, b: {"name": f"{r.gallery}/identities/{b.identity.rpartition('/')[2]}"},
    )
    reenrol = f"{galleries}/ReenrolGallery"
    yield Attempt(reenrol, "blue's gallery", lambda r, b: {"name": _own(b.gallery), "deployment": r.deployment})
    yield Attempt(reenrol, "blue's deployment", lambda r, b: {"name": r.gallery, "deployment": _own(b.deployment)})
    create = f"{galleries}/CreateGallery"
    yield Attempt(create, "blue's deployment", lambda r, b: {**VALID[create](r), "deployment": _own(b.deployment)})


def _own_model(path: str, blue: Estate) -> Fields:
    return {"model_version": _own(blue.model_version)} if path.endswith("UpdateDeployment") else {}


@pytest.fixture
def unharmed(town: Town) -> Any:
    """Check after a test that nothing was written, no object touched and no model asked."""
    before = town.holdings()
    town.forget()
    yield
    assert town.store.touched == []
    assert town.endpoint.asked == []
    assert town.holdings() == before


def attempt(town: Town, path: str, fields: Fields, token: str) -> Refusal:
    refusal = refused(lambda: call(town.channel, path, fields, bearer(token)))
    assert SECRET not in refusal.message + str(refusal.trailers)
    return refusal


@pytest.mark.parametrize("case", list(name_attempts()), ids=str)
def test_a_name_outside_the_project_is_refused(town: Town, case: Attempt, unharmed: None) -> None:
    fields = case.make(town.red, town.blue)

    refusal = attempt(town, case.path, fields, town.token("red"))

    # What is no name at all, though it may begin like one's own, is the handler's to refuse.
    is_name = not case.what.endswith(("behind a slash", "reached from red"))
    assert refusal.code == (CODE.PERMISSION_DENIED if is_name else CODE.INVALID_ARGUMENT)
    assert not is_name or town.asked_tables == set()


@pytest.mark.parametrize("case", list(id_attempts()), ids=str)
def test_another_projects_ids_name_nothing_in_ones_own(town: Town, case: Attempt, unharmed: None) -> None:
    refusal = attempt(town, case.path, case.make(town.red, town.blue), town.token("red"))

    is_field = case.path.endswith("/CreateJob")
    assert refusal.code == (CODE.INVALID_ARGUMENT if is_field else CODE.NOT_FOUND)


@pytest.mark.parametrize("path", LISTS)
def test_another_projects_page_token_opens_no_page(town: Town, path: str, unharmed: None) -> None:
    (first,) = call(town.channel, path, {**VALID[path](town.blue), "page_size": 1}, bearer(town.token("blue")))
    given = first.next_page_token  # type: ignore[attr-defined]
    question, *key = json.loads(base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)))
    assert question
    assert key

    refusal = attempt(town, path, {**VALID[path](town.red), "page_token": given}, town.token("red"))

    assert refusal.code == CODE.INVALID_ARGUMENT
    assert "page_token" in refusal.violations


@pytest.mark.parametrize("path", [*OURS, *(path for path in ACCESS if path not in OURS)])
@pytest.mark.parametrize(
    "shown",
    [
        "nothing",
        "no token",
        "an unknown token",
        "a wrong secret",
        "a revoked token",
        "an expired token",
        "another scheme",
        "two",
    ],
)
def test_without_a_valid_token_nothing_is_answered(
    town: Town, credentials: dict[str, Any], path: str, shown: str, unharmed: None
) -> None:
    refusal = refused(lambda: call(town.channel, path, VALID[path](town.blue), credentials[shown]))

    assert refusal.code == CODE.UNAUTHENTICATED
    assert refusal.reason == "UNAUTHENTICATED"
    assert town.asked_tables == set()


@pytest.fixture(scope="module")
def credentials(town: Town) -> dict[str, Any]:
    """Ways to show up without a right to; made before anything is compared."""
    blue = town.token("blue")
    return {
        "nothing": (),
        "no token": bearer("let me in"),
        "an unknown token": bearer(f"ty_blue_unknown_{'0' * 64}"),
        "a wrong secret": bearer(blue[:-1] + ("0" if blue[-1] != "0" else "1")),
        "a revoked token": bearer(town.revoked),
        "an expired token": bearer(town.expired),
        "another scheme": (("authorization", f"Basic {blue}"),),
        "two": bearer(blue) * 2,
    }


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUBMITTER])
@pytest.mark.parametrize("path", [path for path in OURS if ACCESS[path].role is not Role.VIEWER])
def test_a_role_that_is_too_low_changes_nothing(town: Town, path: str, role: Role, unharmed: None) -> None:
    if role.covers(ACCESS[path].role):
        # Its fate is the business of other tests; a name of another project is refused whatever the role.
        refusal = attempt(town, path, VALID[path](town.blue), town.token("red", role))
    else:
        refusal = attempt(town, path, VALID[path](town.blue), town.token("blue", role))
        assert f"needs the role {ACCESS[path].role}" in refusal.message

    assert refusal.code == CODE.PERMISSION_DENIED
    assert town.asked_tables == set()


@pytest.mark.parametrize("path", READS)
def test_the_same_calls_are_answered_to_a_viewer_of_the_project(town: Town, path: str, unharmed: None) -> None:
    answer = call(town.channel, path, VALID[path](town.blue), bearer(town.token("blue", Role.VIEWER)))
    town.endpoint.asked.clear()
    town.store.touched.clear()

    assert len(answer) >= 1


@pytest.mark.parametrize("path", LISTS)
def test_lists_without_a_parent_are_of_the_tokens_project(town: Town, path: str, unharmed: None) -> None:
    fields = {} if ACCESS[path].parent else VALID[path](town.red)

    (answer,) = call(town.channel, path, fields, bearer(town.token("red")))

    assert "projects/red/" in texts([answer])
    assert "blue" not in texts([answer])


def test_every_rpc_of_the_server_is_tried_here(town: Town) -> None:
    served = services_by_reflection(town.channel, bearer(town.token("red")))

    assert {path.split("/")[1] for path in VALID} | {"grpc.health.v1.Health"} == served
    assert set(VALID) == set(ACCESS)


def test_a_viewer_sees_no_token_of_the_serving_process_and_two_projects_share_none(town: Town) -> None:
    path = "/trainyard.v1.DeploymentService/GetDeployment"
    for role in Role:
        answer = call(town.channel, path, VALID[path](town.blue), bearer(town.token("blue", role)))

        assert "agent-blue-endpoint-0" in texts(answer)
        assert SECRET not in texts(answer)


REPLAYS = {
    "/trainyard.v1.JobService/CreateJob": "job",
    "/trainyard.v1.DeploymentService/CreateDeployment": "deployment",
    "/trainyard.v1.ModelService/CreateModelVersion": "model_version",
    "/trainyard.v1.GalleryService/CreateGallery": "gallery",
}


@pytest.mark.parametrize("path", sorted(REPLAYS))
def test_a_request_id_of_another_project_finds_nothing_of_it(town: Town, path: str) -> None:
    request_id = "the-same-in-both"

    def create(estate: Estate, project: str) -> Any:
        fields = {**VALID[path](estate), "request_id": request_id}
        # The recipe of these jobs starts from no other weights.
        fields.pop("init_from", None)
        return call(town.channel, path, fields, bearer(town.token(project)))[0]

    blues = create(town.blue, "blue")
    kept = _of_project(town, "blue")

    reds = create(town.red, "red")

    assert getattr(blues, REPLAYS[path]).name.startswith("projects/blue/")
    assert getattr(reds, REPLAYS[path]).name.startswith("projects/red/")
    assert _of_project(town, "blue") == kept


def _of_project(town: Town, project: str) -> list[Any]:
    return sorted((row for table in town.holdings()[0].values() for row in table if project in row), key=repr)


def test_there_are_more_than_a_hundred_attempts() -> None:
    assert len([*name_attempts(), *id_attempts()]) > 150

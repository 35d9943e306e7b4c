"""The table of access against the contract itself: nothing is served or carried that nobody decided about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from services.api.compose import SERVICES
from services.core.roles import Role
from services.identity.access import ACCESS, OPEN

STANDARD = (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)

# Text that names no resource of a project: ids that the handler puts under the request's own parent, words
# of a list, free text, digests, and addresses that the fetcher guards.
PLAIN = {
    "config",
    "dataset_id",
    "deployment_id",
    "display_name",
    "family",
    "file",
    "gallery_id",
    "header.dataset_id",
    "header.display_name",
    "header.family",
    "header.request_id",
    "header.sha256",
    "header.source_url",
    "identity_id",
    "instances.fields",
    "labels.key",
    "labels.value",
    "model_id",
    "page_token",
    "params",
    "preset",
    "reason",
    "recipe",
    "request_id",
}
# A recipe is of no project.
UNSCOPED = {("/trainyard.v1.RecipeService/GetRecipe", "name")}


def rpcs() -> dict[str, Any]:
    """Return every rpc that the server can be asked for, by its path."""
    services = [Default().FindServiceByName(name) for name in SERVICES]
    services += [service for file in STANDARD for service in file.services_by_name.values()]
    return {f"/{one.full_name}/{method.name}": method for one in services for method in one.methods}


def texts(message: Descriptor, path: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the paths of all fields of text in a request."""
    for field in message.fields:
        here = f"{path}{field.name}"
        if field.type == FieldDescriptor.TYPE_STRING:
            yield here
        elif field.message_type is None or depth > 3:
            continue
        elif field.message_type.full_name == "google.protobuf.Struct":
            yield here
        else:
            yield from texts(field.message_type, f"{here}.", depth + 1)


def fields() -> list[tuple[str, str]]:
    ours = {path: method for path, method in rpcs().items() if path.startswith("/trainyard.")}
    return [(path, field) for path, method in ours.items() for field in texts(method.input_type)]


@pytest.mark.parametrize("path", sorted(rpcs()))
def test_somebody_decided_who_may_call(path: str) -> None:
    assert (path in ACCESS) != (path in OPEN), "give it a Rule in services/identity/access.py"


def test_the_table_holds_nothing_that_is_not_served() -> None:
    assert set(ACCESS) <= set(rpcs())


def test_only_health_is_open() -> None:
    assert {path.split("/")[1] for path in OPEN} == {"grpc.health.v1.Health"}


@pytest.mark.parametrize(("path", "field"), fields())
def test_every_text_of_a_request_is_held_to_the_project_or_names_nothing(path: str, field: str) -> None:
    is_scoped = field in ACCESS[path].names

    assert is_scoped or field in PLAIN or (path, field) in UNSCOPED, "does it name a resource? then add it to the Rule"
    assert not (is_scoped and field in PLAIN)


@pytest.mark.parametrize("path", sorted(path for path in ACCESS if path.startswith("/trainyard.")))
def test_fields_of_rules_exist(path: str) -> None:
    rule = ACCESS[path]

    assert set(rule.names) <= set(texts(rpcs()[path].input_type))
    assert not rule.parent or rule.parent in rule.names


@pytest.mark.parametrize("path", sorted(path for path in ACCESS if path.startswith("/trainyard.")))
def test_viewers_change_nothing_and_changes_are_recorded(path: str) -> None:
    verbs = ("Create", "Update", "Delete", "Cancel", "Pause", "Resume", "Enrol", "Reenrol")
    changes = path.split("/")[2].startswith(verbs)
    # A link to bytes that the caller may read anyway changes nothing.
    changes = changes and not path.endswith("/CreateDownloadLink")

    assert (ACCESS[path].role is not Role.VIEWER) == changes
    assert ACCESS[path].is_audited or not changes


def test_roles_cover_those_below() -> None:
    covers = {(a, b): a.covers(b) for a in Role for b in Role}

    assert {pair for pair, does in covers.items() if not does} == {
        (Role.VIEWER, Role.SUBMITTER),
        (Role.VIEWER, Role.ADMIN),
        (Role.SUBMITTER, Role.ADMIN),
    }

"""What images are built from: named bases, packages by hash, no addresses, no root; and all of them without a registry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.stack.minio import MODULE
from tests.unit.deploy.test_compose_file import SERVICES, default

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.rglob("Dockerfile"))
SCRIPTS = [*DOCKERFILES, *DEPLOY.rglob("*.sh"), DEPLOY / "trainyard" / "answers", ROOT / "compose.yaml"]
# It only lends its files to a build.
BUILD_ONLY = {DEPLOY / "offline" / "golang" / "Dockerfile"}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a Dockerfile, its continued lines joined."""

    word: str
    rest: str


def instructions(path: Path) -> Iterator[Instruction]:
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word:
            yield Instruction(word, rest)


def stages(path: Path) -> dict[str, list[Instruction]]:
    """Return the instructions of each stage by its name; the last one without a name is called `final`."""
    found: dict[str, list[Instruction]] = {}
    name = ""
    for one in instructions(path):
        if one.word == "FROM":
            name = one.rest.partition(" AS ")[2] or "final"
            found[name] = []
        if name:
            found[name].append(one)
    return found


def targets(path: Path) -> dict[str, list[Instruction]]:
    """Return the stages that become images: those that no other stage starts from or copies from."""
    text, every = path.read_text(), stages(path)
    return {name: body for name, body in every.items() if not re.search(rf"(FROM |from=){name}\b", text)}


def ids(path: Path) -> str:
    return str(path.relative_to(DEPLOY).parent)


@pytest.mark.parametrize("path", DOCKERFILES, ids=ids)
def test_a_base_is_an_argument_or_a_stage_and_names_its_release(path: Path) -> None:
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", path.read_text(), re.MULTILINE))

    for name, body in stages(path).items():
        base = body[0].rest.partition(" ")[0]
        assert base in stages(path) or base.strip("${}") in arguments, name
    assert arguments["BASE"] == "debian:bookworm-slim"
    assert all(
        tag not in ("", "latest") for tag in (value.partition(":")[2] for value in arguments.values() if ":" in value)
    )


@pytest.mark.parametrize("path", sorted({*DOCKERFILES} - BUILD_ONLY), ids=ids)
def test_an_image_does_not_run_as_root(path: Path) -> None:
    assert targets(path)
    for name, body in targets(path).items():
        users = [one.rest for one in body if one.word == "USER"]
        assert users, f"{name} names no user"
        assert int(users[-1].split(":")[0]) > 0


@pytest.mark.parametrize("path", DOCKERFILES, ids=ids)
def test_nothing_is_added_from_an_address(path: Path) -> None:
    assert [one for one in instructions(path) if one.word == "ADD"] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_names_a_registry_or_a_mirror(path: Path) -> None:
    addresses = re.findall(r"(?:https?|redis|postgresql)://[^\s'\"]+", path.read_text())

    # Parts of the platform, and variables, may be named.
    assert [one for one in addresses if not re.match(r"\w+://(127\.0\.0\.1|\$|trainyard:\$|:\$)", one)] == []
    assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host|GOPROXY=http", path.read_text())


@pytest.mark.parametrize("path", DOCKERFILES, ids=ids)
def test_every_python_package_is_checked_by_its_hash(path: Path) -> None:
    runs = [one.rest for one in instructions(path) if one.word == "RUN"]
    installs = [part for run in runs for part in re.split(r"&&", run) if re.search(r"pip install|uv build", part)]

    for install in installs:
        is_own_wheel = "--offline --no-deps" in install and install.rstrip().endswith("/tmp/wheel/*.whl")
        assert "--require-hashes" in install or is_own_wheel, install


@pytest.mark.parametrize("path", DOCKERFILES, ids=ids)
def test_packages_of_debian_bring_no_company_and_leave_no_lists(path: Path) -> None:
    for name, body in stages(path).items():
        for one in body:
            if one.word == "RUN" and "apt-get install" in one.rest:
                assert "--no-install-recommends" in one.rest
                assert name == "tools" or "rm -rf /var/lib/apt/lists/*" in one.rest, name


def test_requirements_of_every_image_are_locked() -> None:
    used = set(re.findall(r"requirements/(\w+\.txt)", (DEPLOY / "trainyard" / "Dockerfile").read_text()))
    locked = set(re.findall(r"-o requirements/(\w+\.txt)", (ROOT / "Makefile").read_text()))

    assert used
    assert used <= locked
    for name in used:
        text = (ROOT / "requirements" / name).read_text()
        assert re.findall(r"^(?!\s)\S+==\S+ \\$", text, re.MULTILINE), name
        assert not re.search(r"^(?!\s)[^=\n]+==\S+$", text, re.MULTILINE), name


def test_the_image_of_the_api_is_built_without_torch() -> None:
    api = (ROOT / "requirements" / "api.txt").read_text()

    assert not re.search(r"^(torch|torchvision|nvidia-)", api, re.MULTILINE)


def test_minio_is_the_one_that_tests_run() -> None:
    assert f"ARG MODULE={MODULE}\n" in (DEPLOY / "minio" / "Dockerfile").read_text()


def test_the_offline_build_makes_every_image_that_compose_starts_but_grafana() -> None:
    build = (DEPLOY / "offline" / "build.sh").read_text()
    images = (DEPLOY / "images.sh").read_text()
    stand_ins = dict(re.findall(r"\[(\w+)\]=(\S+?)[ )]", build))
    own = re.search(r"set -- (.+)$", images, re.MULTILINE)
    assert own is not None
    made = {*stand_ins.values(), *(f"trainyard/{name}:0.1.0" for name in own[1].split())}

    named = {default(spec["image"]) for name, spec in SERVICES.items() if "dashboards" not in spec.get("profiles", ())}

    assert made == named
    assert all((DEPLOY / "offline" / name / "Dockerfile").exists() for name in stand_ins)
    assert "\ndeploy/images.sh\n" in build


def test_the_build_context_holds_no_secret_and_no_environment() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()

    assert "*" in ignored
    assert not {line for line in ignored if line.startswith("!") and re.search(r"secrets|\.env|\.git|tests", line)}


def test_stand_ins_are_built_from_their_own_folders() -> None:
    for path in sorted((DEPLOY / "offline").glob("*/Dockerfile")):
        for one in instructions(path):
            if one.word == "COPY" and path not in BUILD_ONLY:
                source = one.rest.split()[-2]
                assert (path.parent / source).exists(), source


def test_manifests_say_the_same_version_as_the_package() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None

    overlay = yaml.safe_load((ROOT / "k8s" / "overlays" / "prod" / "kustomization.yaml").read_text())

    assert {one["newTag"] for one in overlay["images"]} == {version[1]}
    assert default(SERVICES["api"]["image"]) == f"trainyard/api:{version[1]}"

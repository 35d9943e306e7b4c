"""What was typed for each field of a request, so that a person reads of options and files and not of the wire.

Only words for people: `--json` shows the fields as the API has them. A field or a phrase that is not in these
tables is shown as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from services.client.errors import ApiError, FieldViolation

FIELDS: Mapping[str, Mapping[str, str]] = {
    "": {"parent": "--project", "header.parent": "--project"},
    "checkpoints": {"name": "JOB", "parent": "JOB"},
    "datasets": {"name": "DATASET"},
    "datasets import": {
        "dataset_id": "--name",
        "header.dataset_id": "--name",
        "family": "--family",
        "format": "--format",
        "header.format": "--format",
        "header.val_fraction": "--val-fraction",
        "header.source_url": "PATH|URL",
    },
    "deploy": {"name": "MODEL", "deployment_id": "--name", "model_version": "MODEL", "workers": "--workers"},
    "deployments": {"name": "DEPLOYMENT"},
    "galleries": {"name": "GALLERY"},
    "galleries create": {"gallery_id": "GALLERY", "deployment": "--deployment"},
    "galleries enrol": {
        "parent": "GALLERY",
        "identity_id": "IDENTITY",
        "display_name": "--name",
        "images": "IMAGES",
        "replace_existing": "--replace",
    },
    "galleries enrol-folder": {"parent": "GALLERY"},
    "galleries identify": {"top_k": "--top", "threshold": "--threshold"},
    "galleries identities": {"parent": "GALLERY"},
    "galleries reenrol": {"deployment": "--deployment"},
    "galleries remove": {"name": "IDENTITIES"},
    "galleries verify": {"identity_id": "--identity", "threshold": "--threshold"},
    "jobs": {"name": "JOB"},
    "jobs artifacts": {"parent": "JOB"},
    "jobs submit": {
        "recipe": "RECIPE",
        "dataset": "--dataset",
        "dataset_version": "--dataset-version",
        "preset": "--preset",
        "config": "--set",
        "config.": "--set ",
        "resources.resource_class": "--resources",
        "resources.processes": "--processes",
        "init_from": "--init-from",
        "model_id": "--model",
        "display_name": "--title",
        "priority": "--priority",
    },
    "jobs watch": {"after_seq": "--after"},
    "models": {"name": "MODEL"},
    "models create": {"checkpoint": "CHECKPOINT", "parent": "--model"},
    "models list": {"parent": "--model"},
    "predict": {"name": "DEPLOYMENT"},
}
"""By command, the option or argument of each field; those of a group are for all its commands, those of '' for
every one. A field that ends in a dot stands for all that begins with it.
"""

PHRASES: Mapping[str, Mapping[str, str]] = {
    "galleries enrol": {"set replace_existing": "add --replace"},
    "jobs resume": {
        "create a model version of a checkpoint of it, or a job that starts from one by init_from": (
            "`trainyard models create JOB/best` keeps what it learned, and"
            " `trainyard jobs submit ... --init-from JOB/best` starts from it where the recipe allows"
        ),
    },
    "jobs submit": {
        "set resources.resource_class to GPU": "say --resources gpu",
        "projects/{project}/models/{model}/versions/{version}": "MODEL/VERSION",
        "projects/{project}/jobs/{job}/checkpoints/{checkpoint}": "JOB/CHECKPOINT",
        "projects/{project}/datasets/{dataset}": "datasets/DATASET",
    },
    "predict": {
        'send its bytes as the body, or {"image": {"b64": "<base64>"}}': "name the file of one as IMAGE",
        'send fields, such as {"instances": [{"op": "sample", "seed": 1}]}': (
            "leave it out and say what to draw with --param, such as --param n=8"
        ),
        'this model reads text, no image: send {"instances": [{"text": "..."}]}': (
            "this model reads text, no image: leave it out and say --text 'WORDS'"
        ),
        "unknown parameter ": "unknown --param ",
    },
}
"""By command, what its messages say of the wire, and the same of the command line."""

# What is quoted is what somebody typed, and words with a slash are paths.
_QUOTED = r"(?<!\w)(?:'[^']*'|\"[^\"]*\")(?!\w)"
_WORD = re.compile(_QUOTED + r"|(?<![\w'\"/.-])[a-z]\w*+(?:\.\w+)*+(?![\w'\"/-])")
_IS_FIELD = re.compile(r"\w*[_.][\w.]*")
_INSTANCE = re.compile(r"\binstance (\d+): ")
_STORED = re.compile(
    _QUOTED
    + r"|projects/[\w-]+/(?:models/(?P<model>[\w-]+)/versions|jobs/(?P<job>[\w-]+)/checkpoints)/(?P<last>[\w-]+)"
)
_MOST_FILES = 3


def as_typed(error: ApiError, command: str) -> ApiError:
    """Return an error with the options and arguments of a command, such as `jobs submit`, in the place of fields."""
    # The fields of this one are places in the data, and a folder may be called anything.
    if error.reason == "INVALID_DATASET":
        return error
    fields, phrases = _of(FIELDS, command), _of(PHRASES, command)
    violations = [
        FieldViolation(_typed(each.field, fields), _text(each.description, fields, phrases))
        for each in error.violations
    ]
    return error.restated(_text(error.message, fields, phrases), violations)


def of_files(error: ApiError, files: Mapping[str, Path | str]) -> ApiError:
    """Return an error with the files that it is about; `files` has them by their fields, in the order they were sent.

    A text stands for itself, as it is to be called.

    What a model refuses comes without a field: it tells the instances by number, or is about every one.
    """
    if error.code != "INVALID_ARGUMENT" or not files:
        return error
    if not error.violations:
        return error.restated(_of_instances(error.message, list(files.values())))
    return error.restated(
        error.message, [FieldViolation(_file(each.field, files), each.description) for each in error.violations]
    )


@contextmanager
def sending(files: Mapping[str, Path | str]) -> Iterator[None]:
    """Name the files where what is sent in this block is refused for them."""
    try:
        yield
    except ApiError as err:
        if (named := of_files(err, files)) is err:
            raise
        raise named from err


def by_field(field: str, files: Sequence[Path | str]) -> dict[str, Path | str]:
    """Return files by their places in a repeated field."""
    return {f"{field}[{number}]": path for number, path in enumerate(files)}


def _of(table: Mapping[str, Mapping[str, str]], command: str) -> dict[str, str]:
    group = command.partition(" ")[0]
    return {**table.get("", {}), **table.get(group, {}), **table.get(command, {})}


def _typed(field: str, fields: Mapping[str, str]) -> str:
    if field in fields:
        return fields[field]
    root = next((key for key in fields if key.endswith(".") and field.startswith(key)), None)
    return field if root is None else fields[root] + field.removeprefix(root)


def _text(text: str, fields: Mapping[str, str], phrases: Mapping[str, str]) -> str:
    for wire, typed in phrases.items():
        text = text.replace(wire, typed)
    text = _STORED.sub(_label, text)
    # A plain word, such as `priority`, may be meant as one.
    return _WORD.sub(lambda word: _typed(word[0], fields) if _IS_FIELD.fullmatch(word[0]) else word[0], text)


def _label(name: re.Match[str]) -> str:
    """Return `model/3` or `job/checkpoint` for a full name, and what is quoted as it is."""
    owner = name["model"] or name["job"]
    return f"{owner}/{name['last']}" if owner else name[0]


def _file(field: str, files: Mapping[str, Path | str]) -> str:
    return next((str(path) for key, path in files.items() if field == key or field.startswith(f"{key}.")), field)


def _of_instances(message: str, files: Sequence[Path | str]) -> str:
    def named(instance: re.Match[str]) -> str:
        number = int(instance[1])
        return f"{files[number]}: " if number < len(files) else instance[0]

    if _INSTANCE.match(message):
        return _INSTANCE.sub(named, message)
    more = f" and {len(files) - _MOST_FILES} more" if len(files) > _MOST_FILES else ""
    return f"{', '.join(map(str, files[:_MOST_FILES]))}{more}: {message}"

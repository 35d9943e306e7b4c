from __future__ import annotations

import hashlib

import pytest

from services.identity import token
from services.identity.token import ParsedToken

SECRET = "s" * 32


def test_a_generated_token_says_its_project_and_hides_its_secret() -> None:
    text = token.generate("red-team")

    parsed = token.parse(text)

    assert parsed is not None
    assert (parsed.project, len(parsed.id)) == ("red-team", 26)
    assert parsed.sha256 == hashlib.sha256(text.rpartition("_")[2].encode()).hexdigest()
    assert text.rpartition("_")[2] not in repr(parsed)


def test_no_two_tokens_share_a_secret() -> None:
    assert len({token.generate("p").rpartition("_")[2] for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Bearer",
        SECRET,
        f"ty_p_id_{'s' * 31}",
        f"ty_p_id_{'s' * 129}",
        f"ty_P_id_{SECRET}",
        f"ty__id_{SECRET}",
        f"ty_p__{SECRET}",
        f"ty_p_ID_{SECRET}",
        f"ty_p_id_{SECRET}_more",
        f" ty_p_id_{SECRET}",
        f"ty_p_id_{SECRET}\n",
        f"ty_p_id_{SECRET}\u00e9",
        f"xx_p_id_{SECRET}",
    ],
)
def test_what_is_no_token_is_not_read_as_one(text: str) -> None:
    assert token.parse(text) is None


def test_an_operator_may_choose_id_and_secret() -> None:
    assert token.parse(f"ty_default_bootstrap_{SECRET}") == ParsedToken(
        "default", "bootstrap", hashlib.sha256(SECRET.encode()).hexdigest()
    )


def test_secrets_are_taken_out_of_what_is_written_down() -> None:
    assert token.redact(f"name {token.generate('p')} end") == "name ty_*** end"

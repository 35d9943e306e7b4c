from __future__ import annotations

from services.core.errors import JobNotFound, RequestInvalid, Violation


def test_the_docstring_is_the_default_message() -> None:
    assert str(JobNotFound()) == "No such job."


def test_a_request_with_many_violations_lists_five_and_counts_the_rest() -> None:
    error = RequestInvalid(violations=[Violation(f"f{i}", "is wrong") for i in range(7)])

    assert "f4: is wrong" in str(error)
    assert "f5" not in str(error)
    assert "2 more" in str(error)

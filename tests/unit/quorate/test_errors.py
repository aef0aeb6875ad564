"""The codes of errors: each class has the code that it is named after."""

from __future__ import annotations

import pytest

from quorate import errors
from quorate.v1.common_pb2 import Error, ErrorCode

WITHOUT_A_CLASS = {"ERROR_CODE_NONE", "ERROR_CODE_UNKNOWN"}


@pytest.mark.parametrize("name", sorted(set(ErrorCode.keys()) - WITHOUT_A_CLASS))
def test_an_error_that_a_peer_sent_has_the_class_that_its_code_is_named_after(name: str) -> None:
    code = ErrorCode.Value(name)
    found = errors.from_wire(Error(code=code, message="why"))
    words = name.removeprefix("ERROR_CODE_").title().replace("_", "")
    assert type(found).__name__.removesuffix("Error") == words.removesuffix("Error")
    assert errors.to_wire(found).code == code


def test_a_class_without_a_code_of_its_own_has_that_of_its_base() -> None:
    assert errors.DeliveryTimeoutError.code == ErrorCode.ERROR_CODE_OUTCOME_UNKNOWN
    assert errors.ClosedError.code == ErrorCode.ERROR_CODE_UNKNOWN


@pytest.mark.parametrize(
    ("error", "retriable", "stale"),
    [
        (errors.CoordinatorNotAvailableError, True, True),
        (errors.NotCoordinatorError, True, True),
        (errors.CoordinatorLoadingError, True, False),
        (errors.UnknownMemberIdError, False, False),
        (errors.FencedMemberEpochError, False, False),
        (errors.StaleMemberEpochError, False, False),
        (errors.UnreleasedInstanceIdError, False, False),
        (errors.NonEmptyGroupError, False, False),
        (errors.GroupSubscribedToTopicError, False, False),
    ],
)
def test_a_group_s_error_says_whether_to_repeat_the_call_and_whether_to_look_for_the_coordinator(
    error: type[errors.QuorateError], retriable: bool, stale: bool
) -> None:
    assert (error.retriable, error.stale_metadata) == (retriable, stale)


def test_a_member_that_the_group_does_not_know_joins_anew_by_one_class() -> None:
    assert issubclass(errors.UnknownMemberIdError, errors.NotMemberError)
    assert issubclass(errors.FencedMemberEpochError, errors.NotMemberError)
    assert not issubclass(errors.StaleMemberEpochError, errors.NotMemberError)


def test_a_traceback_names_each_error_as_programs_import_it() -> None:
    classes = {
        found
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, errors.QuorateError)
    }
    assert {found.__module__ for found in classes} == {"quorate.errors"}
    assert all(getattr(errors, found.__name__) is found for found in classes)

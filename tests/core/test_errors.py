"""The table of failures: class, code, exit status, HTTP status, retry. Programs rely on every cell."""

from __future__ import annotations

import signal

import pytest

from reelwright.core.errors import (
    AttemptError,
    BackendUnavailableError,
    BusyError,
    Cancelled,
    ConfigurationError,
    Failure,
    GenerationTimeoutError,
    InvalidInputError,
    ModelNotFoundError,
    OutOfMemoryError,
    OutputError,
    Retry,
    StateError,
    VideoGenerationError,
    error_for,
)

TABLE = [
    ("INPUT", InvalidInputError, 10, 400, Retry.NEVER),
    ("CONFIG", ConfigurationError, 11, 400, Retry.NEVER),
    ("MODEL", ModelNotFoundError, 12, 503, Retry.NEVER),
    ("ENV", BackendUnavailableError, 13, 503, Retry.NEVER),
    ("OOM_GPU", OutOfMemoryError, 20, 500, Retry.LADDER),
    ("OOM_HOST", OutOfMemoryError, 21, 500, Retry.NEVER),
    ("TIMEOUT", GenerationTimeoutError, 22, 504, Retry.LADDER),
    ("HANG", AttemptError, 23, 504, Retry.SAME),
    ("CRASH", AttemptError, 24, 500, Retry.SAME),
    ("OUTPUT", OutputError, 25, 500, Retry.LADDER),
    ("NCCL", AttemptError, 26, 500, Retry.SAME),
    ("PORT", AttemptError, 27, 500, Retry.SAME),
    ("FRAMEWORK", AttemptError, 28, 500, Retry.LADDER),
    ("DISK", BackendUnavailableError, 30, 507, Retry.NEVER),
    ("PERM", BackendUnavailableError, 31, 403, Retry.NEVER),
    ("EXISTS", InvalidInputError, 32, 409, Retry.NEVER),
    ("BUSY", BusyError, 33, 409, Retry.NEVER),
    ("STATE", StateError, 34, 500, Retry.NEVER),
    ("INTERNAL", StateError, 70, 500, Retry.NEVER),
    ("CANCELLED", Cancelled, 130, 499, Retry.NEVER),
]


@pytest.mark.parametrize(("code", "kind", "exit_status", "http_status", "retry"), TABLE)
def test_each_failure_has_its_class_statuses_and_retry(
    code: str, kind: type[VideoGenerationError], exit_status: int, http_status: int, retry: Retry
) -> None:
    failure = Failure[code]
    error = error_for(failure, "what happened")
    assert type(error) is kind
    assert (error.code, error.exit_status) == (code, exit_status)
    assert (failure.http_status, failure.retry) == (http_status, retry)


def test_the_table_is_complete() -> None:
    assert [row[0] for row in TABLE] == [failure.name for failure in Failure]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_stop_by_a_signal_has_the_shells_exit_status(number: int, status: int) -> None:
    assert Cancelled(signal_number=number).exit_status == status


def test_a_class_cannot_carry_the_code_of_another() -> None:
    with pytest.raises(TypeError):
        InvalidInputError("x", failure=Failure.DISK)


def test_the_message_defaults_to_the_classs_meaning() -> None:
    assert BusyError().message == "The GPUs are in use by another run."


def test_the_error_object_has_the_four_promised_fields() -> None:
    error = InvalidInputError("cut off", evidence=["line"], advice="again")
    assert error.to_json() == {"code": "INPUT", "message": "cut off", "evidence": ["line"], "advice": "again"}

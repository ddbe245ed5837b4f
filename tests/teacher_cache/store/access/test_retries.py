"""Which failures are tried again, how often, after which pauses, and what is reported in the end."""

import pytest
from medalign.errors import StoreError
from medalign.teacher_cache.store.access import connection
from medalign.teacher_cache.store.access.connection import Connection
from medalign.teacher_cache.store.access.server_limits import Budget, Limits


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """The pauses that were made; none takes time."""
    made: list[float] = []
    monkeypatch.setattr("time.sleep", made.append)
    return made


class Failing:
    """Work that fails with these errors in turn, then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_pauses_grow_and_the_result_is_returned(pauses):
    work = Failing(ConnectionError("reset"), TimeoutError(), OSError("odd"))
    there = Connection("memory://lab/store.zarr")
    assert there.patiently("zarr.json", work) == "done"
    assert (work.calls, pauses) == (4, [0.2, 1.0, 4.0])
    assert (there.budget.answered, there.budget.repeated) == (1, 3)


def test_the_fifth_attempt_is_not_made(pauses):
    work = Failing(*(ConnectionError(f"reset {number}") for number in range(9)))
    with pytest.raises(StoreError, match=r"does not respond \(zarr.json, 4 attempts in 0 s\): reset 3\. Check"):
        Connection("memory://lab/store.zarr").patiently("zarr.json", work)
    assert (work.calls, pauses) == (4, [0.2, 1.0, 4.0])


def test_all_requests_share_a_number_of_retries(pauses, monkeypatch):
    monkeypatch.setattr(connection, "LIMITS", Limits(repeats=4, repeats_share=0.0))
    there = Connection("memory://lab/store.zarr")
    with pytest.raises(StoreError, match="4 attempts in"):
        there.patiently("one", Failing(*[ConnectionError("reset")] * 9))
    with pytest.raises(StoreError, match="2 attempts in"):
        there.patiently("two", Failing(*[ConnectionError("reset")] * 9))
    assert there.budget.repeated == 4
    assert pauses == [0.2, 1.0, 4.0, 0.2]


def test_no_time_is_left(pauses, monkeypatch):
    monkeypatch.setattr(connection, "LIMITS", Limits(command=0.0))
    with pytest.raises(StoreError, match="is too slow") as raised:
        Connection("memory://lab/store.zarr").patiently("zarr.json", Failing(ConnectionError("reset")))
    assert isinstance(raised.value.__cause__, ConnectionError)
    assert pauses == []


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (FileNotFoundError("zarr.json"), FileNotFoundError),
        (PermissionError("no"), StoreError),
        (StoreError("known"), StoreError),
        (NotImplementedError(), NotImplementedError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_what_cannot_change_is_not_tried_again(error, raised, pauses):
    work = Failing(error)
    with pytest.raises(raised):
        Connection("memory://lab/store.zarr").patiently("zarr.json", work)
    assert (work.calls, pauses) == (1, [])


@pytest.mark.parametrize(("left", "attempts"), [(1.0, 3), (0.5, 3), (1e-9, 3), (0.0, 1), (-1.0, 1)])
def test_a_request_is_tried_again_while_any_time_is_left(left, attempts, pauses, monkeypatch):
    monkeypatch.setattr(Budget, "left", lambda _: left)
    work = Failing(ConnectionError("reset"), ConnectionError("reset"))
    if attempts == 1:
        with pytest.raises(StoreError, match="is too slow"):
            Connection("memory://lab/store.zarr").patiently("zarr.json", work)
    else:
        assert Connection("memory://lab/store.zarr").patiently("zarr.json", work) == "done"
    assert (work.calls, len(pauses)) == (attempts, attempts - 1)

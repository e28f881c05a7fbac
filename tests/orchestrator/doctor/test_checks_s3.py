"""What the doctor says about a root in an object store."""

from orchestrator.doctor.checks import check_root
from orchestrator.storage.open import open_root
from orchestrator.storage.s3_storage import storage_of
from tests.support.s3.session import Store


def test_a_bucket_in_which_locks_hold_works_and_nothing_is_left(store: Store) -> None:
    check = check_root(open_root(store.url))

    assert (check.state, check.name) == ("works", "bucket"), check
    assert "locks hold" in check.text
    assert not storage_of(store.url).entries()


def test_a_missing_bucket_is_broken_with_its_name(store: Store) -> None:
    check = check_root(open_root("s3://no-such-bucket/x"))

    assert check.state == "broken"
    assert "no-such-bucket does not exist" in check.text

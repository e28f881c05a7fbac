"""A launch that joins a Ray of several machines, of which one is lost and another one comes."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from datasets.storage.s3 import Calls
from tests.support.lab import KL, LONGEST_SECONDS, Lab
from tests.support.ray.machines import Machines, running_machines
from tests.support.s3.ceph import shared_box, surroundings
from tests.support.s3.faults import Proxy

pytestmark = [pytest.mark.ray, pytest.mark.long]
Weights = dict[str, tuple[str | None, float | None]]


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """The head alone."""
    with running_machines() as machines, pytest.MonkeyPatch.context() as patch:
        for name, value in machines.environment.items():
            patch.setenv(name, value)
        patch.setenv("CLAIM_FRESH_SECONDS", "6")
        yield machines


def finish(lab: Lab, machines: Machines, only: str) -> None:
    """Launch, lose the machine that trains, let another one join."""
    first = machines.joined[-1] if machines.joined else machines.add(cpus=2)
    launch = lab.start("launch", f"ray_address={machines.address}", f"only={only}")
    lab.worker_at(KL, step=4)
    machines.kill(first)
    second = machines.add(cpus=2)
    text, _ = launch.communicate(timeout=LONGEST_SECONDS)

    assert launch.returncode == 0, text
    hosts = [line["host"] for line in lab.events(KL) if line["event"] == "started"]
    assert hosts == [first, second]


def test_a_lost_and_an_added_machine_do_not_show_in_the_weights(
    long_lab: Lab, undisturbed: Weights, machines: Machines
) -> None:
    finish(long_lab, machines, only="*")

    assert long_lab.weights() == undisturbed


def test_nor_do_they_under_a_bucket(
    long_lab: Lab, undisturbed: Weights, machines: Machines
) -> None:
    with (
        Proxy(shared_box().port, host=machines.host) as proxy,
        surroundings(proxy.port, proxy.host),
    ):
        Calls("machines", 60.0, 20.0).ask("create_bucket")
        lab = replace(long_lab, url="s3://machines/root")
        finish(lab, machines, only="*.kl.*")

        assert lab.weights() == {KL: undisturbed[KL]}


@pytest.mark.parametrize("token", ["", "0" * 64])
def test_a_cluster_that_wants_another_token_is_named_in_words(
    long_lab: Lab, machines: Machines, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)

    text = long_lab.run("launch", f"ray_address={machines.address}", code=20)

    assert "RAY_AUTH_TOKEN" in text
    assert not long_lab.root.exists() or not (long_lab.root / "runs").exists()

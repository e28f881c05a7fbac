"""What a launch shows of its pace."""

import json
from io import StringIO

from rich.console import Console

from orchestrator.display.format import about
from orchestrator.display.screen import Screen
from orchestrator.execution.queue import Queue
from orchestrator.storage.local_root import LocalRoot
from orchestrator.trial import Outcome, Trial

DONE = Outcome("done", attempt=1)


class Launch:
    """A screen with cells whose progress the test writes, as their trainers would."""

    def __init__(self, folder, **work):
        self.root, self.printed = LocalRoot(folder), StringIO()
        console = Console(file=self.printed, width=120, force_terminal=True)
        self.screen = Screen(console, self.root)
        self.screen.expect(work)
        self.trials = {key: Trial(key, "{}", "f", str(folder), "inline", "") for key in work}
        self.queue = Queue(
            list(self.trials.values()), listener=self.screen, give_up=lambda trial, outcome: None
        )

    def stands_at(self, key, step):
        path = self.root.run(key).progress
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"step": step, "total_steps": 100}))

    def start(self, key):
        self.screen.started(self.trials[key])

    def last_line(self):
        console = Console(width=120)
        with console.capture() as captured:
            console.print(self.screen.picture(self.queue))
        return captured.get().splitlines()[-1]


def test_work_is_counted_by_length_and_not_by_cell(tmp_path):
    launch = Launch(tmp_path, long=6.0, short=2.0)

    launch.start("long")
    assert "of the work" not in launch.last_line()
    launch.stands_at("long", 50)
    assert "; 38 % of the work, about " in launch.last_line()

    launch.start("short")
    launch.screen.ended(launch.trials["short"], DONE, retried=False)
    assert "62 % of the work" in launch.last_line()


def test_what_an_earlier_launch_did_is_done_but_says_nothing_of_the_pace(tmp_path):
    launch = Launch(tmp_path, one=1.0, two=1.0)
    launch.stands_at("one", 80)

    launch.start("one")
    assert "of the work" not in launch.last_line()
    launch.stands_at("one", 99)
    assert "50 % of the work" in launch.last_line()


def test_a_cell_that_is_tried_again_is_not_done(tmp_path):
    launch = Launch(tmp_path, one=1.0, two=1.0)
    launch.start("two")
    launch.stands_at("two", 20)

    launch.start("one")
    launch.screen.ended(launch.trials["one"], Outcome("failed", failure="lost"), retried=True)

    assert "10 % of the work" in launch.last_line()


def test_a_rough_duration_has_one_number_and_a_fitting_unit():
    lengths = (0.2, 44.6, 89, 91, 5 * 60 + 20, 2.6 * 3600, 40 * 3600)

    assert [about(seconds) for seconds in lengths] == [
        "2 seconds",
        "45 seconds",
        "89 seconds",
        "2 minutes",
        "5 minutes",
        "3 hours",
        "2 days",
    ]


def test_a_cell_that_publishes_is_said_so_once(tmp_path):
    launch = Launch(tmp_path, one=1.0)
    launch.start("one")
    assert list(launch.screen.news()) == []

    launch.stands_at("one", 50)
    assert len(list(launch.screen.news())) == 1
    launch.stands_at("one", 100)

    assert [line.endswith(", evaluating and publishing") for line in launch.screen.news()] == [True]
    assert list(launch.screen.news()) == []

"""The verbs that read results, through the functions behind the command line."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.commands.verbs import VERBS
from orchestrator.options import joined
from orchestrator.storage.local_root import LocalRoot
from tests.support.lab import CHECKOUT, KL
from tests.support.result_rows import DRAWN, publish_drawn

NUMBER = "drawn-table/ipixmatch-kl/resnet14-w8-1of8"


@pytest.fixture
def words(tmp_path):
    root = LocalRoot(tmp_path)
    publish_drawn(root)
    return [f"root={root.address}"]


def run(verb, words, *, json_wanted=False):
    return VERBS[verb].run(DRAWN, words, json=json_wanted)


def test_flags_with_a_value_become_words():
    assert joined(["tables", "demo", "--explain", "a/b", "--check=p.tex", "--json"]) == [
        "tables",
        "demo",
        "explain=a/b",
        "check=p.tex",
        "--json",
    ]
    with pytest.raises(ValueError, match="--check needs a value"):
        joined(["tables", "demo", "--check"])


def test_tables_prints_the_comparisons_and_names_its_files(words, tmp_path, capsys):
    assert run("tables", words) == 0

    text = capsys.readouterr().out
    assert "IPixMatch (KL) against UniMatch*: +" in text
    assert str(tmp_path / "tables/drawn/drawn_table_numbers.tex") in text


def test_tables_explains_a_number(words, capsys):
    assert run("tables", [*words, f"explain={NUMBER}"]) == 0
    assert "attempt 1: 5" in capsys.readouterr().out

    assert run("tables", [*words, f"explain={NUMBER}"], json_wanted=True) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["rows"][0]["config"]["recipe"] == "synthetic"


def test_tables_checks_a_manuscript(words, tmp_path, capsys):
    run("tables", words)
    paper = tmp_path / "paper.tex"
    paper.write_text(f"\\input{{tables/drawn/drawn_table_numbers}}\\gridnumber{{{NUMBER}}}")

    assert run("tables", [*words, f"check={paper}"]) == 0
    paper.write_text(f"\\gridtyped{{{NUMBER}}}{{99.9}}")
    assert run("tables", [*words, f"check={paper}"]) == 1

    assert "paper.tex:1: stale: drawn-table/ipixmatch-kl" in capsys.readouterr().out


def test_report_names_its_file(words, tmp_path, capsys):
    assert run("report", words) == 0

    assert capsys.readouterr().out.strip() == str(tmp_path / "reports/drawn.html")


def test_query_answers_as_a_table_or_as_json(words, capsys):
    sql = "select loss, count(*) n from counted where seed=12345 group by loss order by loss"

    assert run("query", [*words, sql]) == 0
    assert "cr" in capsys.readouterr().out
    assert run("query", [*words, sql], json_wanted=True) == 0
    assert json.loads(capsys.readouterr().out)[0] == {"loss": "cr", "n": 4}


def test_query_without_a_question_shows_one(words):
    with pytest.raises(ValueError, match=r"query takes one question: .* Views: rows, counted"):
        run("query", words)


def test_export_writes_what_is_asked_for(words, tmp_path, capsys):
    assert run("export", [*words, "to=mlflow"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "exports/drawn/mlflow")
    with pytest.raises(ValueError, match="to=excel: known are csv, tensorboard, mlflow, wandb"):
        run("export", [*words, "to=excel"])


def test_compact_says_what_it_did(words, capsys):
    assert run("compact", words) == 0

    assert "16 files became one of 16 rows" in capsys.readouterr().out


def test_logs_without_a_seed_or_misspelt_name_the_cells_that_may_be_meant(words) -> None:
    key = "synthetic.1of8.resnet14_w8.c64.unimatch_star.kl"
    logs = VERBS["logs"].run

    for wanted in (key, "*.1of8.*.kl.*"):
        with pytest.raises(ValueError, match=rf"named with its seed: .*{key}\.s12345"):
            logs(wanted, words, json=False)
    with pytest.raises(ValueError, match=rf"see `status`. Did you mean .*{key}\.s12345"):
        logs(f"{key.replace('synthetic', 'sintetic')}.s12345", words, json=False)


def test_logs_of_every_rank_are_followed_until_ctrl_c(tmp_path: Path) -> None:
    place = LocalRoot(tmp_path).run(KL)
    place.attempt(2).mkdir(parents=True)
    log = place.log(2)
    log.parent.mkdir()
    log.write_text("first rank\n")
    log.with_name("attempt-0002-rank-0001.log").write_text("second rank\n")
    call = [sys.executable, "-m", "orchestrator", "logs", KL, "-f", f"root={tmp_path}"]

    following = subprocess.Popen(
        call, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert following.stdout is not None
    with following.stdout as out:
        told = [out.readline() for _ in range(4)]
        with log.open("a") as more:
            more.write("later\n")
        told.append(out.readline())
        following.send_signal(signal.SIGINT)
        rest = out.read()

    assert following.wait() == 0
    assert [told[1], told[3], told[4]] == ["first rank\n", "second rank\n", "later\n"]
    assert rest == ""

"""The page of a run, opened and operated in headless Chromium."""

import json

import pytest
from browser import Browser, needs_chromium
from toy import Countdown, all_ways

from monge.apps.prove.search import search
from monge.apps.prove.state import Place
from monge.apps.prove.trajectories import Recorder, Result, table
from monge.apps.prove.tree import Search
from monge.apps.prove.view import page

pytestmark = pytest.mark.slow
HOSTILE = "/*TREES*/null</script><script>document.title='taken'</script><!-- <b>&amp;"


@pytest.fixture
def made(tmp_path):
    """A run with two theorems: 2 is proved, 40 is not. Texts of the second would end the page's script if unescaped."""
    (tmp_path / "settings.json").write_text(json.dumps({"search": {"max_states": 20}, "theorems": ["2", "40"]}))
    outcomes = []
    with Recorder(tmp_path) as recorder:
        for number, (n, nodes) in enumerate(((2, 50), (40, 5))):
            outcome = search(Countdown(n), all_ways, Search(order="breadth", max_states=nodes))
            proof = outcome.proof
            done = Result(
                *(number, f"t{n}", f": {n} = 0 {HOSTILE if number else ''}", "def f := 1\n", ("Init",)),
                ended=outcome.ended,
                statement=f"Eq {n} 0",
                header_notes=("notation",) if number else (),
                explicit=f"@Eq.{{1}} Nat {n} 0",
                instances=("Add Nat is mine",),
                places=(Place("statement", 1, 0, "set.jsonl, line 2, formal_statement", 1, 0),),
                tactics=proof.tactics if proof else None,
                expanded=outcome.expanded,
                attempts=len(outcome.attempts),
            )
            recorder.add(done, table(outcome, run="r", number=number, theorem=done.name, worker="w", seed=0))
            outcomes.append(outcome)
    (tmp_path / "view.html").write_text(page(tmp_path))
    return tmp_path, outcomes


def test_the_page_can_be_clicked_through(made):
    needs_chromium()
    directory, (proved, open_) = made
    with Browser(directory / "view.html") as browser:
        count, text = "document.querySelectorAll({!r}).length".format, "document.querySelector({!r}).textContent".format
        assert browser.run("document.title").endswith("monge prove")
        assert browser.run(count("tr.row")) == 2
        assert "1 of 2" in browser.run(text("#share"))

        browser.run("document.querySelector('tr.row').onclick()")
        assert browser.run(text(".statement")) == "Eq 2 0"
        assert browser.run(text(".explicit")) == "@Eq.{1} Nat 2 0"
        detail = browser.run(text(".detail"))
        assert "Instance from outside the library: Add Nat is mine" in detail
        assert "From set.jsonl, line 2, formal_statement" in detail
        assert browser.run(count(".node.path")) == len(proved.proof.tactics)  # the path of the proof is expanded
        assert proved.proof.tactics[0] in browser.run(text(".copy pre"))
        browser.run("[...document.querySelectorAll('.node.path')].at(-1).click()")
        assert browser.run(text(".after")) == "no goals"
        shown = browser.run(count(".node"))
        browser.run("document.querySelector('.node.rest').click()")
        assert browser.run(count(".node")) > shown
        browser.run("document.querySelector('tr.row').onclick()")
        assert browser.run(count(".detail")) == 0

        browser.run("document.querySelectorAll('tr.row')[1].onclick()")
        assert "notation" in browser.run("document.querySelector('.detail').textContent")
        assert browser.run(count(".node.path")) == 0
        opened = """(() => { for (let turn; turn = [...document.querySelectorAll('.turn')].find((t) => t.textContent === '▸'); )
            turn.click() || turn.parentElement.matches('.rest') && turn.parentElement.click();
            return document.querySelectorAll('.node:not(.rest)').length })()"""
        assert browser.run(opened) == 1 + len(open_.attempts)  # every tactic tried is on the page

        browser.run("document.getElementById('words').value = 't40'; document.getElementById('words').oninput()")
        assert browser.run("[...document.querySelectorAll('tr.row')].filter((r) => !r.hidden).length") == 1
        browser.run("document.getElementById('words').value = ''; document.getElementById('ended').value = 'proved'")
        browser.run("document.getElementById('ended').onchange()")
        assert browser.run("[...document.querySelectorAll('tr.row:not([hidden])')].map((r) => r.theorem.name)") == [
            "t2"
        ]


def test_the_page_is_self_contained(made):
    """No text of a theorem ends a script, and the page fetches nothing."""
    directory, _ = made
    text = (directory / "view.html").read_text()
    assert text.count("<script>") == text.count("</script>") == 1
    assert "http://" not in text
    assert "https://" not in text


def test_there_is_no_page_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run"):
        page(tmp_path)

"""`monge runs` and `monge view` over runs of two applications, in the terminal and in headless Chromium."""

import json
import math
import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from browser import Browser, needs_chromium

from monge.apps.prove.trajectories import Recorder, Result, table
from monge.apps.prove.tree import Outcome
from monge.cli import main
from monge.viewer.cli import age
from monge.viewer.collect import POINTS, curves, describe, runs_in
from monge.viewer.page import page, server

TRAIN = [
    "--data",
    "gaussians",
    "--width",
    "8",
    "--depth",
    "1",
    "--batch-size",
    "16",
    "--warmup-steps",
    "1",
    "--device",
    "cpu",
]
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training runs, one of them evaluated, a search that has finished two of three theorems, and a damaged run."""
    root = tmp_path_factory.mktemp("viewer") / "runs"
    for name, steps in (("first", "4"), ("deeper/second", "6")):
        words = ["generate", "train", *TRAIN, "--steps", steps, "--save-every", "2", "--log-every", "1"]
        assert main([*words, "--out", str(root / name)]) == 0
    assert main(["generate", "evaluate", str(root / "first"), "--solver-steps", "1", "--num-samples", "50"]) == 0
    (root / "search").mkdir()
    texts = {"00000 one": "", "00001 two": "", "00002 three": ""}
    (root / "search/settings.json").write_text(json.dumps({"search": {"seed": 3}, "theorems": {"texts": texts}}))
    with Recorder(root / "search") as recorder:
        for number, tactics in enumerate((("rfl",), None)):
            result = Result(
                number,
                f"t{number} {HOSTILE}",
                ": 1 = 1",
                "",
                ("Init",),
                ended="proved" if tactics else "out of nodes",
                tactics=tactics,
            )
            recorder.add(result, table(Outcome(), run="r", number=number, theorem=result.name, worker="w", seed=0))
    (root / "search/view.html").write_text("<title>trees</title>")
    (root / "damaged").mkdir()
    (root / "damaged/recipe.json").write_text("{")
    return root


def test_every_run_is_listed_with_its_progress_and_best_metric(directory: Path, capsys) -> None:
    assert main(["runs", str(directory)]) == 0
    lines = {line.split()[0].removeprefix(f"{directory}/"): line for line in capsys.readouterr().out.splitlines()[1:]}
    assert lines.keys() == {"first", "deeper/second", "search", "damaged"}
    assert "generate" in lines["first"]
    assert "4/4" in lines["first"]
    assert "6/6" in lines["deeper/second"]
    best = json.loads((directory / "first/checkpoints/step-00000004/state.json").read_text())["best"]
    assert f"held-out loss {best['value']:.4g} at step {best['step']}" in lines["first"]
    assert "prove" in lines["search"]
    assert "2/3" in lines["search"]
    assert "1 of 2, 50.0%" in lines["search"]
    assert "damaged:" in lines["damaged"]


def test_the_latest_run_comes_first(directory: Path) -> None:
    order = [run.updated for run in runs_in(directory)]
    assert order == sorted(order, reverse=True)


def test_a_directory_without_runs_is_an_error(tmp_path: Path, capsys) -> None:
    assert main(["runs", str(tmp_path)]) == 2
    assert "no runs here" in capsys.readouterr().err
    assert main(["view", str(tmp_path / "missing")]) == 2
    assert "no such directory" in capsys.readouterr().err


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    records = [{"step": k, "loss": float(k) if k != 5000 else math.nan} for k in range(1, 10_001)]
    (curve,) = curves(records).values()
    assert len(curve) == POINTS
    assert curve[0] == (1, 1.0)
    assert curve[-1] == (10_000, 10_000.0)
    assert curves([{"step": 1, "loss": math.inf, "note": "x"}]) == {"loss": [(1, None)]}


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (86399, "23 h"), (1e6, "11 d")])
def test_an_age_is_in_its_largest_unit(seconds: float, text: str) -> None:
    assert age(1000.0, 1000.0 + seconds) == text


def test_the_page_holds_every_run_and_escapes_text(directory: Path, tmp_path: Path) -> None:
    text = page(directory, out=tmp_path / "x/page.html")
    assert HOSTILE not in text
    assert text.count("<script>") == 1
    data = json.loads(text.partition("let data = ")[2].partition(";\n")[0])
    runs = {run["path"]: run for run in data["runs"]}
    assert runs.keys() == {"first", "deeper/second", "search", "damaged"}
    assert {table["title"] for table in runs["first"]["tables"]} == {"evaluation"}
    assert "loss.png" in {picture["name"] for picture in runs["first"]["pictures"]}
    (link,) = runs["search"]["pages"]
    assert (tmp_path / "x" / link["href"]).resolve() == (directory / "search/view.html").resolve()
    assert runs["search"]["curves"]["proved"] == [[1, 1.0], [2, 1.0]]
    assert runs["damaged"]["error"]


def test_a_single_run_directory_can_be_viewed(directory: Path, tmp_path: Path) -> None:
    assert main(["view", str(directory / "first"), "--out", str(tmp_path / "one.html")]) == 0
    assert '"path": "first"' in (tmp_path / "one.html").read_text()
    assert describe(directory / "first").step == 4


@pytest.fixture
def address(directory: Path):
    http = server(directory, refresh=0.2)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_address[1]}"
    http.shutdown()
    http.server_close()


def status(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_server_serves_only_the_page_its_data_and_html_and_png_files(directory: Path, address: str) -> None:
    with urllib.request.urlopen(f"{address}/data.json") as response:
        assert len(json.load(response)["runs"]) == 4
    with urllib.request.urlopen(f"{address}/search/view.html") as response:
        assert b"trees" in response.read()
    outside = directory.parent / "secret.html"
    outside.write_text("secret")
    for path in ("/first/recipe.json", "/../secret.html", "/%2e%2e/secret.html", "/none.html"):
        assert status(urllib.request.Request(address + path)) == 404
    assert status(urllib.request.Request(address, headers={"Host": "evil.example:80"})) == 403
    assert status(urllib.request.Request(address)) == 200


@pytest.mark.slow
def test_the_page_can_be_clicked_through(directory: Path, tmp_path: Path) -> None:
    needs_chromium()
    assert main(["view", str(directory), "--out", str(tmp_path / "runs.html")]) == 0
    with Browser(tmp_path / "runs.html") as browser:
        count, text = "document.querySelectorAll({!r}).length".format, "document.querySelector({!r}).textContent".format
        click = (
            "[...document.querySelectorAll('tr.run')].find((row) => row.textContent.includes({!r})).onclick()".format
        )
        assert browser.run("document.title") == "monge runs"
        assert browser.run(count("tr.run")) == 4
        browser.run("by('none').onclick()")
        assert browser.run(count("#details section")) == 0
        assert browser.run("by('plot').hidden")
        browser.run(click("first"))
        browser.run(click("second"))
        assert browser.run(count("path.curve")) == 2
        assert browser.run("by('metric').value") == "loss"
        browser.run("by('metric').value = 'held-out loss'; by('metric').onchange()")
        assert browser.run(count("path.curve")) == 2
        browser.run("by('log').checked = true; by('log').onchange()")
        assert browser.run(count("path.curve")) == 2
        assert "train.steps = 4" in browser.run(text("#details"))
        assert browser.run(
            "[...document.querySelectorAll('.differs')].some((node) => node.textContent === 'train.steps = 6')"
        )
        assert browser.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        browser.run(click("search"))
        assert "rfl" in browser.run(text("#details"))
        assert browser.run("document.querySelector('#details a').getAttribute('href')").endswith("search/view.html")
        assert browser.run("document.title") == "monge runs"
        browser.run("by('words').value = 'train.steps=6'; by('words').oninput()")
        assert browser.run(count("tr.run")) == 1
        colour = "getComputedStyle(document.body).backgroundColor"
        before = browser.run(colour)
        browser.run("by('theme').onclick()")
        assert browser.run(colour) != before


@pytest.mark.slow
def test_a_watched_page_follows_a_run(directory: Path, address: str, tmp_path: Path) -> None:
    needs_chromium()
    (tmp_path / "jump.html").write_text(f"<script>location = '{address}/'</script>")
    with Browser(tmp_path / "jump.html") as browser:
        rows = "[...document.querySelectorAll('tr.run')].map((row) => row.textContent).join(' ')"

        def shown() -> str:
            return browser.run(f"document.title === 'monge runs' ? {rows} : ''")

        end = time.monotonic() + 300
        while "first" not in shown() and time.monotonic() < end:
            time.sleep(0.05)
        metrics = directory / "first/metrics.jsonl"
        stored = metrics.read_text()
        try:
            with metrics.open("a") as file:
                file.write(json.dumps({"step": 77, "loss": 1.0}) + "\n")
            while "77 / 4" not in shown() and time.monotonic() < end:
                time.sleep(0.05)
            assert "77 / 4" in shown()
        finally:
            metrics.write_text(stored)
            os.utime(metrics)


def test_ctrl_c_ends_a_watched_page_without_an_error(directory: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", interrupted)
    assert main(["view", str(directory), "--watch", "--port", "0"]) == 0
    assert "interrupted" not in capsys.readouterr().err

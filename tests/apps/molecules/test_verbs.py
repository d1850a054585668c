"""The verbs of `monge molecules`, from a file of SMILES to scores, and their errors."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rdkit")
from rdkit import Chem

from monge.apps.molecules.bonds import perceived
from monge.apps.molecules.conformers import with_conformer
from monge.apps.molecules.dataset import SHARD, Molecules
from monge.apps.molecules.measuring import write_samples
from monge.apps.molecules.page import write
from monge.apps.molecules.sources import SETS
from monge.cli import main

ENDS = ("O", "N", "F", "Cl", "S", "C=O", "C#N", "C(=O)O", "OC", "NC", "c1ccccc1", "C(=O)OC")
SMALL = "--width 32 --depth 1 --heads 4 --batch-size 16 --solver-steps 4 --eval-samples 6 --threads 1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("molecules")
    lines = [f"{'C' * length}{end} {length}-{end}" for length in range(1, 7) for end in ENDS]
    (path / "in.smi").write_text("\n".join([*lines, "CBr bad-element", "C[CH2] radical", "x broken"]))
    return path


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    assert main(["molecules", "prepare", str(folder / "in.smi"), "--out", str(folder / "set"), "--min-atoms", "2"]) == 0
    words = ["molecules", "train", "--data", str(folder / "set"), "--out", str(folder / "run"), "--steps", "4"]
    assert main([*words, "--save-every", "2", *SMALL.split()]) == 0
    return folder / "run"


@pytest.mark.slow
def test_prepare_train_sample_and_evaluate(run: Path, folder: Path, capsys):
    failures = [json.loads(line) for line in (folder / "set/failures.jsonl").read_text().splitlines()]
    assert {"bad-element", "radical", "broken"} <= {one["id"] for one in failures}
    words = ["molecules", "sample", str(run), "--num-samples", "5", "--solver-steps", "3", "--checkpoint", "last"]
    assert main([*words, "--num-atoms", "4", "--seed", "1", "--threads", "1"]) == 0
    assert "valid molecules of 5" in capsys.readouterr().out
    rows = [json.loads(line) for line in (run / "samples/molecules.jsonl").read_text().splitlines()]
    assert [len(row["types"]) for row in rows] == [4] * 5
    read = Chem.SDMolSupplier(str(run / "samples/molecules.sdf")) if any(row["valid"] for row in rows) else []
    assert [one.GetProp("_Name") for one in read] == [row["id"] for row in rows if row["valid"]]
    for name in ("molecules.png", "film.png", "molecules.html", "molecules.sdf"):
        assert (run / "samples" / name).exists()
    assert main(["molecules", "evaluate", str(run), "--num-samples", "6", "--threads", "1", "--ani"]) == 0
    shown = capsys.readouterr().out
    stored = json.loads((run / "evaluation.json").read_text())
    assert stored["samples"] == 6
    assert stored["rows"]["valid"]["real"] == 1
    assert 0 < stored["rows"]["ANI-2xt strain, median (kcal/mol)"]["real"] < 5
    assert all(
        name in shown
        for name in (
            "Bond perception recovers 100.0%",
            "valid",
            "stable atoms",
            "QED, Wasserstein",
            "without correction",
        )
    )


@pytest.mark.slow
def test_samples_are_the_same_for_a_seed(run: Path, folder: Path):
    for name in ("a", "b"):
        words = ["molecules", "sample", str(run), "--num-samples", "3", "--out", str(folder / name), "--threads", "1"]
        assert main(words) == 0
    assert (folder / "a/molecules.jsonl").read_text() == (folder / "b/molecules.jsonl").read_text()
    assert main([*words, "--seed", "1"]) == 0
    assert (folder / "a/molecules.jsonl").read_text() != (folder / "b/molecules.jsonl").read_text()


@pytest.mark.slow
def test_samples_are_compared_with_another_set(run: Path, folder: Path, capsys):
    (folder / "more.smi").write_text("CCOCCN a\nNCCCO b\nCCOC(C)CN c\n")
    for name, source in (("more", "more.smi"), ("again", "in.smi")):
        words = ["molecules", "prepare", str(folder / source), "--out", str(folder / name), "--min-atoms", "2"]
        assert main(words) == 0
    words = ["molecules", "evaluate", str(run), "--num-samples", "2", "--threads", "1", "--held-out"]
    for name, expected in (("more", 3), ("again", len(Molecules(folder / "again").split("all")))):
        assert main([*words, str(folder / name)]) == 0
        stored = json.loads((run / "evaluation.json").read_text())
        assert stored["held_out"] == str(folder / name)
        assert 0 < stored["num_held_out"] <= expected
        assert (stored["num_held_out"] < expected) == (name == "again")  # without the training molecules
    training = Molecules(folder / "set").split("train")
    (folder / "known.smi").write_text("\n".join(one.smiles for one in training))
    words[-1:] = ["--held-out", str(folder / "known")]
    assert main(["molecules", "prepare", str(folder / "known.smi"), "--out", words[-1], "--min-atoms", "2"]) == 0
    capsys.readouterr()
    assert main(words) == 2
    assert "known: no molecule that is not in the training set of" in capsys.readouterr().err


@pytest.mark.slow
def test_other_molecules_than_those_of_the_run_are_refused(run: Path, folder: Path, capsys):
    other = folder / "other"
    assert main(["molecules", "prepare", str(folder / "in.smi"), "--out", str(other), "--limit", "40"]) == 0
    assert main(["molecules", "evaluate", str(run), "--data", str(other), "--num-samples", "2"]) == 2
    assert "not the molecules that" in capsys.readouterr().err


@pytest.mark.slow
def test_posebusters_judges_samples_and_real_molecules(run: Path, capsys):
    pytest.importorskip("posebusters")
    words = ["molecules", "evaluate", str(run), "--num-samples", "4", "--threads", "1", "--posebusters"]
    assert main(words) == 0
    row = json.loads((run / "evaluation.json").read_text())["rows"]["PoseBusters of valid"]
    assert row["real"] > 0.5
    assert "PoseBusters of valid" in capsys.readouterr().out


@pytest.mark.parametrize("name", SETS)
def test_a_packaged_set_is_prepared(name: str, tmp_path: Path):
    if name != "nci" and find_spec("moses") is None:
        pytest.skip("needs pip install --no-deps molsets")
    words = ["molecules", "prepare", name, "--limit", "40", "--max-atoms", "30", "--out", str(tmp_path / "set")]
    assert main(words) == 0
    found = Molecules(tmp_path / "set").split("all")
    assert 20 < len(found) <= 40
    if name.startswith("moses"):
        part = {"moses": "train", "moses-test": "test", "moses-scaffolds": "test_scaffolds"}[name]
        assert all(one.id.startswith(f"{part}-") for one in found)


def test_two_workers_prepare_the_same_set_as_one(folder: Path, tmp_path: Path):
    words = ["molecules", "prepare", str(folder / "in.smi"), "--min-atoms", "2", "--out"]
    sets = [tmp_path / number for number in ("1", "2")]
    for path in sets:
        assert main([*words, str(path), "--workers", path.name]) == 0
    one, two = (Molecules(path).split("all") for path in sets)
    assert len(one) > SHARD  # both have work
    for first, second in zip(one, two, strict=True):
        assert (first.id, first.smiles) == (second.id, second.smiles)
        np.testing.assert_array_equal(first.positions, second.positions)


def test_a_scaffold_is_in_one_split(tmp_path: Path):
    rings = ("c1ccccc1", "C1CCCC1", "c1ccncc1", "c1ccoc1", "C1CCOCC1", "c1ccsc1", "C1CC1", "c1cc[nH]c1", "C1CCNC1")
    lines = [f"{'C' * length}{ring} {ring}-{length}" for ring in rings for length in range(1, 6)]
    (tmp_path / "in.smi").write_text("\n".join(lines))
    assert main(["molecules", "prepare", str(tmp_path / "in.smi"), "--out", str(tmp_path / "set")]) == 0
    rows = Molecules(tmp_path / "set").table.to_pylist()
    splits = {ring: {row["split"] for row in rows if row["id"].startswith(f"{ring}-")} for ring in rings}
    assert all(len(found) == 1 for found in splits.values())
    assert len(set.union(*splits.values())) > 1


def test_a_source_without_usable_molecules_lists_them(tmp_path: Path, capsys):
    (tmp_path / "in.smi").write_text("x broken\nCBr bromide\n")
    assert main(["molecules", "prepare", str(tmp_path / "in.smi"), "--out", str(tmp_path / "set")]) == 2
    assert f"all failures are in {tmp_path / 'set.failures.jsonl'}" in capsys.readouterr().err
    listed = [json.loads(line) for line in (tmp_path / "set.failures.jsonl").read_text().splitlines()]
    assert {one["id"] for one in listed} == {"broken", "bromide"}


def test_strange_molecules_are_listed_and_the_others_kept(tmp_path: Path):
    lines = ["[H][H] a", "[H+] b", "*CCO c", "CCO same", "CCN same", "[2H]C([2H])([2H])[2H] d", "CCCO same"]
    lines += ["CCCN same-2"]
    (tmp_path / "in.smi").write_text("\n".join(lines))
    assert (
        main(["molecules", "prepare", str(tmp_path / "in.smi"), "--out", str(tmp_path / "set"), "--min-atoms", "2"])
        == 0
    )
    failures = [json.loads(line) for line in (tmp_path / "set/failures.jsonl").read_text().splitlines()]
    assert {one["id"] for one in failures} == {"a", "b", "c", "d"}
    assert [one.id for one in Molecules(tmp_path / "set").split("all")] == ["same", "same-2", "same-3", "same-2-2"]


@pytest.mark.slow
def test_a_moved_set_is_found_by_its_new_path(run: Path, folder: Path, capsys):
    (folder / "set").rename(folder / "moved")
    try:
        words = ["molecules", "evaluate", str(run), "--num-samples", "2", "--threads", "1"]
        assert main(words) == 2
        assert "no prepared molecules here" in capsys.readouterr().err
        assert main([*words, "--data", str(folder / "moved")]) == 0
    finally:
        (folder / "moved").rename(folder / "set")


def test_valid_samples_are_written_with_hydrogens_and_read_back(tmp_path: Path):
    molecule = with_conformer("x", "OC(=O)c1cc[nH]c1", max_atoms=12)
    good = perceived(molecule.types.tolist(), molecule.positions)
    broken = perceived(molecule.types.tolist(), 3 * molecule.positions)
    write_samples([good, broken], tmp_path)
    (read,) = Chem.SDMolSupplier(str(tmp_path / "molecules.sdf"), removeHs=False)
    assert read.GetNumAtoms() > read.GetNumHeavyAtoms() == 8
    assert Chem.MolToSmiles(Chem.RemoveHs(read)) == Chem.MolToSmiles(Chem.MolFromSmiles("OC(=O)c1cc[nH]c1"))
    assert read.GetProp("_Name") == "sample-0"


def test_the_page_holds_every_molecule_and_no_markup_from_names(tmp_path: Path):
    molecule = with_conformer("x", "CC=O", max_atoms=12)
    results = [perceived(molecule.types.tolist(), factor * molecule.positions) for factor in (1, 3)]
    text = write(results, tmp_path / "page.html", title="</script>").read_text()
    (content,) = re.findall(r"const content = (.*);", text)
    one, other = json.loads(content)["molecules"]
    assert (one["valid"], len(one["atoms"]), len(one["bonds"])) == (True, 7, 6)
    assert (other["valid"], len(other["atoms"]), other["name"]) == (False, 3, "invalid: valence")
    assert text.count("</script>") == 1
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("prepare nothing.smi", "nothing.smi: no such file"),
        ("prepare {in} --max-atoms 0", "--max-atoms 0: give at least 1"),
        ("prepare {in} --min-atoms 60 --max-atoms 70", "no molecules left"),
        ("prepare {in} --out {set}", "exists"),
        ("prepare {in} --min-atoms 5 --max-atoms 4", "the minimum is above the maximum"),
        ("prepare {numbers}", "no molecules left"),
        ("train --data {in}", "no prepared molecules here"),
        ("sample {run} --num-samples 0", "--num-samples 0: give at least 1"),
        ("sample {run} --num-atoms 900", "--num-atoms 900: give at most"),
        ("sample {run} --checkpoint 99", "no checkpoint '99'"),
        ("evaluate {set}", "no run here"),
        ("evaluate {run} --solver-steps 0", "--solver-steps 0: give at least 1"),
        ("evaluate {run} --threads -1", "--threads -1"),
    ],
)
def test_bad_input_gives_one_sentence(words: str, message: str, run: Path, folder: Path, tmp_path: Path, capsys):
    paths = {"in": folder / "in.smi", "set": folder / "set", "run": run, "numbers": tmp_path / "numbers.csv"}
    paths["numbers"].write_text("smiles\n1\n2\n")
    arguments = [word.format(**paths) for word in words.split()]
    if "--out" not in arguments and arguments[0] in ("prepare", "train"):
        arguments += ["--out", str(tmp_path / "out")]
    assert main(["molecules", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists() or not (tmp_path / "out/molecules.parquet").exists()


@pytest.mark.long
def test_two_ranks_train_with_sharded_weights(run: Path, folder: Path, torchrun):
    out = folder / "sharded"
    words = [
        "-m",
        "monge",
        "molecules",
        "train",
        "--data",
        folder / "set",
        "--out",
        out,
        "--steps",
        "3",
        "--device",
        "cpu",
    ]
    torchrun(*words, "--save-every", "3", "--parallel", "fsdp", *SMALL.split())
    assert (
        main(["molecules", "sample", str(out), "--num-samples", "2", "--solver-steps", "2", "--checkpoint", "last"])
        == 0
    )

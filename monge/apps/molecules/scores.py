"""Scores of generated molecules next to those of real ones."""

import importlib.util
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem, RDConfig, rdBase
from rdkit.Chem import QED, Crippen, DataStructs, Descriptors, Fragments, rdFingerprintGenerator
from scipy.stats import wasserstein_distance

from monge.apps.molecules.bonds import Perceived, flat_smiles
from monge.apps.molecules.encoders import ani_strain
from monge.apps.molecules.geometry import BINS, completed, divergence, measured, strain, with_hydrogens

BETTER = {
    "valid": "higher",
    "connected": "higher",
    "stable molecules": "higher",
    "stable atoms": "higher",
    "unique of valid": "higher",
    "novel of valid": "higher",
    "valid, unique and novel": "higher",
    "diversity": "near real",
    "PoseBusters": "higher",
    "PoseBusters of valid": "higher",
    "strain, median (kcal/mol)": "lower",
    "ANI-2xt strain, median (kcal/mol)": "lower",
    "RMSD to relaxed, median (A)": "lower",
    **{f"{name}, divergence (bits)": "lower" for name in BINS},
    "ring sizes, total variation": "lower",
    "functional groups, deviation": "lower",
    "weight, Wasserstein (Da)": "lower",
    "logP, Wasserstein": "lower",
    "QED, Wasserstein": "lower",
    "SA, Wasserstein": "lower",
}
"""Names of the scores in the order of the table, each with the better direction."""


class Reference(NamedTuple):
    """Real molecules to compare with."""

    training: frozenset[str]
    """SMILES of the training molecules, without stereochemistry."""
    held_out: Sequence[Chem.Mol]
    """Molecules that were not used in training, with conformers of their heavy atoms."""


def scores(
    results: Sequence[Perceived], reference: Reference, *, with_posebusters: bool = False, with_ani: bool = False
) -> dict[str, float]:
    """The scores in BETTER; those of PoseBusters and ANI-2xt on request.

    Shares are of all samples unless the name says "of valid". In the medians (the upper of two middle values), invalid samples
    count as infinite; molecules without MMFF94 parameters are left out of MMFF94's. The diversity and the distances from the
    held-out molecules are those of the valid samples; they are nan without any. ValueError if there are no results or a package
    is not installed.
    """
    if not results:
        raise ValueError("no samples to score")
    valid = [one.molecule for one in results if one.valid and one.molecule is not None]
    full = [completed(one) for one in results if one.valid and one.molecule is not None]
    names = [flat_smiles(molecule) for molecule in valid]
    novel = set(names) - reference.training
    values = {
        "valid": len(valid) / len(results),
        "connected": float(np.mean([one.connected for one in results])),
        "stable molecules": float(np.mean([one.molecule is not None for one in results])),
        "stable atoms": sum(one.stable_atoms() for one in results) / max(1, sum(len(one.types) for one in results)),
        "unique of valid": len(set(names)) / len(valid) if valid else float("nan"),
        "novel of valid": sum(name in novel for name in names) / len(valid) if valid else float("nan"),
        "valid, unique and novel": len(novel) / len(results),
        "diversity": diversity(valid),
    }
    if with_posebusters:
        passed = sum(posebusters(full))
        values["PoseBusters"] = passed / len(results)
        values["PoseBusters of valid"] = passed / len(valid) if valid else float("nan")
    strains = [one for one in map(strain, full) if one is not None]
    invalid = [float("inf")] * (len(results) - len(valid))
    values["strain, median (kcal/mol)"] = _median([one.energy for one in strains] + invalid)
    if with_ani:
        values["ANI-2xt strain, median (kcal/mol)"] = _median([*map(ani_strain, full), *invalid])
    values["RMSD to relaxed, median (A)"] = _median([one.rmsd for one in strains] + invalid)
    return {name: value for name, value in (values | _distances(valid, reference.held_out)).items() if name in BETTER}


def _median(values: Sequence[float]) -> float:
    return float(np.quantile(values, 0.5, method="higher")) if values else float("nan")


def _distances(valid: Sequence[Chem.Mol], held_out: Sequence[Chem.Mol]) -> dict[str, float]:
    """The distances from the held-out molecules."""
    if not valid:
        return {name: float("nan") for name in list(BETTER)[list(BETTER).index("RMSD to relaxed, median (A)") + 1 :]}
    ours, theirs = measured(valid), measured(held_out)
    values = {f"{name}, divergence (bits)": divergence(ours[name], theirs[name], BINS[name]) for name in BINS}
    sizes = [_shares(ring for one in part for ring in _ring_sizes(one)) for part in (valid, held_out)]
    values["ring sizes, total variation"] = 0.5 * sum(
        abs(sizes[0].get(key, 0.0) - sizes[1].get(key, 0.0)) for key in sizes[0].keys() | sizes[1].keys()
    )
    groups = [np.mean([_functional_groups(one) for one in part], axis=0) for part in (valid, held_out)]
    values["functional groups, deviation"] = float(np.abs(groups[0] - groups[1]).sum())
    for name, function in PROPERTIES.items():
        values[name] = float(
            wasserstein_distance([function(one) for one in valid], [function(one) for one in held_out])
        )
    return values


def diversity(molecules: Sequence[Chem.Mol]) -> float:
    """1 minus the mean Tanimoto similarity of the Morgan fingerprints of all pairs; nan for fewer than two molecules."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(molecule) for molecule in molecules]
    similar = [DataStructs.BulkTanimotoSimilarity(one, prints[:number]) for number, one in enumerate(prints)]
    values = [value for row in similar for value in row]
    return 1 - float(np.mean(values)) if values else float("nan")


def posebusters(molecules: Sequence[Chem.Mol]) -> list[bool]:
    """True for each molecule that passes all checks of PoseBusters for single molecules (Buttenschoen et al. 2308.05777).

    ValueError if it is not installed.
    """
    if importlib.util.find_spec("posebusters") is None:
        raise ValueError("PoseBusters is not installed; pip install posebusters")
    if not molecules:
        return []
    from posebusters import PoseBusters

    full = [with_hydrogens(molecule) for molecule in molecules]  # if they lack hydrogens
    rdBase.LogToPythonLogger()
    for name in ("rdkit", "posebusters"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        checks: Any = PoseBusters(config="mol", max_workers=0).bust(full, None, None, full_report=False)
    finally:  # posebusters turns RDKit's messages on, and sends them to Python's log
        rdBase.LogToCppStreams()
        rdBase.DisableLog("rdApp.*")
    return checks.all(axis=1).tolist()


def _ring_sizes(molecule: Chem.Mol) -> list[int]:
    """The size of each ring; 0 for a molecule without rings."""
    return [len(ring) for ring in molecule.GetRingInfo().AtomRings()] or [0]


def _shares(values: Iterable[int]) -> dict[int, float]:
    counts = Counter(values)
    return {value: count / counts.total() for value, count in counts.items()}


_GROUPS: list[Callable[[Chem.Mol], int]] = [
    function for name, function in sorted(vars(Fragments).items()) if name.startswith("fr_")
]


def _functional_groups(molecule: Chem.Mol) -> list[int]:
    """Counts of RDKit's functional groups."""
    return [function(molecule) for function in _GROUPS]


@cache
def _accessibility() -> Any:
    """RDKit's module of the synthetic accessibility score (Ertl and Schuffenhauer 2009), from its Contrib folder."""
    path = Path(RDConfig.RDContribDir) / "SA_Score" / "sascorer.py"
    spec = importlib.util.spec_from_file_location("sascorer", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{path}: missing; reinstall rdkit")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROPERTIES: dict[str, Callable[[Chem.Mol], float]] = {
    "weight, Wasserstein (Da)": Descriptors.MolWt,  # pyright: ignore[reportAttributeAccessIssue]
    "logP, Wasserstein": Crippen.MolLogP,  # pyright: ignore[reportAttributeAccessIssue]
    "QED, Wasserstein": QED.qed,
    "SA, Wasserstein": lambda molecule: _accessibility().calculateScore(molecule),
}
"""Properties of a molecule whose distributions are compared."""

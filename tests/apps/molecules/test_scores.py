"""Scores of molecules: real ones reach the limits, planted errors are counted, and laws of the distances hold."""

import numpy as np
import pytest

pytest.importorskip("rdkit")
from rdkit import Chem
from rdkit.Chem import rdForceFieldHelpers

from monge.apps.molecules.atoms import NUMBERS, AtomType
from monge.apps.molecules.bonds import most_filled, perceived
from monge.apps.molecules.conformers import with_conformer
from monge.apps.molecules.geometry import BINS, completed, divergence, jensen_shannon, measured, strain
from monge.apps.molecules.scores import BETTER, Reference, diversity, flat_smiles, posebusters, scores

SMILES = ["CCO", "c1ccccc1O", "CC(=O)N", "C[N+](=O)[O-]", "N#CC=C", "c1ccc2[nH]ccc2c1", "OC(=O)CCS", "FC(F)Cl"]
METHYL = NUMBERS[AtomType("C", 3, 4)]


def real(smiles: str, *, seed: int = 0, scale: float = 1.0):
    molecule = with_conformer("x", smiles, max_atoms=12, seed=seed)
    return perceived(molecule.types.tolist(), scale * molecule.positions)


def reference(training: tuple[str, ...] = ()) -> Reference:
    names = frozenset(flat_smiles(Chem.MolFromSmiles(one)) for one in training)
    return Reference(names, [one.molecule for one in map(real, SMILES) if one.molecule])


def test_real_molecules_reach_the_limits():
    values = scores([real(one) for one in SMILES], reference(training=tuple(SMILES[:2])))
    assert list(values) == [name for name in BETTER if name in values]
    limits = {"valid", "connected", "stable molecules", "stable atoms", "unique of valid"}
    assert {values[name] for name in limits} == {1.0}
    assert values["novel of valid"] == values["valid, unique and novel"] == 0.75
    assert values["strain, median (kcal/mol)"] < 0.1
    assert values["RMSD to relaxed, median (A)"] < 0.05
    distances = [name for name in values if "Wasserstein" in name or "deviation" in name or "variation" in name]
    assert len(distances) == 6
    assert {values[name] for name in distances} == {0.0}


def test_invalid_samples_count_in_shares_and_medians():
    broken = perceived([METHYL] * 3, np.array([[0.0, 0, 0], [1.5, 0, 0], [9, 0, 0]]))
    good = [real(one) for one in SMILES[:2]]
    values = scores([*good, broken, broken, broken], reference())
    assert values["valid"] == values["connected"] == 2 / 5
    assert values["valid, unique and novel"] == 2 / 5
    assert values["unique of valid"] == 1
    assert values["stable atoms"] == (3 + 7 + 3 * 2) / (3 + 7 + 3 * 3)
    assert values["strain, median (kcal/mol)"] == values["RMSD to relaxed, median (A)"] == float("inf")
    nothing = scores([broken], reference())
    assert nothing["valid"] == 0
    assert all(np.isnan(nothing[name]) for name in BETTER if "Wasserstein" in name)
    with pytest.raises(ValueError, match="no samples"):
        scores([], reference())


def test_a_repeated_molecule_is_neither_unique_nor_diverse():
    values = scores([real("CCO", seed=seed) for seed in range(4)], reference())
    assert values["unique of valid"] == values["valid, unique and novel"] == 1 / 4
    assert values["diversity"] == 0
    assert 0 < diversity([one.molecule for one in map(real, SMILES) if one.molecule]) < 1


def test_two_parts_are_not_valid_even_if_every_valence_is_filled():
    methane = NUMBERS[AtomType("C", 4, 4)]
    apart = perceived([methane, methane], np.array([[0.0, 0, 0], [9, 0, 0]]))
    assert (apart.molecule is not None, apart.connected, apart.valid) == (True, False, False)
    values = scores([apart], reference())
    assert (values["valid"], values["stable molecules"], values["stable atoms"]) == (0, 1, 1)


def test_strain_rises_with_distortion():
    relaxed, stretched = strain(real("CCO").molecule), strain(real("CCO", scale=1.08).molecule)
    assert relaxed is not None
    assert stretched is not None
    assert relaxed.energy < 0.1 < 3 < stretched.energy
    assert relaxed.rmsd < stretched.rmsd
    assert stretched.rmsd == pytest.approx(0.08 * 1.3, abs=0.05)


def test_a_molecule_without_a_kekule_structure_has_infinite_strain(monkeypatch: pytest.MonkeyPatch):
    def fail(molecule: Chem.Mol) -> None:
        raise Chem.KekulizeException("Can't kekulize mol.")

    molecule = real("CCO").molecule
    monkeypatch.setattr(rdForceFieldHelpers, "MMFFGetMoleculeProperties", fail)
    worst = strain(molecule)
    assert worst is not None
    assert worst.energy == worst.rmsd == np.inf


def test_atoms_at_the_same_place_have_infinite_strain():
    one = perceived([METHYL, METHYL], np.zeros((2, 3)))
    assert one.valid
    assert strain(one.molecule) == (float("inf"),) * 2


def test_lengths_angles_and_torsions_are_those_of_known_molecules():
    values = measured([one.molecule for one in [real("CC(=O)C"), real("c1ccccc1"), real("C/C=C/C")] if one.molecule])
    assert values["bond lengths"]["C double O"][0] == pytest.approx(1.23, abs=0.02)
    assert values["bond lengths"]["C aromatic C"] == pytest.approx([1.39] * 6, abs=0.02)
    assert values["bond angles"]["C-C aromatic-C"] == pytest.approx([120] * 6, abs=1)
    assert values["torsions"]["C double C"] == pytest.approx([180], abs=1)
    assert values["torsions"]["C aromatic C"] == pytest.approx([0] * 6, abs=2)


def test_divergence_compares_kinds_that_both_sides_have():
    bins, rng = BINS["bond lengths"], np.random.default_rng(0)
    near, same, far = (rng.normal(mean, 0.02, 4000).tolist() for mean in (1.5, 1.5, 1.7))
    assert divergence({"a": near}, {"a": same}, bins) < 0.01
    assert divergence({"a": near}, {"a": far}, bins) > 0.9
    assert divergence({"a": near, "b": far}, {"a": same, "b": near[:10]}, bins) < 0.01  # b is rare
    assert np.isnan(divergence({"a": near}, {"b": near}, bins))
    p, q = np.array([0.5, 0.5, 0]), np.array([0.25, 0.25, 0.5])
    assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p))
    assert jensen_shannon(p, p) == 0


def test_as_many_atoms_as_possible_are_filled():
    """Against a search over all orders, on random graphs of four atoms."""
    import itertools

    rng = np.random.default_rng(0)
    pairs = list(itertools.combinations(range(4), 2))
    for _ in range(60):
        edges = [pair for pair in pairs if rng.random() < 0.6]
        valences = rng.integers(0, 5, 4).tolist()
        best = max(
            sum(
                sum(order for order, edge in zip(orders, edges, strict=True) if atom in edge) == valences[atom]
                for atom in range(4)
            )
            for orders in itertools.product((1, 2, 3), repeat=len(edges))
        )
        assert most_filled(dict.fromkeys(edges, 1.4), valences) == best


def test_posebusters_rejects_a_flattened_ring_system():
    pytest.importorskip("posebusters")
    one = real("C1CCCCC1")
    flat = replace_positions(one, one.positions * [1, 1, 0])
    assert posebusters([one.molecule]) == [True]
    assert posebusters([flat]) == [False]
    assert posebusters([]) == []


def replace_positions(one, positions: np.ndarray) -> Chem.Mol:
    molecule = Chem.Mol(one.molecule)
    molecule.GetConformer().SetPositions(np.asarray(positions, float))
    return molecule


def test_explicit_hydrogens_count_as_generated():
    """Displaced hydrogens raise the strain; without explicit hydrogens they are placed anew."""
    one = with_conformer("x", "CCO", max_atoms=12, explicit_hydrogens=True)
    moved = one.positions + 0.1 * np.random.default_rng(0).normal(size=one.positions.shape) * ~one.heavy[:, None]
    values = [strain(completed(perceived(one.types.tolist(), x))).energy for x in (one.positions, moved)]
    assert values[0] < 0.1
    assert values[1] > 2

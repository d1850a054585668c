"""Types, bonds and conformers: real molecules survive the round trip, and unusable ones are listed with a reason."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit")
from rdkit import Chem

from monge.apps.molecules.atoms import TYPES, UnsupportedMolecule, types_of
from monge.apps.molecules.bonds import bond_orders, most_probable, perceived
from monge.apps.molecules.conformers import Molecule, embedded, of_structure, structure, with_conformer
from monge.apps.molecules.dataset import Molecules, prepare, recovered
from monge.apps.molecules.geometry import completed
from monge.apps.molecules.network import MoleculeNet, Shape
from monge.apps.molecules.objective import MoleculeMatching, noise
from monge.apps.molecules.sampling import retyped, states
from monge.apps.molecules.sources import records
from monge.fleet import sequential
from monge.math.rotation import RotationOT
from monge.math.types import Pair

SMILES = [
    "CCO",
    "c1ccccc1O",
    "CC(=O)N",
    "CS(=O)(=O)C",
    "C[N+](=O)[O-]",
    "N#CC=C",
    "c1ccc2[nH]ccc2c1",
    "C[C@H](N)C(=O)O",
    "FC(F)Cl",
]
PER_MOLECULE = {"min_atoms": 2, "max_atoms": 12}


def named(smiles: str) -> list[str]:
    return [str(TYPES[number]) for number in types_of(Chem.MolFromSmiles(smiles))]


def test_a_type_counts_hydrogens_and_names_an_unusual_valence():
    assert named("CC(=O)N") == ["CH3", "C", "O", "NH2"]
    assert named("CS(=O)(=O)C") == ["CH3", "S(6)", "O", "O", "CH3"]
    assert named("C[N+](=O)[O-]") == ["CH3", "N(5)", "O", "O"]
    assert named("C[SH]") == ["CH3", "SH"]


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("nonsense", "not a valid SMILES"),
        ("C[N+](C)(C)C", "a charge of +1 on N"),
        ("CBr", "element Br"),
        ("C[CH2]", "an unpaired electron on C"),
        ("CC.CC", "several molecules"),
        ("CCCCCCCCCCCCC", "13 heavy atoms; the limit is 12"),
    ],
)
def test_a_molecule_that_cannot_be_used_gives_a_reason(smiles: str, reason: str):
    with pytest.raises(UnsupportedMolecule, match=reason.replace("+", r"\+")):
        structure(smiles, max_atoms=12)


@pytest.mark.parametrize("smiles", SMILES)
def test_types_and_positions_give_the_molecule_back(smiles: str):
    molecule = with_conformer("x", smiles, max_atoms=12)
    assert recovered(molecule)
    assert np.abs(molecule.positions.mean(0)).max() < 1e-5
    turned = molecule.positions[::-1] * [[-1, -1, 1]]  # another order, and a rotation by 180 degrees
    assert recovered(Molecule("x", molecule.smiles, molecule.types[::-1], turned))


@pytest.mark.parametrize("smiles", SMILES)
def test_explicit_hydrogens_give_the_molecule_back_with_their_positions(smiles: str):
    molecule = with_conformer("x", smiles, max_atoms=12, explicit_hydrogens=True)
    plain = with_conformer("x", smiles, max_atoms=12)
    assert recovered(molecule)
    assert all(TYPES[number].hydrogens == 0 for number in molecule.types)
    assert molecule.heavy.sum() == len(plain.types)
    distances = np.linalg.norm(molecule.positions[:, None] - molecule.positions, axis=-1)[np.ix_(*[molecule.heavy] * 2)]
    expected = np.linalg.norm(plain.positions[:, None] - plain.positions, axis=-1)
    np.testing.assert_allclose(distances, expected, atol=1e-4)
    result = perceived(molecule.types.tolist(), molecule.positions)
    np.testing.assert_allclose(completed(result).GetConformer().GetPositions(), molecule.positions, atol=1e-4)


def test_hydrogens_of_a_file_must_have_positions_to_be_explicit():
    molecule = Chem.RemoveAllHs(embedded(Chem.MolFromSmiles("CCO"), seed=0))
    assert len(of_structure("x", molecule).types) == 3
    with pytest.raises(UnsupportedMolecule, match="hydrogens without positions"):
        of_structure("x", molecule, explicit_hydrogens=True)


def test_orders_fill_every_valence_or_there_are_none():
    """All graphs of four atoms and all valences up to four, against a search over all orders."""
    pairs = list(itertools.combinations(range(4), 2))
    for count in range(1, 6):
        for edges in itertools.combinations(pairs, count):
            possible = {
                tuple(
                    sum(order for order, edge in zip(orders, edges, strict=True) if atom in edge) for atom in range(4)
                )
                for orders in itertools.product((1, 2, 3), repeat=count)
            }
            for valences in itertools.product(range(5), repeat=4):
                orders = bond_orders(dict.fromkeys(edges, 1.4), valences)
                assert (orders is not None) == (valences in possible), (edges, valences)
                if orders is not None:
                    assert all(sum(o for e, o in orders.items() if atom in e) == valences[atom] for atom in range(4))
                    assert set(orders.values()) <= {1, 2, 3}


def test_atoms_that_are_no_molecule_give_a_reason():
    carbon, methyl = (next(k for k, one in enumerate(TYPES) if str(one) == name) for name in ("C", "CH3"))
    apart = np.array([[0.0, 0, 0], [1.5, 0, 0], [9, 0, 0]])
    assert perceived([methyl, methyl, methyl], apart)[3:5] == (False, "valence")
    assert perceived([carbon, carbon], apart[:2])[3:5] == (True, "valence")
    assert perceived([], apart[:0]).reason == "no atoms"
    assert perceived([methyl, methyl], apart[:2]).connected


def test_a_prepared_set_lists_its_failures_and_reads_back(tmp_path: Path):
    (tmp_path / "in.smi").write_text(
        "\n".join(f"{smiles} m{k}" for k, smiles in enumerate([*SMILES, "CBr", "OCC", "x", "C1#CC1"]))
    )
    settings = {"source": "in.smi"}
    out = tmp_path / "set"
    finished = list(prepare(records(str(tmp_path / "in.smi")), out, sequential, **PER_MOLECULE, settings=settings))
    assert finished == [len(SMILES) + 1]
    failures = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert [(one["id"], one["reason"].split(";")[0]) for one in failures] == [
        ("m9", "element Br"),
        ("m10", "duplicate"),
        ("m11", "not a valid SMILES"),
        ("m12", "no conformer was found"),
    ]
    molecules = Molecules(out)
    assert molecules.settings["round_trip"] == 1
    assert {one.id for one in molecules.split("all")} == {f"m{k}" for k in range(len(SMILES))}
    parts = [{one.id for one in molecules.split(name)} for name in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(SMILES)
    (tmp_path / "bad.smi").write_text("CBr\n")
    with pytest.raises(ValueError, match="no molecules left: element Br"):
        list(prepare(records(str(tmp_path / "bad.smi")), tmp_path / "no", sequential, **PER_MOLECULE, settings={}))
    assert not (tmp_path / "no").exists()


def test_an_sdf_keeps_its_own_conformers_and_a_truncated_one_loses_its_last_molecule(tmp_path: Path):
    path = tmp_path / "in.sdf"
    with Chem.SDWriter(str(path)) as writer:
        for k, smiles in enumerate(SMILES[:3]):
            molecule = with_conformer("x", smiles, max_atoms=12)
            full = perceived(molecule.types.tolist(), 1.01 * molecule.positions).molecule
            assert full is not None
            full.SetProp("_Name", f"m{k}")
            writer.write(full)
    text = path.read_text()
    path.write_text(text[: int(len(text) * 0.9)])
    list(prepare(records(str(path)), tmp_path / "set", sequential, **PER_MOLECULE, settings={}))
    kept = Molecules(tmp_path / "set").split("all")
    assert [one.id for one in kept] == ["m0", "m1"]
    expected = 1.01 * with_conformer("x", SMILES[0], max_atoms=12).positions
    np.testing.assert_allclose(kept[0].positions, expected, atol=1e-3)


def batch(count: int = 4, atoms: int = 7, types: int = 5) -> Pair:
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(atoms) < torch.tensor([7, 5, 6, 3])[:count, None]
    x_1 = noise(mask, types, generator=generator)
    x_1[..., 3:] = torch.nn.functional.one_hot(x_1[..., 3:].argmax(-1), types) * mask[..., None]
    return Pair(noise(mask, types, generator=generator), x_1, mask)


def network(architecture: str = "equivariant") -> MoleculeNet:
    torch.manual_seed(0)
    net = MoleculeNet(5, Shape(32, 2, 4, architecture), scale=1.3)  # pyright: ignore[reportArgumentType]
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net.eval()


def turned(x: torch.Tensor) -> torch.Tensor:
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    return torch.cat([x[..., :3] @ turn.mT, x[..., 3:]], -1)


def test_the_network_turns_with_its_input():
    net, pair, t = network(), batch(), torch.tensor([0.1, 0.5, 0.9, 0.0])
    cond = {"mask": pair.mask, "previous": pair.x_1}
    turned_cond = {"mask": pair.mask, "previous": turned(pair.x_1)}
    torch.testing.assert_close(
        net(turned(pair.x_0), t, turned_cond), turned(net(pair.x_0, t, cond)), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("architecture", ["equivariant", "transformer"])
def test_padding_does_not_count_and_the_centre_stays_at_the_origin(architecture: str):
    net, pair, t = network(architecture), batch(), torch.tensor([0.1, 0.5, 0.9, 0.0])
    out = net(pair.x_0, t, {"mask": pair.mask})
    assert (out[~pair.mask] == 0).all()
    torch.testing.assert_close(out[..., :3].sum(1), torch.zeros(4, 3), atol=1e-4, rtol=0)
    alone = net(pair.x_0[1:2, :5], t[1:2], {"mask": pair.mask[1:2, :5]})
    torch.testing.assert_close(out[1:2, :5], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"distortion": 0.3}], ids=["plain", "distorted"])
def test_the_loss_of_padded_atoms_is_exactly_zero(settings: dict[str, float]):
    pair = batch()
    end = torch.randn(pair.x_1.shape, requires_grad=True)
    objective = MoleculeMatching(self_conditioning=False, **settings)  # pyright: ignore[reportArgumentType]
    objective(lambda x_t, t, cond: end, pair).value.backward()
    assert pair.mask is not None
    assert end.grad is not None
    assert (end.grad[~pair.mask] == 0).all()
    assert (end.grad[pair.mask] != 0).all()


@pytest.mark.slow
def test_the_loss_falls_and_a_single_molecule_is_learned():
    torch.manual_seed(0)
    pair = batch(1)
    net = MoleculeNet(5, Shape(64, 3, 4), scale=1.3)
    objective, optimizer = MoleculeMatching(coupling=RotationOT()), torch.optim.Adam(net.parameters(), 2e-3)
    many = Pair(*(part.expand(32, -1, -1) for part in (pair.x_0, pair.x_1)), pair.mask.expand(32, -1))

    @torch.no_grad()
    def held_out() -> float:
        torch.manual_seed(1)
        return float(objective(net, Pair(noise(many.mask, 5), many.x_1, many.mask)).value)

    before = held_out()
    for _ in range(150):
        loss = objective(net, Pair(noise(many.mask, 5), many.x_1, many.mask)).value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert held_out() < 0.2 * before
    *_, x = states(net, noise(many.mask, 5), many.mask, steps=20)
    assert torch.equal(x[..., 3:].argmax(-1), many.x_1[..., 3:].argmax(-1))
    distance = torch.cdist(x[..., :3], x[..., :3]) - torch.cdist(many.x_1[..., :3], many.x_1[..., :3])
    assert distance.abs().mean() < 0.25


def off(x_t: torch.Tensor, t: torch.Tensor, cond: object) -> torch.Tensor:
    """A stand-in for a network whose squared error is 0.03 (1.1 - t)^2 per atom, if x_1 is 0."""
    return (0.1 * (1.1 - t))[:, None, None].expand_as(x_t)


def test_every_draw_of_t_counts_the_same_in_training():
    torch.manual_seed(0)
    pair, objective = batch(), MoleculeMatching(type_weight=0.0, self_conditioning=False)
    pair = Pair(*(part.repeat(64, 1, 1) for part in (pair.x_0, 0 * pair.x_1)), pair.mask.repeat(64, 1))
    values = [float(objective(off, pair).value) for _ in range(600)]
    assert np.mean(values[-50:]) == pytest.approx(1.0, rel=0.05)
    for t in (0.2, 0.7, 0.95):
        objective.times = lambda x, t=t: torch.full((len(x),), t)
        assert float(objective(off, pair).value) == pytest.approx(1.0, rel=0.2)


@pytest.mark.parametrize(("t", "weight"), [(0.0, 1.0), (0.5, 4.0), (0.99, 100.0)])
def test_evaluation_has_fixed_weights_and_leaves_the_means_unchanged(t: float, weight: float):
    pair = batch()
    objective = MoleculeMatching(times=lambda x: torch.full((len(x),), t), type_weight=0.0, self_conditioning=False)  # pyright: ignore[reportArgumentType]
    before = objective.weights.error.clone()
    with torch.no_grad():
        value = float(objective(off, Pair(pair.x_0, 0 * pair.x_1, pair.mask)).value)
    assert value == pytest.approx(0.03 * (1.1 - t) ** 2 * weight, rel=1e-4)
    assert torch.equal(objective.weights.error, before)


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_half_of_the_molecules_see_the_networks_first_prediction(size: int):
    seen: list[torch.Tensor] = []

    def recording(x_t: torch.Tensor, t: torch.Tensor, cond: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append(cond.get("previous", torch.empty(0)))
        return 2 * x_t

    mask = torch.ones(size, 3, dtype=torch.bool)
    x = torch.randn(size, 3, 8)
    torch.manual_seed(size)
    counts = set()
    for _ in range(8):
        seen.clear()
        MoleculeMatching(times=lambda x: torch.zeros(len(x)))(recording, Pair(x, x, mask))  # pyright: ignore[reportArgumentType]
        assert len(seen) == 2
        sees = (seen[1] != 0).any(-1).any(-1)
        counts.add(int(sees.sum()))
        torch.testing.assert_close(seen[1][sees][..., :3], 2 * x[sees][..., :3])
        torch.testing.assert_close(seen[1][sees][..., 3:], (2 * x[sees][..., 3:]).softmax(-1))
    assert counts == ({size // 2} if size % 2 == 0 else {size // 2, size // 2 + 1})


def test_distorted_molecules_do_not_count_in_the_means():
    """The error of the stand-in is that of x_t from x_1, which is 0 for all but distorted atoms."""
    torch.manual_seed(0)
    mask = torch.ones(64, 10, dtype=torch.bool)
    pair = Pair(torch.zeros(64, 10, 8), torch.zeros(64, 10, 8), mask)
    objective = MoleculeMatching(self_conditioning=False, distortion=3.0)
    for _ in range(50):
        objective(lambda x_t, t, cond: x_t, pair)
    assert (objective.weights.error[:8] < 0.01).all()


def test_distortion_moves_a_tenth_of_the_atoms_of_half_of_the_molecules():
    seen: list[torch.Tensor] = []

    def recording(x_t: torch.Tensor, t: torch.Tensor, cond: object) -> torch.Tensor:
        seen.append(x_t[..., :3])
        return x_t

    mask = torch.ones(2000, 10, dtype=torch.bool)
    pair = Pair(torch.zeros(2000, 10, 8), torch.zeros(2000, 10, 8), mask)
    torch.manual_seed(0)
    MoleculeMatching(self_conditioning=False, distortion=1.0)(recording, pair)
    moved = (seen[0] - seen[0].median(1, keepdim=True).values).abs().sum(
        -1
    ) > 1e-6  # unmoved atoms shift with the centre
    assert float(moved.any(1).float().mean()) == pytest.approx(0.5 * (1 - 0.9**10), abs=0.04)
    assert float(moved.float().mean()) == pytest.approx(0.05, abs=0.01)


def test_the_most_probable_types_that_form_a_molecule_are_found():
    numbers = [k for k, one in enumerate(TYPES) if str(one) in ("C", "CH2", "CH3", "O", "OH")]
    molecule = with_conformer("x", "CC=O", max_atoms=12)
    right = [numbers.index(k) if k in numbers else -1 for k in molecule.types]
    assert str(TYPES[molecule.types[1]]) == "CH"  # not among the types, so only another molecule is possible
    probability = np.full((3, len(numbers)), 0.01)
    probability[[0, 2], [right[0], right[2]]] = 0.9
    probability[2, numbers.index(next(k for k, one in enumerate(TYPES) if str(one) == "OH"))] = 0.05
    probability[1, numbers.index(next(k for k, one in enumerate(TYPES) if str(one) == "CH2"))] = 0.5
    assert perceived([numbers[k] for k in probability.argmax(1)], molecule.positions).reason == "valence"
    result = most_probable(probability, numbers, molecule.positions)
    assert result.molecule is not None
    assert Chem.MolToSmiles(result.molecule) == "CCO"
    assert most_probable(probability, numbers, molecule.positions, limit=1).reason == "valence"


def test_elements_come_from_the_flow_and_hydrogens_from_the_geometry():
    """Types 0 and 1 are of one element, 2 and 3 of another; the stand-in network reads 1 and 2 as equally likely."""
    mask = torch.tensor([[True, True, False]])
    logits = torch.tensor([0.0, 2.0, 2.0, 0.0])
    seen: list[torch.Tensor] = []

    def reading(x_t, t, cond):
        seen.append(x_t[..., 3:])
        assert (cond["type_time"] == 0).all()
        return torch.cat([x_t[..., :3], logits.expand(*x_t.shape[:2], 4)], -1)

    x, x_0 = torch.zeros(1, 3, 7), torch.randn(1, 3, 7)
    x[0, 0, 3], x[0, 1, 6] = 1.0, 1.0  # the flow ends in types 0 and 3
    result = retyped(reading, x, x_0, mask, elements=torch.tensor([0, 0, 1, 1]))
    assert result[0, :2, 3:].argmax(-1).tolist() == [1, 2]
    torch.testing.assert_close(result[0, :2, 3:].sum(-1), torch.ones(2))
    assert (result[0, 2] == 0).all()
    assert torch.equal(seen[0], x_0[..., 3:])
    assert torch.equal(seen[1], -x_0[..., 3:])

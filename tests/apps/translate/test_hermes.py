"""`monge translate hermes --config` with a configuration file of the original."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("yaml")

from monge.apps.translate.hermes import Original
from monge.apps.translate.pair import Pairs
from monge.apps.translate.recipes import HERMES, stored_recipe
from monge.cli import main
from monge.runs import reopen

SMALL = ["--precision", "float32", "--device", "cpu", "--loader-threads", "0", "--save-every", "100"]


def written(path: Path, files: tuple[Path, Path], extra: str = "") -> Path:
    """The example of the original's documentation, for vectors of width 16."""
    path.write_text(
        f"""# project_config.yaml
neural_ot:
  hidden_dim: 16
  time_embed_dim: 64
  num_layers: 1
  mlp_width: 4096
  max_len: 12
  batch_size: 64
  num_epochs: 2
  learning_rate: 5e-4
  ot_reg: 0.1
  nl_embeddings: "{files[0]}"
  lean_embeddings: "{files[1]}"
  output_dir: "{path.parent / "from-config"}"
{extra}"""
    )
    return path


@pytest.mark.slow
def test_a_configuration_file_trains_a_run(files: tuple[Path, Path], tmp_path: Path, capsys):
    config = written(tmp_path / "project_config.yaml", files)
    assert main(["translate", "hermes", "--config", str(config), *SMALL]) == 0
    shown = capsys.readouterr().out
    assert "time_embed_dim has no effect" in shown
    assert "mlp_width has no effect" in shown
    recipe = stored_recipe(reopen(tmp_path / "from-config", app="translate"))
    pairs = Pairs(tmp_path / "from-config-pairs")
    assert recipe.pairs == str(pairs.directory)
    assert (pairs.capacity, recipe.batch_size, recipe.epsilon, recipe.train.lr) == (12, 64, 0.1, 5e-4)
    assert recipe.train.steps == 2 * -(-len(pairs.split("train")) // 64)
    assert (recipe.shape.width, recipe.shape.depth, recipe.shape.head_width) == (16, 1, 2)
    assert (recipe.method, recipe.additive, recipe.prices) == (HERMES.method, True, HERMES.prices)


def test_flags_take_precedence(files: tuple[Path, Path], tmp_path: Path):
    original = Original.read(written(tmp_path / "a.yaml", files))
    pairs = original.pairs(tmp_path / "pairs")
    from dataclasses import replace

    flags = replace(HERMES, batch_size=8, epsilon=0.2, train=replace(HERMES.train, steps=7, lr=1e-2))
    recipe = original.recipe(pairs, flags)
    assert (recipe.batch_size, recipe.epsilon, recipe.train.steps, recipe.train.lr) == (8, 0.2, 7, 1e-2)
    flags = replace(HERMES, shape=replace(HERMES.shape, depth=2))
    shape = original.recipe(pairs, flags).shape
    assert (shape.width, shape.depth, shape.head_width) == (16, 2, 2)
    (tmp_path / "a.yaml").write_text((tmp_path / "a.yaml").read_text() + "  alpha_delete: 3\n")
    assert Original.read(tmp_path / "a.yaml").recipe(pairs, HERMES).prices == replace(HERMES.prices, delete=3.0)


def test_pairs_of_another_capacity_are_refused(files: tuple[Path, Path], tmp_path: Path):
    config = written(tmp_path / "a.yaml", files)
    Original.read(config).pairs(tmp_path / "pairs")
    Original.read(config).pairs(tmp_path / "pairs")
    config.write_text(config.read_text().replace("max_len: 12", "max_len: 11"))
    with pytest.raises(ValueError, match="holds pairs of other files or of another max_len"):
        Original.read(config).pairs(tmp_path / "pairs")


def test_ranks_that_join_the_files_at_once_share_the_pairs(files: tuple[Path, Path], tmp_path: Path):
    original = Original.read(written(tmp_path / "a.yaml", files))
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: len(original.pairs(tmp_path / "pairs").split("train")), range(4)))
    assert len(set(made)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("neural_ot: [", "cannot be read as YAML"),
        ("other: 1", "no section neural_ot"),
        ("[1, 2]", "no section neural_ot"),
        ("neural_ot: {nl_embeddings: a, lean_embeddings: b, depth: 3}", "unknown setting 'depth'"),
        ("neural_ot: {nl_embeddings: a}", "lean_embeddings is missing"),
        (
            "neural_ot: {nl_embeddings: a, lean_embeddings: b, batch_size: many}",
            "batch_size is 'many'; give a positive",
        ),
        ("neural_ot: {nl_embeddings: a, lean_embeddings: b, num_epochs: 0}", "num_epochs is 0; give a positive whole"),
        (
            "neural_ot: {nl_embeddings: a, lean_embeddings: b, ot_reg: -1}",
            "ot_reg is -1; give a number that is not neg",
        ),
        ("neural_ot: {nl_embeddings: 3, lean_embeddings: b}", "nl_embeddings is 3; give a path"),
    ],
)
def test_a_bad_file_is_one_sentence(text: str, message: str, tmp_path: Path, capsys):
    (tmp_path / "config.yaml").write_text(text)
    words = ["translate", "hermes", "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.strip().splitlines()) == 1


def test_another_width_is_one_sentence(files: tuple[Path, Path], tmp_path: Path, capsys):
    config = written(tmp_path / "a.yaml", files)
    config.write_text(config.read_text().replace("hidden_dim: 16", "hidden_dim: 32"))
    assert main(["translate", "hermes", "--config", str(config)]) == 2
    assert "hidden_dim is 32, but the vectors have width 16" in capsys.readouterr().err
    assert main(["translate", "hermes", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: cannot be read as YAML" in capsys.readouterr().err

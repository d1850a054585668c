"""A Metamath database becomes pairs; near-duplicates never cross a split; errors name invalid texts."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monge.apps.translate.data import metamath as pairs_of
from monge.apps.translate.data import public, read_texts, write_texts
from monge.apps.translate.metamath import INSTALLED, plain, theorems, without_citations
from monge.near_duplicates import near_duplicates

SMALL = r"""
$c |- ( ) -> wff $.  $v ph ps ch $.
wph $f wff ph $.  wps $f wff ps $.
$( The axiom of simplification, which has no proof. $)
ax-1 $a |- ( ph -> ( ps -> ph ) ) $.
${
  mp2.1 $e |- ph $.
  mp2.2 $e |- ( ph -> ps ) $.
  $( A _modus ponens_ inference for ` ph ` , see ~ ax-mp .  (Contributed by NM,
     5-Apr-1994.)  (Proof shortened by A. (B.) C, 1-Jan-2020.) $)
  mp2 $p |- ps $= ( x ) ABC $.
$}
$( The identity law. $)
id $p |- ( ph -> ph ) $= ( ) AB $.
$( The identity law with another variable. $)
idALT $p |- ( ch -> ch ) $= ( ) AB $.
$( A comment that is not directly before a theorem. $)
$c & $.
lost $p |- ph $= ? $.
$( Obsolete version of everything there is. $)
idOLD $p |- ( ps -> ( ps -> ps ) ) $= ( ) AB $.
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "small.mm"
    path.write_text(SMALL)
    return path


def test_theorems_have_their_comment_and_the_hypotheses_of_their_block(database: Path) -> None:
    parsed = {theorem.label: theorem for theorem in theorems(database)}
    assert list(parsed) == ["mp2", "id", "idALT", "idOLD"]
    assert parsed["mp2"].comment == "A modus ponens inference for ph , see ax-mp ."
    assert " ".join(parsed["mp2"].statement) == "ph & ( ph -> ps ) => ps"
    assert " ".join(parsed["id"].statement) == "( ph -> ph )"
    assert parsed["id"].pattern == parsed["idALT"].pattern != parsed["mp2"].pattern


def test_duplicate_and_obsolete_theorems_are_left_out(database: Path) -> None:
    assert [text.id for text in pairs_of(database, citations=True)] == ["mp2", "id"]


def test_comments_that_only_cite_are_left_out(database: Path) -> None:
    assert [text.id for text in pairs_of(database)] == ["id"]


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("De Morgan's law. Theorem 5.2(13') of [Stoll] p. 19.", "De Morgan's law."),
        ("Extension. Theorem 1 of [BourbakiTop1] p. I.57. Given a topology.", "Extension. Given a topology."),
        ("Lemma for ~ fta .", ""),
        ("The power class ` ~P A ` of a set.", "The power class ` ~P A ` of a set."),
        ("If ` x e. A ` then so. ` E. X ` holds. See ~ foo .", "If ` x e. A ` then so. ` E. X ` holds."),
        ("If ` x e. A ` then it is foo, as in ~ bar . Both ` A `` B ` .", "Both ` A `` B ` ."),
        ("Rows, e.g. Those of ` A ` . See ~ foo for more.", "Rows, e.g. Those of ` A ` ."),
        (
            "Two laws (the second is new). Compare ~ id . (Contributed by X, 1-Jan-2000.)",
            "Two laws (the second is new).",
        ),
        ("A note [see below] and a page, p. 3.", "A note [see below] and a page, p. 3."),
        ("Lemma 10.6.2 in [Shapiro], p. 436. The end", "The end"),
    ],
)
def test_sentences_with_citations_are_removed(comment: str, expected: str) -> None:
    assert without_citations(comment) == expected


@pytest.mark.parametrize(
    ("path", "message"), [("nowhere.mm", "apt install metamath-databases"), ("empty.mm", "no theorem")]
)
def test_a_file_that_is_not_a_database_is_named_in_the_error(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "empty.mm").write_text("$( nothing $)")
    with pytest.raises(ValueError, match=f"{path}: .*{message}"):
        list(theorems(tmp_path / path))


def test_markup_and_credits_are_removed() -> None:
    comment = "See ` A e. B ` and ~ foo , [Quine] p. 4.  (Revised by X, 1-Jan-2000.)"
    assert plain(comment) == "See A e. B and foo , [Quine] p. 4."


def jaccard(a: str, b: str) -> float:
    one, two = set(a.split()), set(b.split())
    return len(one & two) / len(one | two)


@given(
    texts=st.lists(st.text("abcdef ", min_size=1).filter(str.strip).map(lambda s: " ".join(s)), min_size=1, max_size=12)
)
def test_near_duplicates_agree_with_an_exhaustive_search(texts: list[str]) -> None:
    result = near_duplicates(texts)
    groups = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if jaccard(texts[i], texts[j]) >= 0.7:
                groups = [groups[j] if g == groups[i] else g for g in groups]
    assert [[a == b for b in result] for a in result] == [[a == b for b in groups] for a in groups]


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED.exists(), reason="needs set.mm: apt install metamath-databases")
def test_no_statement_or_near_duplicate_crosses_the_splits_of_set_mm() -> None:
    texts = pairs_of(INSTALLED)
    assert len(texts) > 20_000
    assert len({text.formal for text in texts}) == len({text.nl.lower() for text in texts}) == len(texts)
    sides = [text.split for text in texts]
    assert 0.07 < sides.count("test") / len(texts) < 0.13
    words = [frozenset(re.findall(r"\w+|[^\w\s]+", text.nl.lower())) for text in texts]
    train = [w for w, side in zip(words, sides, strict=True) if side == "train"]
    index: dict[str, list[frozenset[str]]] = {}
    for w in train:
        for word in w:
            index.setdefault(word, []).append(w)
    for w, side in list(zip(words, sides, strict=True))[:4000]:
        if side == "test":
            rare = sorted(w, key=lambda word: len(index.get(word, ())))[: len(w) // 2 + 1]
            near = {other for word in rare for other in index.get(word, ())}
            assert all(len(w & other) < 0.7 * len(w | other) for other in near)


def test_rows_survive_a_round_trip_and_ids_must_be_unique(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "texts.jsonl"
    texts = pairs_of(database, citations=True)
    write_texts(path, texts)
    assert read_texts(path) == texts
    path.write_text(path.read_text() * 2)
    with pytest.raises(ValueError, match="id 'mp2' is repeated"):
        read_texts(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
        (r'{"id": "a", "nl": "\ud800", "formal": "y"}', "line 1 is not JSON in UTF-8"),
        ('{"id": "a", "nl": "caf\xe9", "formal": "y"}', "line 1 is not JSON in UTF-8"),
        ("[1]", "line 1 is not a JSON object"),
        ('{"id": "a", "nl": "x", "formal": " "}', "line 1: formal is ' '"),
        ('{"id": true, "nl": "x", "formal": "y"}', "line 1: id is True"),
        ('{"id": 7, "nl": 7, "formal": "y"}', "line 1: nl is 7"),
        (
            '{"id": 7, "nl": "x", "formal": "y", "split": "dev"}',
            "split is 'dev'; it must be one of test, validation, train",
        ),
        ('{"id": 7, "nl": "x", "formal": "y", "split": ["test"]}', "line 1: split is ['test']"),
        (
            '{"id": 1, "group": "g", "nl": "x", "formal": "y", "split": "test"}\n'
            '{"id": 2, "group": "g", "nl": "x", "formal": "y", "split": "train"}',
            "group 'g' has rows in test and train",
        ),
    ],
)
def test_invalid_lines_are_named_in_the_error(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "texts.jsonl").write_text(line + "\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"texts\.jsonl: ") as stopped:
        read_texts(tmp_path / "texts.jsonl")
    assert message in str(stopped.value)


def test_a_public_set_is_read_by_its_own_field_names(tmp_path: Path) -> None:
    row = {
        "name": "exercise_1",
        "informal_prefix": "/-- Let x be 1. -/",
        "formal_statement": "theorem t : 1 = 1 := sorry",
    }
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    (text,) = public("proofnet", tmp_path / "p.jsonl")
    assert (text.id, text.nl, text.formal) == tuple(row.values())
    with pytest.raises(
        ValueError, match=r"row 0 \(rows count from 0\) has no informal_theorem and no formal_theorem, only"
    ):
        public("herald", tmp_path / "p.jsonl")


def test_duplicates_of_either_text_of_a_public_set_are_one_group(tmp_path: Path) -> None:
    """One problem has two statements, and one of these statements has two problems."""
    texts = [
        ("one problem", "theorem a b"),
        ("one problem", "lemma x y"),
        ("other words here", "lemma x y"),
        ("far", "off"),
    ]
    rows = [{"uuid": str(k), "problem": nl, "formal_statement": formal} for k, (nl, formal) in enumerate(texts)]
    path = tmp_path / "numina.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [text.group for text in public("numina", path)] == ["0", "0", "0", "3"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [(["a", "b", "a"], "rows 0 and 2 FROM_0 have the same name 'a'"), (["a", None], "row 1 FROM_0 has no name")],
)
def test_missing_and_repeated_ids_of_a_public_set_are_named_in_the_error(
    tmp_path: Path, ids: list, message: str
) -> None:
    rows = [{"name": name, "informal_prefix": f"x {k}", "formal_statement": "t"} for k, name in enumerate(ids)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    message = message.replace("FROM_0", r"\(rows count from 0\)")
    with pytest.raises(ValueError, match=rf"p\.parquet: {message}; give every row a unique name"):
        public("proofnet", tmp_path / "p.parquet")


def test_truncated_and_empty_files_are_named_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"id": ["a"], "nl": ["x"], "formal": ["y"]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"p\.parquet: not a complete parquet file"):
        read_texts(path)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match=r"empty\.jsonl: no rows"):
        read_texts(tmp_path / "empty.jsonl")

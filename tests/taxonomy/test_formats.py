"""Every format of a label file, as people have them, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsic_index import taxonomy
from zsic_index.errors import LabelError, TemplateError
from zsic_index.taxonomy import Taxonomy
from zsic_index.taxonomy.structure import Structure

Read = Callable[..., Taxonomy]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def from_data(name: str, data: str | bytes, *, leaves_only: bool = False) -> Taxonomy:
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return taxonomy.read(path, leaves_only=leaves_only)

    return from_data


def links(found: Taxonomy) -> dict[str, list[str]]:
    """Keys, and the keys of what each is below."""
    return {
        key: [found.keys[parent] for parent in found.parents.of(node).tolist()]
        for node, key in enumerate(found.keys)
    }


def ranks(found: Taxonomy) -> dict[str, str]:
    return {
        found.keys[node]: found.ranks[rank] for node, rank in enumerate(found.rank_of) if rank >= 0
    }


BIRDS = {"Animals": [], "Animals/Birds": ["Animals"], "Animals/Birds/Crane": ["Animals/Birds"],
         "Animals/Cats": ["Animals"], "Machines": [], "Machines/Crane": ["Machines"]}  # fmt: skip


@pytest.mark.parametrize("indent", ["  ", "\t", " ", "\u00a0\u00a0"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_outline(read: Read, indent: str, end: str) -> None:
    lines = ["Animals", ">Birds", "", ">># a comment", ">>Crane", "# another", ">Cats",
             "Machines", ">>>Crane"]  # fmt: skip
    found = read("a.txt", end.join(lines).replace(">", indent))
    assert links(found) == BIRDS
    assert found.labels == ("Animals", "Birds", "Crane", "Cats", "Machines", "Crane")
    assert found.duplicates == ()
    assert found.twins == ()


def test_a_block_that_is_indented_as_a_whole_is_flat(read: Read) -> None:
    assert links(read("a.txt", "   b\n   a\n\n   c")) == {"b": [], "a": [], "c": []}


def test_a_heading_that_comes_again_goes_on(read: Read) -> None:
    found = read("a.txt", "a\n  b\nc\na\n  b\n  d\n")
    assert links(found) == {"a": [], "a/b": ["a"], "c": [], "a/d": ["a"]}
    assert found.duplicates == ("a", "b")


def test_leaves_only(read: Read) -> None:
    found = read("a.txt", "a\n  b\n    c\n  d\ne\n", leaves_only=True)
    assert found.labels == ("c", "d", "e")
    assert found.names == ("a", "b", "c", "d", "e")
    assert found.label_nodes.tolist() == [2, 3, 4]


def test_paths_with_slashes_stay_apart(read: Read) -> None:
    found = read("a.txt", "a\n  b/c\n  b\n    c\n  d\\\n    e\n  d\\/e\nAC/DC\n")
    assert len(set(found.keys)) == 8
    assert "a/b\\/c" in found.keys
    assert "AC/DC" in found.keys


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")])
def test_table(read: Read, name: str, separator: str, encoding: str, end: str) -> None:
    rows = [
        ["ID", "Label", "parent", "rank", "note", "aliases", "lang:de", "template", "prompt"],
        ["1", "birds", "", "Class", "x", "", "Vögel", "a bird, {}.|{} 🦌", ""],
        ["2", 'a "crane"; grey,\ttall\nbird', "1", "SPECIES", "", "Grus| grus grus ", "", "", ""],
        ["", "", "", "", "", "", "", "", ""],
        ["3", "crane", "4", "", "", "crane", "Kran", "", "a tower|a machine"],
        ["4", "machines", "NA", "null", "", "", "", "", ""],
    ]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, lineterminator=end).writerows(rows)
    found = read(name, file.getvalue().encode(encoding))
    assert links(found) == {"1": [], "2": ["1"], "3": ["4"], "4": []}
    assert found.labels == ("birds", 'a "crane"; grey,\ttall\nbird', "crane", "machines")
    nodes = {key: node for node, key in enumerate(found.keys)}
    assert ranks(found) == {"1": "class", "2": "species"}
    assert found.ranks == ("class", "species")
    assert found.aliases == {nodes["2"]: ("Grus", "grus grus")}
    assert found.languages == {"de": {nodes["1"]: "Vögel", nodes["3"]: "Kran"}}
    assert found.templates == {nodes["1"]: ("a bird, {}.", "{} 🦌")}
    assert found.prompts == {nodes["3"]: ("a tower", "a machine")}


ENTRIES = [
    {"id": 1, "label": "birds", "lang": {"de": "Vögel", "fr": None}},
    {"id": "2", "label": "crane", "parent": "birds", "aliases": ["a|b"], "lang:de": "Kranich"},
    {"label": "machines", "template": "{}, a machine"},
    {"id": 3, "label": "crane", "parent": ["machines", 1], "prompts": ["one", "two"], "x": {}},
    "plain",
]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_objects(read: Read, kind: str) -> None:
    data = json.dumps(ENTRIES) if kind == "json" else "\n".join(map(json.dumps, ENTRIES))
    found = read(f"a.{kind}", data)
    assert links(found) == {
        "1": [],
        "2": ["1"],
        "machines": [],
        "3": ["machines", "1"],
        "plain": [],
    }
    assert found.labels == ("birds", "crane", "machines", "crane", "plain")
    assert found.languages == {"de": {0: "Vögel", 1: "Kranich"}}
    assert found.aliases == {1: ("a|b",)}
    assert found.templates == {2: ("{}, a machine",)}
    assert found.prompts == {3: ("one", "two")}


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_objects_inside_objects(read: Read, kind: str) -> None:
    tree = [
        {"label": "Animals", "children": [
            {"label": "Birds", "children": ["Crane"]}, "Cats"]},
        {"label": "Machines", "children": [{"label": "Crane", "children": []}]},
    ]  # fmt: skip
    data = json.dumps(tree) if kind == "json" else "\n".join(map(json.dumps, tree))
    found = read(f"a.{kind}", data)
    assert links(found) == BIRDS
    assert list(found.names) == ["Animals", "Birds", "Crane", "Cats", "Machines", "Crane"]


def test_line_ends_of_unicode_stay_inside_json_lines(read: Read) -> None:
    assert read("a.jsonl", '"a\u2028b"\n"c\u0085d"\n').labels == ("a\u2028b", "c\u0085d")


def test_the_separator_is_what_makes_sense_of_the_header(read: Read) -> None:
    assert read("a.csv", "label;notes, long\na,b;c\n").labels == ("a,b",)
    assert read("a.csv", "label,a;b;c\na;b,c\n").labels == ("a;b",)
    assert read("a.csv", "label\na;b\n").labels == ("a;b",)


SPECIES = """\
note,Species,genus,KINGDOM,family,common_name,id
,Grus grus,Grus,Animalia,Gruidae,crane|common crane,
,Grus japonensis,Grus,Animalia,Gruidae,,s2
,,Grus,Animalia,Gruidae,cranes,g1
,Incertus solus,NA,Animalia,null,,
,Vagus vagus,Vagus,,,,
,Grus grus,Grus,Animalia,Gruidae,crane|common crane,
,Grus nova,Grus,Animalia,Gruidae,,
"""


def test_one_rank_a_column(read: Read) -> None:
    found = read("a.csv", SPECIES)
    grus = "Animalia/Gruidae/Grus"
    assert found.labels == ("Grus grus", "Grus japonensis", "Grus", "Incertus solus", "Vagus vagus",
                            "Grus nova")  # fmt: skip
    assert links(found) == {
        "Animalia": [],
        "Animalia/Gruidae": ["Animalia"],
        "g1": ["Animalia/Gruidae"],
        f"{grus}/Grus grus": ["g1"],
        "s2": ["g1"],
        # Null ranks are left out; what is below them is not.
        "Animalia///Incertus solus": ["Animalia"],
        "//Vagus": [],
        "//Vagus/Vagus vagus": ["//Vagus"],
        f"{grus}/Grus nova": ["g1"],
    }
    assert found.ranks == ("kingdom", "family", "genus", "species")
    assert ranks(found)["g1"] == ranks(found)["//Vagus"] == "genus"
    assert ranks(found)["Animalia///Incertus solus"] == "species"
    assert found.duplicates == ("Grus grus",)
    aliases = {found.names[node]: names for node, names in found.aliases.items()}
    assert aliases == {"Grus grus": ("crane", "common crane"), "Grus": ("cranes",)}


def test_homonyms_under_one_genus_are_told_by_their_ids(read: Read) -> None:
    found = read("a.csv", "id,genus,species\n1,A,a\n2,A,a\n2,A,a\n")
    assert found.labels == ("a", "a")
    assert links(found) == {"A": [], "1": ["A"], "2": ["A"]}
    assert found.duplicates == ("a",)


def test_a_name_at_two_ranks_is_two_nodes(read: Read) -> None:
    found = read("a.csv", "family,genus,species\nA,B,B\nA,,B\nA,B,\n")
    assert found.labels == ("B", "B", "B")
    assert links(found) == {"A": [], "A/B": ["A"], "A/B/B": ["A/B"], "A//B": ["A"]}


def test_children_may_come_before_their_parents(read: Read) -> None:
    found = read("a.csv", "label,parent\nc,b\nb,a|d\nd,a\na,\n")
    assert found.labels == ("c", "b", "d", "a")
    assert links(found) == {"a": [], "d": ["a"], "b": ["a", "d"], "c": ["b"]}
    assert all(p < n for n, p in zip(found.parents.owners, found.parents.indices, strict=True))
    assert [found.names[node] for node in found.label_nodes] == list(found.labels)


def test_ranks_of_other_kinds_are_ordered_by_what_is_above_what(read: Read) -> None:
    found = read("a.csv", "label,parent,rank\nsoap,care,product\ncare,,aisle\npen,care,product\n")
    assert found.ranks == ("aisle", "product")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", "a\n    b\n  c\n", "line 3: indented by 2"),
        ("a.txt", "  a\nb\n", "line 2: indented by 0"),
        ("a.txt", "a\n\tb\n        c\n", "line 3: .*tabs or spaces"),
        ("a.txt", "a\n  b\n  \tc\n\td\n", "line 4: .*tabs or spaces"),
        ("a.csv", 'label,x\n"a\nb",1\nc,d,e\n', "line 4: 3 cells under a header of 2"),
        ("a.csv", 'label\na\n"b\nc\nd\n', "line 3"),
        ("a.csv", 'label,x\na,"b"c\n', "line 2"),
        ("a.csv", "label,Label\na,b\n", "'Label' is there twice"),
        ("a.csv", "", "no column 'label'"),
        ("a.csv", '"label' + "x" * 140_000, "line 1: field larger than field limit"),
        ("a.csv", "species,name\na,b\n", "two or more ranks"),
        ("a.csv", "genus,species\nA,a\nNA,null\n", "line 3: no name in any of genus, species"),
        ("a.csv", "label,parent\nrobin,Avez\nAves,\n", "line 2: .*'Avez'.*nearest: 'Aves'"),
        ("a.csv", "label,parent\na,zzzz\n", "line 2: the parent 'zzzz' of 'a' has no line"),
        ("a.csv", "id,label,parent\n1,x,\n2,x,\n3,y,x\n", "line 4: .*line 2 or line 3"),
        ("a.csv", "label,parent\na,c\nb,a\nc,b\nd,a\n", "line 2: .*a → c → b → a"),
        ("a.csv", "label,parent\nd,a\na,a\n", "line 3: .*a → a"),
        ("a.csv", "id,label\n1,a\n1,b\n", "line 3: 'b' has the id or path of 'a'.*line 2"),
        ("a.csv", "label,parent\nb,\nc,\na,b\na,c\n", "line 5: 'a' has other parents.*line 4"),
        ("a.csv", "label,aliases\na,b\nc," + "x" * 2001, "line 3: the alias 'x+'.* 2001"),
        ("a.csv", "label,lang:de\na,b\nc,\0", "line 3: the name .*NUL"),
        ("a.csv", "label,template\na,{}\nc,{}{}\n", "line 3: template '{}{}'"),
        ("a.json", '[{"label": "a", "children": ["b", {"x": 1}]}]', "entry 3"),
        ("a.json", '["a", {"label": "b", "parent": [1.5]}]', "entry 2: 'parent' holds 1.5"),
        ("a.json", '["a", {"label": "b", "lang": "de"}]', "entry 2: 'lang'"),
        ("a.json", '["a", {"label": "b", "children": "c"}]', "entry 2: 'children' of 'b'"),
        ("a.json", '["a", {"label": "b", "id": true}]', "entry 2: 'id' holds true"),
        ("a.jsonl", '"a"\n{"label": "b", "children": ["c", ""]}\n', "line 2: the label is empty"),
    ],
)
def test_errors_name_the_file_and_the_place(read: Read, name: str, data: str, message: str) -> None:
    with pytest.raises((LabelError, TemplateError), match=message) as caught:
        read(name, data)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
).filter(lambda name: name == name.strip())


@settings(max_examples=60)
@given(names=st.lists(NAMES, min_size=1, max_size=8, unique=True))
def test_any_label_comes_through_tables_and_json(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("names")
    for suffix, separator in ((".csv", ","), (".tsv", "\t")):
        with (folder / f"a{suffix}").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL)
            writer.writerows([["label", "n"], *([name, n] for n, name in enumerate(names))])
        assert taxonomy.read(folder / f"a{suffix}").labels == tuple(names)
    for ascii in (True, False):
        (folder / "a.json").write_text(json.dumps(names, ensure_ascii=ascii), encoding="utf-8")
        assert taxonomy.read(folder / "a.json").labels == tuple(names)
        lines = "\n".join(json.dumps(name, ensure_ascii=ascii) for name in names)
        (folder / "a.jsonl").write_text(lines, encoding="utf-8")
        assert taxonomy.read(folder / "a.jsonl").labels == tuple(names)


def test_columns_can_be_chosen_to_be_ranks(tmp_path: Path) -> None:
    path = tmp_path / "emoji.csv"
    path.write_text(
        "id,label,group,subgroup,aliases\n1,dog face,animals,mammals,dog\n2,rocket,travel,,\n",
        encoding="utf-8",
    )
    found = taxonomy.read(path, ranks=("group", "subgroup"))
    assert found.labels == ("dog face", "rocket")
    assert found.ranks == ("group", "subgroup")
    structure = Structure(found)
    names = [[found.names[node] for node in structure.path(label)] for label in (0, 1)]
    assert names == [["animals", "mammals", "dog face"], ["travel", "rocket"]]
    assert list(found.aliases.values()) == [("dog",)]
    with pytest.raises(LabelError, match="line 1: no column 'genre' in the header; it has: id"):
        taxonomy.read(path, ranks=("genre",))
    with pytest.raises(LabelError, match="no columns"):
        taxonomy.read(_text(tmp_path), ranks=("group",))


def _text(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("a\n", encoding="utf-8")
    return path

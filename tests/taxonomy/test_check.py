"""What is reported about labels before they are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zsic_index import taxonomy
from zsic_index.taxonomy import Taxonomy
from zsic_index.taxonomy.check import LabelReport, check


def named(found: Taxonomy, groups: Sequence[Sequence[int]]) -> list[list[str]]:
    return [[found.labels[label] for label in group] for group in groups]


def test_nothing_to_report() -> None:
    found = taxonomy.collect(["red fox", "grey wolf", "élan", "лиса", "C", "C++"])
    assert check(found) == LabelReport((), (), (), (), (), (), ())


def test_names() -> None:
    found = taxonomy.collect(
        [
            "cat",
            "Cat",
            "cat",
            "сat",
            "T-shirt",
            "T\u2013shirt",
            "ab",
            "a\u200bb",
            "d  e",
            "d e",
            "O'Neil",
            "O’Neil",
            "café",
            "cafe",
        ]
    )
    report = check(found)
    assert report.duplicates == ("cat",)
    assert report.twins == (("cat", "Cat"),)
    assert named(found, report.look_alikes) == [
        ["cat", "Cat", "сat"],
        ["T-shirt", "T\u2013shirt"],
        ["ab", "a\u200bb"],
        ["d  e", "d e"],
        ["O'Neil", "O’Neil"],
    ]
    assert report.homonyms == ()
    assert report.same_prompts == ()


def test_prompts_and_homonyms(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "id,label,parent,template,prompt\n"
        '1,animals,,"{}, an animal",\n2,machines,,,\n3,crane,1,,\n4,crane,2,,\n5,crane,2,,\n'
        '6,hoist,,,This is a photo of crane.\n7,heron,,"{}, an animal",\n',
        encoding="utf-8",
    )
    found = taxonomy.read(path)
    report = check(found)
    assert report.homonyms == ((2, 3, 4),)
    assert report.same_prompts == ((3, 4, 5),)
    assert check(found, ["{}"]).same_prompts == ((3, 4),)


def letters(prompts: list[str]) -> list[list[int]]:
    """A tokeniser that knows letters in any case, and nothing else."""
    return [[ord(char) for char in prompt.casefold() if char.isalpha()] for prompt in prompts]


def test_tokens() -> None:
    found = taxonomy.collect(["C", "dog", "C++", "ab cd", "abc d", "a long one", "c"])
    report = check(found, ["{}", "a {}"], tokenise=letters, max_tokens=8)
    assert named(found, report.same_tokens) == [["C", "C++", "c"], ["ab cd", "abc d"]]
    assert report.too_long == ((5, 9),)
    assert check(found, ["{}"], tokenise=letters).too_long == ()


def test_more_labels_than_one_batch() -> None:
    found = taxonomy.collect([*(f"label {n}" for n in range(10_000)), "label-42"])
    sizes: list[int] = []

    def tokenise(prompts: list[str]) -> list[list[int]]:
        sizes.append(len(prompts))
        return [[ord(char) for char in prompt.replace("-", " ")] for prompt in prompts]

    report = check(found, ["{}", "a {}"], tokenise=tokenise)
    assert report.same_tokens == ((42, 10_000),)
    assert sum(sizes) == 20_002
    assert len(sizes) > 1

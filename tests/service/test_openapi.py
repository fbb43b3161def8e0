"""The OpenAPI document stays compatible, and takes its parts from one source."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.openapi import incompatibilities
from tests.support.paths import DATA
from tests.tools.openapi_document import openapi_document
from zsic_index import LabelIndex, records
from zsic_index.querying.query import OPTIONS

RELEASED: dict[str, Any] = json.loads((DATA / "openapi.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    store = tmp_path_factory.mktemp("openapi") / "store.db"
    LabelIndex.from_embeddings(["x"], [[1.0]], logit_scale=1.0, name="bare", store=store).close()
    return openapi_document(Path(store))


def test_the_document_is_compatible_with_the_released_one(document: dict[str, Any]) -> None:
    assert incompatibilities(RELEASED, document) == []


def test_options_of_a_query_come_from_one_source(document: dict[str, Any]) -> None:
    properties = document["components"]["schemas"]["ClassifyRequest"]["properties"]
    offered = {name: option for name, option in OPTIONS.items() if not option.local}
    assert properties.keys() == offered.keys() | {"index", "templates", "images"}
    for name, option in offered.items():
        assert option.description
        assert properties[name]["description"].startswith(option.description)


@pytest.mark.parametrize(
    ("schema", "record"),
    [
        ("LabelPrediction", records.Prediction),
        ("RolledUp", records.NodePrediction),
        ("ServedIndexInfo", records.ServedIndexInfo),
        ("LabelRecord", records.LabelRecord),
    ],
)
def test_records_come_from_one_source(
    document: dict[str, Any], schema: str, record: type[Any]
) -> None:
    component = document["components"]["schemas"][schema]
    keys = records.json_names(record)
    assert set(component["properties"]) == set(component["required"]) == set(keys.values())
    for name, description in records.field_descriptions(record).items():
        assert description
        in_json = component["properties"][keys[name]]["description"]
        assert in_json == description.replace("None", "null")


def schema(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"][name]
    return found


def drop_property(document: dict[str, Any]) -> None:
    del schema(document, "ClassifyRequest")["properties"]["lang"]


def change_type(document: dict[str, Any]) -> None:
    schema(document, "ServedIndexInfo")["properties"]["dim"]["type"] = "string"


def change_default(document: dict[str, Any]) -> None:
    schema(document, "ScoreRequest")["properties"]["top_k"]["default"] = 3


def require_more(document: dict[str, Any]) -> None:
    schema(document, "ClassifyRequest")["required"].append("index")


def require_less(document: dict[str, Any]) -> None:
    schema(document, "LabelPrediction")["required"].remove("interval")


def lower_a_bound(document: dict[str, Any]) -> None:
    schema(document, "ClassifyRequest")["properties"]["top_k"]["maximum"] = 10


def restrict_a_request(document: dict[str, Any]) -> None:
    schema(document, "ClassifyRequest")["properties"]["lang"]["anyOf"][0]["enum"] = ["de"]


def drop_status(document: dict[str, Any]) -> None:
    del document["paths"]["/v1/classify"]["post"]["responses"]["429"]


def drop_parameter(document: dict[str, Any]) -> None:
    document["paths"]["/v1/indexes/{name}/labels"]["get"]["parameters"].pop()


@pytest.mark.parametrize(
    "change",
    [
        *(drop_property, change_type, change_default, require_more, require_less, lower_a_bound),
        *(restrict_a_request, drop_status, drop_parameter),
    ],
)
def test_an_incompatible_document_is_noticed(change: Any) -> None:
    changed = copy.deepcopy(RELEASED)
    change(changed)
    assert len(incompatibilities(RELEASED, changed)) == 1

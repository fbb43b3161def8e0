"""What requests and answers hold: the source of the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from zsic_index.querying.query import Query

MAX_TOP_K = 1_000
_MAX_TEXT = 1_000

Text = Annotated[str, Field(min_length=1, max_length=_MAX_TEXT)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """Anything that is sent: nothing is in it that is not known, no infinity, no NaN."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null", allow_inf_nan=False)


class ImageInput(Record):
    """An image: its file in base64, or an address where the service is allowed to fetch it."""

    name: Text | None = Field(None, description="What answers call it.")
    data: str | None = Field(None, description="The file in base64, or as a data: URL.")
    url: Annotated[str, Field(max_length=8_000)] | None = Field(
        None, description="http or https; only where the service was started with --allow-urls."
    )

    @model_validator(mode="after")
    def _one(self) -> ImageInput:
        if (self.data is None) == (self.url is None):
            raise ValueError("an image has either data or a url")
        return self


class Asked(Record):
    """What is asked about each image; without any of it, the five most probable labels."""

    index: Text | None = Field(
        None, description="Name of the index; may be left out where only one is served."
    )
    top_k: int = Field(5, ge=1, le=MAX_TOP_K, description="Labels or nodes of an answer, at most.")
    labels: list[Text] = Field(
        [], description="Only among these labels of the index: probabilities are over them."
    )
    over_index: bool = Field(False, description="Also give each probability over the whole index.")
    under: Text | None = Field(
        None, description="Only among the labels below a node of the taxonomy."
    )
    rank: Text | None = Field(
        None, description="Roll up to a rank of the taxonomy, or to 'depth 2' and so on."
    )
    deepest: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="The deepest node of the taxonomy whose probability reaches this."
    )
    floors: dict[Text, Probability] = Field(
        {}, description="Other floors than deepest, by rank. In a form: RANK=FLOOR."
    )
    independent: bool = Field(
        False, description="Sigmoid models: a node's probability is that of at least one label."
    )
    threshold: Probability | None = Field(
        None, description="Leave out labels that are less probable."
    )
    thresholds: Literal["calibrated"] | None = Field(
        None, description="The same for each label, as calibrate has fitted them."
    )
    sets: bool = Field(False, description="All labels of the prediction set that was fitted.")
    none_below: Probability | None = Field(
        None, description="'None of these' where the best label is less probable."
    )
    none_within: Probability | None = Field(
        None, description="'None of these' where the best label is so little ahead of the second."
    )
    calibrated: bool = Field(False, description="Answer with what was fitted for the index.")
    lang: Text | None = Field(None, description="Give names in this language, where there are any.")
    templates: list[Text] = Field(
        [],
        max_length=100,
        description="Answer under these templates (or names of template sets) instead of the "
        "index's own. The first time takes as long as encoding its labels.",
    )

    def query(self) -> Query:
        """Return what is asked.

        Raises:
            InputError: when two things exclude each other.
        """
        asked = {name: getattr(self, name) for name in _ASKED}
        return Query(**asked | {"labels": tuple(self.labels)})


_ASKED = [name for name in Query.__dataclass_fields__ if name in Asked.model_fields]


class ClassifyRequest(Asked):
    """Images, and what is asked about them."""

    images: list[str | ImageInput] = Field(
        min_length=1, description="Files in base64, or objects with a name."
    )


class ScoreRequest(Asked):
    """Ready image embeddings, and what is asked about them. No vision tower is needed."""

    embeddings: list[list[float] | str] = Field(
        min_length=1,
        description="Lists of numbers, or base64 of little-endian float32. They are normalised.",
    )


class EmbeddingsRequest(Record):
    """Images or prompts to be embedded: one of both."""

    index: Text | None = Field(
        None, description="An index of the encoder; may be left out where only one is served."
    )
    images: list[str | ImageInput] = Field([], description="See /v1/classify.")
    prompts: list[Annotated[str, Field(max_length=10_000)]] = Field(
        [], description="Texts as they are; no template is put around them."
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="Numbers, or base64 of little-endian float32."
    )


class LabelPrediction(Record):
    """A label for an image. Of several names, similarity is the largest."""

    label: str
    probability: float
    logit: float
    similarity: float
    label_id: int | None
    index_probability: float | None
    interval: tuple[float, float] | None


class RolledUp(Record):
    """A node of the taxonomy for an image."""

    label: str
    probability: float
    rank: str | None
    key: str | None
    path: list[str]


class Refusal(Record):
    """Why an image was refused: the status is what it would be if it had been sent alone."""

    status: int
    detail: str


class Classification(Record):
    """One image's answer: predictions, best first, or an error."""

    image: str = Field(description="Its name; its place among the images where it has none.")
    predictions: list[LabelPrediction | RolledUp] | None = None
    none_of_these: str | None = Field(None, description="Why no label is accepted.")
    error: Refusal | None = None


class Classifications(Record):
    """Answers in the order of the images; ``done + refused`` is their number."""

    index: str
    generation: int = Field(description="Which state of the index has answered, for all images.")
    results: list[Classification]
    done: int
    refused: int


class Embedding(Record):
    """One image's or prompt's embedding, of norm 1, or an error."""

    image: str | None = None
    prompt: str | None = None
    embedding: list[float] | str | None = None
    error: Refusal | None = None


class Embeddings(Record):
    """Embeddings in the order of what was sent; ``done + refused`` is their number."""

    index: str
    model_id: str | None
    dim: int
    results: list[Embedding]
    done: int
    refused: int


class ServedIndexInfo(Record):
    """An index that is served."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: str
    model_id: str | None
    revision: str | None
    dtype: str
    templates: list[str]
    kind: str
    names: str
    labels: int
    dim: int
    logit_scale: float
    logit_bias: float
    activation: Literal["softmax", "sigmoid"]
    generation: int
    updated_at: float = Field(description="Seconds since the epoch.")
    ranks: list[str] = Field(description="What rank takes.")
    languages: list[str] = Field(description="What lang takes.")
    calibrated: bool = Field(description="Whether something was fitted for it.")


class ServedIndexes(Record):
    """All indexes that are served, and the template sets that can be named."""

    indexes: list[ServedIndexInfo]
    template_sets: dict[str, int] = Field(description="Names, and how many templates each has.")


class LabelRecord(Record):
    """A label of an index."""

    label_id: int
    id: str = Field(description="What it is known by in its taxonomy.")
    label: str
    parent: list[str]
    rank: str | None
    aliases: list[str]
    lang: dict[str, str]
    path: list[str]


class Labels(Record):
    """A page of labels, in the taxonomy's order."""

    index: str
    generation: int
    total: int = Field(description="How many were found in all.")
    labels: list[LabelRecord]


class Health(Record):
    """Whether the service is there, or ready."""

    status: Literal["ok"]


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = None
    results: list[Classification] | None = None

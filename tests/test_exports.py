"""The public names: all there, all documented."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import pytest

import zsic_index


@pytest.mark.parametrize("name", zsic_index.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(zsic_index, name)
    if inspect.isclass(value):
        assert inspect.getdoc(value)
        for method, member in inspect.getmembers(value, inspect.isroutine):
            if not method.startswith("_") and method in vars(value):
                assert inspect.getdoc(member), f"{name}.{method}"


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="LabelIndx"):
        _ = zsic_index.LabelIndx


def test_version_is_the_package_s() -> None:
    assert version("zsic-index") == zsic_index.__version__


def test_errors_share_a_base() -> None:
    for name in zsic_index.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(zsic_index, name), zsic_index.ZsicError)

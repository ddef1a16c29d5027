"""Found, not collected: an item of the wrong type goes into the body of a map unchecked.

Run: pytest -o python_files="found_*.py" packages/flujo-core/tests/found_map.py
"""

from __future__ import annotations

from typing import Any

import pytest

from flujo.core import Flujo, Map, Step, step

pytestmark = pytest.mark.anyio


@step
async def upper(word: str) -> str:
    return word.upper()


async def test_an_item_of_another_type_is_a_mismatch_that_names_both_types() -> None:
    """Between steps: exact type or isinstance. In a chain it is checked; an item goes into the body unchecked."""

    async def loose(start: int) -> Any:
        return [1, "two"]

    result = await Flujo(Step(loose) >> Map(upper)).run_async(1)
    assert result.status == "failed"
    assert "AttributeError" not in str(result.error)
    assert "int" in str(result.error)
    assert "str" in str(result.error)

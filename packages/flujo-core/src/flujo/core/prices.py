"""A table of prices from a file: what a run was priced by can be named, pinned and looked up later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ConfigurationError
from .foreign import text_of
from .marks import hookimpl
from .usage import EXACT, ZERO, Price

_Usd = Annotated[Decimal, Field(ge=0)]


class _Strict(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class _Row(_Strict):
    input_usd_per_mtok: _Usd
    output_usd_per_mtok: _Usd
    request_usd: _Usd = ZERO
    max_output_tokens: int | None = Field(default=None, gt=0, strict=True)


class _File(_Strict):
    format: Literal["flujo-prices"]
    version: Literal[1]
    name: str = Field(pattern=r"^[\w.-]{1,60}$")
    models: dict[str, _Row]


class PriceTable:
    """A price book made of a JSON file, as `Flujo(..., plugins=[PriceTable.load("prices.json")])`.

    Attributes:
        name: What the file calls itself, e.g. `acme-2026-11`.
        sha256: Digest of the file, in hex. With the name it stands in `result.counts["priced_by"]`, the snapshot and
            the audit log of each run that it priced.
    """

    def __init__(self, data: bytes) -> None:
        table = _File.model_validate(json.loads(data, parse_float=Decimal, object_pairs_hook=_once))
        self.name: str = table.name
        self.sha256: str = hashlib.sha256(data).hexdigest()
        source = f"{self.name} sha256:{self.sha256}"
        self._prices = {
            model: Price(
                row.input_usd_per_mtok.scaleb(-6, EXACT), row.output_usd_per_mtok.scaleb(-6, EXACT), row.request_usd,
                row.max_output_tokens, source,
            )
            for model, row in table.models.items()
        }  # fmt: skip

    @classmethod
    def load(cls, path: str | Path, *, sha256: str | None = None) -> PriceTable:
        """Read a table.

        Args:
            path: The file: `{"format": "flujo-prices", "version": 1, "name": "acme-2026-11", "models": {"acme:small":
                {"input_usd_per_mtok": "2.50", "output_usd_per_mtok": "10", "request_usd": "0.001",
                "max_output_tokens": 8192}}}`. The last two may be left out; `_per_mtok` is USD for a million tokens.
            sha256: The digest it must have.

        Raises:
            ConfigurationError: It cannot be read, has another digest, or something in it is no price.
        """
        what = f"price table {str(path)!r} cannot be used"
        try:
            table = cls(Path(path).read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ConfigurationError(what, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigurationError(what, text_of(error)) from None
        if sha256 is not None and sha256.lower() != table.sha256:
            raise ConfigurationError(what, f"its digest is {table.sha256}, wanted is {sha256}", "Look who changed it")
        return table

    def price(self, model: str) -> Price | None:
        """What a model costs; None when it is not in the table."""
        return self._prices.get(model)

    @hookimpl
    def register_price_books(self) -> Sequence[PriceTable]:
        """Itself."""
        return [self]


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON; of a name that stands there twice, nobody knows which price is meant."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return made

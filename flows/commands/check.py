"""`tidegauge check`: are the settings right? Needs no network."""

from __future__ import annotations

from typing import Annotated

import yaml
from cyclopts import Parameter

from flows.assembly import Parts
from flows.pricing import PriceBook
from flows.settings_file import load, shown


def check(
    *,
    config: Annotated[str | None, Parameter(name=["--config", "-c"])] = None,
    quiet: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Check settings and prices, and print the settings in full, with secrets as ***.

    Example: tidegauge check --config tidegauge.yaml

    Parameters
    ----------
    config
        Settings file; the defaults are printed without one.
    quiet
        Print nothing when all is well.
    """
    settings = load(config)
    book = PriceBook.load(settings.pricing.overlay)
    Parts(settings, book)
    if not quiet:
        print(yaml.safe_dump(shown(settings), sort_keys=False, allow_unicode=True), end="")
        print(f"# {config or 'defaults'}: ok, prices {book.version}")
    return 0

"""`tidegauge schema`: the JSON Schema of events and incidents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from schemas.errors import BadSettings
from schemas.json_schema import documents


def schema(name: str | None = None, *, out: Annotated[str | None, Parameter(name="--out")] = None) -> int:
    """Print a JSON Schema, or write all of them to a folder.

    Example: tidegauge schema request_event

    Parameters
    ----------
    name
        `request_event`, `gpu_event` or `incident`; all of them, as one object, when left out.
    out
        Folder for one file each.
    """
    known = documents()
    if name is not None and name not in known:
        raise BadSettings(f"schema: there is no `{name}`; choose from {', '.join(sorted(known))}.")
    chosen = known if name is None else {name: known[name]}
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        for key, document in chosen.items():
            (folder / f"{key}.schema.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
            print(folder / f"{key}.schema.json")
        return 0
    print(json.dumps(chosen if name is None else chosen[name], indent=2))
    return 0

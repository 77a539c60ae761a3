"""Secrets that cannot be printed by accident."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import NoReturn

from schemas.errors import BadSettings

HIDDEN = "***"


class Secret:
    """A text that prints as `***` wherever it lands: in `repr`, `str`, f-strings, logs and error messages.

    msgspec and orjson refuse to encode it, pickle and copy refuse too: a secret that has to travel is revealed on
    purpose.

    Parameters
    ----------
    value
        The secret itself; not empty.

    Examples
    --------
    >>> key = Secret("hunter2")
    >>> f"{key} {key!r} {key:>10}"
    '*** *** ***'
    >>> key.reveal()
    'hunter2'
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        if not value:
            raise ValueError("a secret must not be empty")
        self.__value = value

    @classmethod
    def read(cls, value: str | None, file: str | Path | None, *, what: str) -> Secret | None:
        """Take a secret from settings: given directly, or as the stripped content of a file; None if neither is set.

        Parameters
        ----------
        what
            What it is for, as error messages should say it: ``destinations[0].url``.

        Raises
        ------
        BadSettings
            Both are given, or the file cannot be read, or there is nothing in it.
        """
        if value is not None and file is not None:
            raise BadSettings(f"{what}: give either `{what}` or `{what}_file`, not both")
        if file is not None:
            try:
                value = Path(file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise BadSettings(f"{what}_file: cannot read `{file}` ({type(error).__name__})") from None
            if not value:
                raise BadSettings(f"{what}_file: `{file}` is empty")
        if value is None:
            return None
        if not value.strip():
            raise BadSettings(f"{what}: is empty; is its environment variable set?")
        return cls(value.strip())

    def reveal(self) -> str:
        """Return the secret itself, for the one place that has to send it."""
        return self.__value

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__value.encode(), other.reveal().encode())

    __hash__ = None  # type: ignore[assignment]  # a hash would be a way to guess at the value

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled or copied: reveal it where it is needed")


def as_secret(value: Secret | str) -> Secret:
    """Wrap a plain text; a `Secret` stays what it is."""
    return value if isinstance(value, Secret) else Secret(value)

"""Input formats by name, as written after `--format` and in the settings.

Adding one: a file beside this one that holds a class of the `Format` protocol, its test, and one line in `FORMATS`.
"""

from __future__ import annotations

from schemas.errors import BadSettings
from schemas.formats.azure_llm import AzureLlmFormat
from schemas.formats.base import Format
from schemas.formats.burstgpt import BurstGptFormat
from schemas.formats.gpu import GpuFormat
from schemas.formats.llmperf import LlmPerfFormat
from schemas.formats.mooncake import MooncakeFormat
from schemas.formats.request import RequestFormat
from schemas.formats.servegen import ServeGenFormat
from schemas.formats.vllm_load_test import VllmLoadTestEngineFormat, VllmLoadTestFormat, VllmLoadTestGpuFormat

FORMATS: dict[str, type[Format]] = {
    "azure-llm": AzureLlmFormat,
    "burstgpt": BurstGptFormat,
    "gpu": GpuFormat,
    "llmperf": LlmPerfFormat,
    "mooncake": MooncakeFormat,
    "request": RequestFormat,
    "servegen": ServeGenFormat,
    "vllm-load-test": VllmLoadTestFormat,
    "vllm-load-test-engine": VllmLoadTestEngineFormat,
    "vllm-load-test-gpu": VllmLoadTestGpuFormat,
}
"""Every input format."""


def get_format(name: str) -> Format:
    """Make the format called `name`.

    Raises
    ------
    BadSettings
        There is no such format; the message lists those that exist.
    """
    try:
        return FORMATS[name]()
    except KeyError:
        raise BadSettings(f"unknown format {name!r}; known formats: {', '.join(sorted(FORMATS))}") from None

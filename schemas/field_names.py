"""Names of fields that hold content (prompts, answers) or secrets, in the spellings that producers use."""

from __future__ import annotations

from functools import lru_cache

CONTENT: frozenset[str] = frozenset((
    "answer", "answers", "arguments", "audio", "b64json", "body", "candidates", "chatmessages", "choices", "chunk",
    "chunks", "completion", "completions", "completiontext", "content", "contentblocks", "contents", "context",
    "conversation", "data", "delta", "deltas", "document", "documents", "embedding", "embeddings", "errormessages",
    "file", "functioncall", "functions", "generatedtext", "generatedtexts", "generation", "generations", "history",
    "image", "images", "imageurl", "input", "inputmessages", "inputprompt", "inputs", "inputtext", "inputvalue",
    "instruction", "instructions", "message", "messages", "modelinput", "modeloutput", "negativeprompt",
    "originalprompt", "output", "outputmessages", "outputs", "outputtext", "outputvalue", "partialjson", "parts",
    "payload", "prompt", "prompts", "prompttext", "queries", "query", "question", "questions", "raw", "rawprompt",
    "rawresponse", "reasoning", "reasoningcontent", "reasoningtext", "renderedprompt", "reply", "requestbody",
    "response", "responsebody", "responses", "responsetext", "stop", "suffix", "summary", "system",
    "systeminstruction", "systeminstructions", "systemprompt", "text", "textcontent", "textdelta", "texts",
    "thinking", "thought", "thoughts", "title", "toolcall", "toolcalls", "tooldefinitions", "toolinput",
    "tooloutput", "toolresult", "toolresults", "tools", "transcript", "userinput", "userprompt",
))  # fmt: skip
"""Last part of the name, in lower case, without `_` and `-`."""

SECRETS: tuple[str, ...] = (
    "password", "passwd", "passphrase", "secret", "apikey", "authorization", "accesskey", "privatekey", "signingkey",
    "routingkey", "credential", "cookie", "bearer", "xapikey",
)  # fmt: skip
"""Parts of names of secrets."""

SECRET_ENDINGS: tuple[str, ...] = ("token", "auth", "pwd", "apikey", "signature", "pass")
"""Endings of names of secrets (`access_token`, but not `input_tokens`)."""

IDENTITIES: frozenset[str] = frozenset({"apikeyid", "apikeyalias", "apikeyname", "accesskeyid", "userapikeyalias"})
"""Names that only look like a secret's: they say which key, not what it is. (An AWS key id goes by its form.)"""

CONTAINERS: frozenset[str] = frozenset({"value", "stringvalue", "arrayvalue", "kvlistvalue", "json"})
"""Last parts that say nothing: the part before them decides (`input.value`)."""

OWN_TEXT: frozenset[str] = frozenset({"message"})
"""Names that hold an error's text as often as content; alone they are scrubbed instead of removed."""


@lru_cache(maxsize=4_096)
def hides_content(name: str) -> bool:
    """Whether a field of this name may hold prompt or completion content."""
    return _kind(name) == "content"


@lru_cache(maxsize=4_096)
def is_sensitive(name: str) -> bool:
    """Whether a field of this name may hold content or a secret."""
    return _kind(name) != ""


def _kind(name: str) -> str:
    parts = [part for part in name.lower().replace("/", ".").split(".") if part and not part.isdigit()]
    parts = [part.replace("_", "").replace("-", "").replace("$", "").replace(" ", "") for part in parts]
    while len(parts) > 1 and parts[-1] in CONTAINERS:
        parts.pop()
    if not parts:
        return ""
    last = parts[-1]
    if last in IDENTITIES:
        return ""
    if any(part in last for part in SECRETS) or last.endswith(SECRET_ENDINGS):
        return "secret"
    if last in CONTENT and not (last in OWN_TEXT and len(parts) == 1):
        return "content"
    return ""

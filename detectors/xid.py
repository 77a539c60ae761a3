"""XID codes: what the NVIDIA driver reports, whether the GPU itself is in doubt, and what to do first.

Codes, names and first actions follow NVIDIA's XID catalog for Ampere and newer GPUs; the wording is ours. The class
is our judgement from the catalog's action: `hardware` where it asks for a reset, a reboot or an inspection of the GPU
or its links, or where the code reports a memory error; `application` where the process is to be restarted or fixed;
`information` where nothing is wrong with the GPU. A code that the table does not know counts as `application`: it is
shown, but does not page.

Not from the catalog but background knowledge of operators: that 63 and 92 (their action is "ignore") are early signs
of failing memory, and that 109 (its action is a reset) is mostly a kernel of the application that hangs.

References
----------
NVIDIA, XID errors, "Analyzing Xid Errors with the Xid Catalog",
https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

XidClass = Literal["hardware", "application", "information"]


@dataclass(frozen=True, slots=True)
class Xid:
    """One XID code.

    Parameters
    ----------
    code
        Number in the kernel log and in `DCGM_FI_DEV_XID_ERRORS`.
    title
        What it says, as short as the log line.
    kind
        `hardware`, `application` or `information`.
    action
        What to do first; empty where the catalog asks for nothing.
    """

    code: int
    title: str
    kind: XidClass
    action: str = ""


_RESET: Final = "reset the GPU"
_RESTART: Final = "restart the application"
_LINK: Final = "check the NVLink path, then reset the GPU"

_ENTRIES: Final[tuple[Xid, ...]] = (
    Xid(8, "GPU stopped processing", "application", _RESTART),
    Xid(11, "invalid or corrupted push buffer stream", "application", _RESTART),
    Xid(13, "graphics engine exception", "application", _RESTART),
    Xid(25, "invalid or illegal push buffer stream", "application", _RESTART),
    Xid(31, "GPU memory page fault", "application", _RESTART),
    Xid(32, "invalid or corrupted push buffer stream", "application", _RESTART),
    Xid(37, "driver firmware error", "application"),
    Xid(38, "driver firmware error", "application"),
    Xid(39, "copy engine exception", "application", _RESTART),
    Xid(40, "copy engine exception", "application", _RESTART),
    Xid(41, "copy engine exception", "application", _RESTART),
    Xid(43, "GPU stopped processing", "application"),
    Xid(44, "graphics engine fault during context switch", "application"),
    Xid(45, "preemptive cleanup after earlier errors", "application", "look for another XID before it"),
    Xid(46, "GPU stopped processing, engine timeout", "hardware", _RESET),
    Xid(48, "double-bit ECC error", "hardware", "drain the node and reset the GPU"),
    Xid(54, "auxiliary power is not connected", "hardware", "check the power cabling"),
    Xid(60, "video processor exception", "application", _RESTART),
    Xid(62, "internal micro-controller halt", "hardware", _RESET),
    Xid(63, "GPU memory row remapping or page retirement", "hardware", "reset the GPU when it is next free"),
    Xid(64, "GPU memory row remapping failure", "hardware", _RESET),
    Xid(66, "illegal access by driver", "application"),
    Xid(67, "illegal access by driver", "application"),
    Xid(68, "video decoder exception", "application", _RESTART),
    Xid(69, "graphics engine class error", "application", _RESTART),
    Xid(74, "NVLink error", "hardware", _LINK),
    Xid(78, "vGPU start error", "application", "update driver and firmware"),
    Xid(79, "GPU has fallen off the bus", "hardware", "drain and restart the node; contact support if it returns"),
    Xid(80, "corrupted data sent to GPU", "application", _RESTART),
    Xid(92, "high single-bit ECC error rate", "hardware", "watch the GPU; contact support if it lasts"),
    Xid(93, "InfoROM wear limit exceeded", "information"),
    Xid(94, "contained memory error", "hardware", "restart the application; reset the GPU when it is next free"),
    Xid(95, "uncontained memory error", "hardware", _RESET),
    Xid(106, "SMBPBI test message", "information"),
    Xid(107, "SMBPBI test message", "information"),
    Xid(109, "context switch timeout", "application", "restart the application; reset the GPU if it hangs again"),
    Xid(110, "security fault", "hardware", _RESET),
    Xid(119, "GSP RPC timeout", "hardware", _RESET),
    Xid(120, "GSP error", "hardware", _RESET),
    Xid(121, "C2C link error", "hardware", "reset the GPU when it is next free"),
    Xid(136, "link training failed", "hardware", _RESET),
    Xid(137, "NVLink privilege error", "application", "look for the fault on the peer GPU"),
    Xid(140, "unrecovered ECC error", "hardware", _RESET),
    Xid(141, "CUDA fast path error", "application"),
    Xid(143, "GPU initialisation error", "hardware", _RESET),
    Xid(144, "NVLink SAW error", "hardware", _LINK),
    Xid(145, "NVLink RLW error", "hardware", _LINK),
    Xid(146, "NVLink TLW error", "hardware", _LINK),
    Xid(147, "NVLink TREX error", "hardware", _LINK),
    Xid(148, "NVLink NVLPW_CTRL error", "hardware", _LINK),
    Xid(149, "NVLink NETIR error", "hardware", _LINK),
    Xid(150, "NVLink MSE error", "hardware", _LINK),
    Xid(151, "key rotation error", "application", "restart the virtual machine"),
    Xid(154, "GPU recovery action changed", "hardware", "take the recovery action that the kernel log names"),
    Xid(155, "NVLink error defined by software", "hardware", _LINK),
    Xid(156, "resource retirement event", "hardware", _RESET),
    Xid(157, "resource retirement failure", "hardware", "contact support"),
    Xid(158, "GPU fatal timeout", "hardware", _RESET),
    Xid(160, "channel retirement event", "hardware"),
    Xid(161, "channel retirement failure", "hardware"),
    Xid(162, "power smoothing re-engaged", "information"),
    Xid(163, "power smoothing disengaged", "information"),
    Xid(164, "power smoothing: low lifetime", "information"),
    Xid(165, "power smoothing: lifetime exhausted", "information"),
    Xid(167, "PCIe fatal timeout", "hardware", "restart the node"),
    Xid(168, "reduced GPU memory capacity", "hardware", "contact support"),
    Xid(169, "internal micro-controller halt", "hardware", _RESET),
    Xid(171, "uncorrectable DRAM error", "hardware", "drain the node and reset the GPU"),
    Xid(172, "uncorrectable SRAM error", "hardware", "drain the node and reset the GPU"),
)

XIDS: Final[dict[int, Xid]] = {entry.code: entry for entry in _ENTRIES}
"""Known codes."""

HARDWARE_CODES: Final[tuple[int, ...]] = tuple(e.code for e in _ENTRIES if e.kind == "hardware")
"""Codes after which a GPU counts as unhealthy, ascending."""


def classify(code: int) -> XidClass:
    """Class of a code; an unknown one counts as `application`.

    Examples
    --------
    >>> classify(79), classify(31), classify(9999)
    ('hardware', 'application', 'application')
    """
    known = XIDS.get(code)
    return "application" if known is None else known.kind


def describe_xids(codes: Iterable[int]) -> str:
    """Newly seen codes as one text for an incident: each once, hardware first, otherwise in the given order.

    Examples
    --------
    >>> describe_xids([31, 79])
    'XID 79: GPU has fallen off the bus (drain and restart the node; contact support if it returns); XID 31: GPU \
memory page fault (restart the application)'
    >>> describe_xids([])
    ''
    """
    once = list(dict.fromkeys(codes))
    once.sort(key=lambda code: classify(code) != "hardware")
    return "; ".join(_describe(code) for code in once)


def _describe(code: int) -> str:
    known = XIDS.get(code)
    if known is None:
        return f"XID {code}: not in the catalog"
    return f"XID {code}: {known.title}" + (f" ({known.action})" if known.action else "")

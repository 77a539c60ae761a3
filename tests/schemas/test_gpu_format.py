from __future__ import annotations

import pytest

from schemas.errors import BadEvent, Reason
from schemas.formats.gpu import GpuFormat

START = b'{"at":1767268800,"node":"n1"'


@pytest.mark.parametrize(
    ("payload", "reason", "where"),
    [
        (START + b"}", Reason.MISSING_FIELD, "`gpu_uuid` or `gpu_index`"),
        (START + b',"gpu_uuid":""}', Reason.MISSING_FIELD, "`gpu_uuid` or `gpu_index`"),
        (b'{"at":1,"gpu_index":0}', Reason.MISSING_FIELD, "`node`"),
        (START + b',"gpu_index":0,"util":1.01}', Reason.OUT_OF_RANGE, "`$.util`"),
        (START + b',"gpu_index":0,"util":-0.01}', Reason.OUT_OF_RANGE, "`$.util`"),
        (START + b',"gpu_index":-1}', Reason.OUT_OF_RANGE, "`$.gpu_index`"),
        (START + b',"gpu_index":0,"util_source":"walrus"}', Reason.OUT_OF_RANGE, "`$.util_source`"),
        (START + b',"gpu_index":0,"throttled":"yes"}', Reason.WRONG_TYPE, "`$.throttled`"),
        (START + b',"gpu_index":0,"xid":79.5}', Reason.WRONG_TYPE, "`$.xid`"),
        (START, Reason.NOT_PARSABLE, ""),
        (b"", Reason.EMPTY, ""),
    ],
)
def test_a_refusal_says_why_and_where_but_not_what(payload: bytes, reason: Reason, where: str) -> None:
    with pytest.raises(BadEvent) as caught:
        GpuFormat().decode(payload)
    assert caught.value.reason is reason
    assert where in caught.value.detail
    assert "walrus" not in caught.value.detail


@pytest.mark.parametrize("identity", [b'"gpu_uuid":"GPU-1"', b'"gpu_index":0'])
def test_uuid_or_index_identifies_a_gpu(identity: bytes) -> None:
    (event,) = GpuFormat().decode(START + b"," + identity + b',"util":0.5}')
    assert event.util == 0.5

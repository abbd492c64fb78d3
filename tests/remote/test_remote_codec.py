"""Messages: what openpi's encoding is, and what is refused, whatever the bytes are."""

import pickle
import tracemalloc
from contextlib import suppress

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from worldmodel.errors import MessageError
from worldmodel.remote.codec import MAX_CONTAINERS, pack, unpack

DTYPES = ["<f4", "<f8", "|u1", "<i8", "|b1", ">f4", "<f2", "<u2"]


def array(**changes) -> bytes:
    """An array of two float32, with some entries of its encoding replaced."""
    encoding = {b"__ndarray__": True, b"data": bytes(8), b"dtype": "<f4", b"shape": [2]}
    return msgpack.packb({"state": encoding | {key.encode(): value for key, value in changes.items()}})


@given(
    hnp.arrays(
        st.sampled_from(DTYPES),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0),
        elements={"allow_nan": False},
    )
)
def test_arrays_come_back_to_the_bit(values):
    found = unpack(pack({"a": values}))["a"]
    assert found.dtype == values.dtype
    assert found.shape == values.shape
    assert np.array_equal(found, values)
    assert not found.flags.writeable


def test_the_bytes_are_those_that_openpi_documents():
    packed = msgpack.unpackb(pack({"a": np.array([[1, 2]], ">i2"), "b": np.float32(0.5), "c": "text"}))
    assert packed == {
        "a": {b"__ndarray__": True, b"data": b"\x00\x01\x00\x02", b"dtype": ">i2", b"shape": [1, 2]},
        "b": {b"__npgeneric__": True, b"data": 0.5, b"dtype": "<f4"},
        "c": "text",
    }


def test_scalars_text_and_numbers_come_back():
    message = {
        "flag": np.bool_(True),
        "count": np.uint8(7),
        "x": 1.5,
        "n": -3,
        "text": "ä",
        "list": [1, None],
    }
    found = unpack(pack(message))
    assert found == message
    assert found["count"].dtype == np.uint8


def test_arrays_that_do_not_lie_in_c_order_are_sent_in_it():
    image = np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)[:, ::-1]
    assert np.array_equal(unpack(pack({"a": image}))["a"], image)


@pytest.mark.parametrize(
    "value", [np.array([object()]), np.array(["a"]), np.array([1j]), np.zeros(2, "V4"), object(), {1, 2}]
)
def test_what_is_no_number_is_not_sent(value):
    with pytest.raises(MessageError, match="no encoding"):
        pack({"a": value})


REFUSED = [
    (array(dtype="|O"), "only numbers"),
    (array(dtype="O"), "only numbers"),
    (array(dtype="|V8"), "only numbers"),
    (array(dtype="<c8"), "only numbers"),
    (array(dtype="f4,f4"), "only numbers"),
    (array(dtype="<f16"), "only numbers"),
    (array(dtype="|S999999999"), "only numbers"),
    (array(dtype=["<f4"]), "only numbers"),
    (array(dtype=None), "only numbers"),
    (array(shape=[3]), "8 bytes are no array of shape"),
    (array(shape=[2**40, 2**40]), "no array of shape"),
    (array(shape=[-2]), "whole numbers"),
    (array(shape=[True, 2]), "whole numbers"),
    (array(shape=[2.0]), "whole numbers"),
    (array(shape=2), "whole numbers"),
    (array(shape=[1] * 9 + [2]), "at most 8"),
    (array(shape=[0, 2**62], data=b""), "an array of shape"),
    (array(data=7), "must be bytes"),
    (array(data=[1, 2]), "must be bytes"),
    (msgpack.packb({b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}), "must be a number"),
    (msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}), "300 is none of"),
    (msgpack.packb({b"__npgeneric__": True, b"data": 1.0, b"dtype": "O"}), "only numbers"),
    (b"", "no MessagePack"),
    (b"\xc1", "no MessagePack"),
    (b"\x81\xa1\xff\x01", "no MessagePack"),  # text that is no UTF-8
    (msgpack.packb({"a": 1})[:-1], "no MessagePack"),
    (msgpack.packb({"a": 1}) + b"\x00", "no MessagePack"),
    (msgpack.packb({3: 1}), "no MessagePack"),
    (msgpack.packb(msgpack.ExtType(5, b"x")), "no MessagePack"),
    (msgpack.packb(msgpack.Timestamp(1)), "no MessagePack"),
    (pickle.dumps({"state": np.zeros(3)}), "no MessagePack"),
    (b"\xdd\xff\xff\xff\xff", "no MessagePack"),  # a list of 4 billion
    (b"\xdf\xff\xff\xff\xff", "no MessagePack"),
    (b"\x91" * 100_000, "no MessagePack"),  # lists in lists
    (b"\x81\xa1a" * 100_000, "no MessagePack"),
]


@pytest.mark.parametrize(("frame", "rule"), REFUSED, ids=range(len(REFUSED)))
def test_what_openpi_does_not_send_is_refused(frame, rule):
    with pytest.raises(MessageError, match=rule):
        unpack(frame)


def test_many_small_containers_cost_no_memory():
    def nested(levels: int) -> bytes:
        return b"\x80" if levels == 0 else b"\xdc\x00\x80" + nested(levels - 1) * 128

    bomb = nested(3)  # two million empty maps, each worth 64 bytes of memory
    assert len(bomb) > 2_000_000
    tracemalloc.start()
    with pytest.raises(MessageError, match=f"more than {MAX_CONTAINERS}"):
        unpack(bomb)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_mistake(frame):
    with suppress(MessageError):
        unpack(frame)

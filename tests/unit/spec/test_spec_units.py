"""The small notations: durations, quantities, exit codes, images, URLs."""

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn_common.spec.references import TaskReference, check_storage_url, is_image
from cairn_common.spec.units import (
    MAX_EXIT_CODE,
    MAX_QUANTITY,
    format_duration,
    format_exit_codes,
    format_quantity,
    parse_duration,
    parse_exit_codes,
    parse_quantity,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600), ("2h", 7200), ("1d", 86400), ("5ms", 0.005), ("7us", 0.000007), (90, 90),
        ("90", 90), (1.5, 1.5), ("PT10S", 10), ("P1DT2H", 93600), ("PT0.5S", 0.5), ("P2W", 1209600),
    ],
)  # fmt: skip
def test_durations(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["10h5m", "", "m", "-1s", "P", "PT", "1 h", True, None, [], "nan", "9" * 400,
     "99999999d", -1, "٣m"]
)  # fmt: skip
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="uration"):
        parse_duration(text)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36000)))
def test_durations_round_trip(duration):
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4Gi", 4 << 30), ("4G", 4 << 30), ("1.5Ki", 1536), (1000, 1000), ("7B", 7),
        ("1 Mi", 1 << 20), ("1500m", 2), ("2T", 2 << 40), (0, 0),
    ],
)  # fmt: skip
def test_quantities(text, size):
    assert parse_quantity(text) == size


@pytest.mark.parametrize("text", ["5Q", "Gi", "-1Gi", "", "1e9", None, True, "9" * 99])
def test_what_is_no_quantity(text):
    with pytest.raises(ValueError, match="Resource storage field"):
        parse_quantity(text, "storage")


@given(st.integers(0, MAX_QUANTITY))
def test_quantities_round_trip(size):
    assert parse_quantity(format_quantity(size)) == size


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("0", ((0, 0),)), (137, ((137, 137),)), ("0,1-10,16", ((0, 10), (16, 16))),
        (" 3 - 5 , 1", ((1, 1), (3, 5))), ("1-5,3-9", ((1, 9),)),
    ],
)  # fmt: skip
def test_exit_codes(text, ranges):
    assert parse_exit_codes(text) == ranges


@pytest.mark.parametrize("text", ["", "a", "5-1", "1,,2", "1-2-3", "-1", "65536", True, None, 1.5])
def test_what_are_no_exit_codes(text):
    with pytest.raises(ValueError, match="exit codes are written"):
        parse_exit_codes(text)


@given(st.lists(st.tuples(st.integers(0, MAX_EXIT_CODE), st.integers(0, 300)), min_size=1))
def test_exit_codes_round_trip(spans):
    written = ",".join(f"{low}-{min(low + more, MAX_EXIT_CODE)}" for low, more in spans)
    ranges = parse_exit_codes(written)
    assert parse_exit_codes(format_exit_codes(ranges)) == ranges
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))


@pytest.mark.parametrize(
    "image",
    [
        "ubuntu", "ubuntu:24.04", "nvcr.io/nvidia/pytorch:24.01-py3", "localhost:5000/a/b",
        "arm64v8/python:3.11-slim", "a/b@sha256:" + "0" * 64, "x__y.z", "[::1]:5000/a",
    ],
)  # fmt: skip
def test_images(image):
    assert is_image(image)


@pytest.mark.parametrize(
    "image", ["", "UPPER CASE", "Ubuntu", "a:", "a@sha256:1", "a//b", "-a", "a" * 4096 + " ", "a\n"]
)
def test_what_is_no_image(image):
    assert not is_image(image)


@pytest.mark.parametrize(
    "url",
    ["s3://b", "gs://b/x", "azure://a/c/x", "swift://e/a/b", "tos://e/b", "file:///d", "s3://b/{{workflow_id}}"],
)  # fmt: skip
def test_storage_urls(url):
    assert check_storage_url(url) == url


@pytest.mark.parametrize(
    "url", ["x", "http://x", "s3://", "azure://a", "swift://e/a", "file://x", "s3://b /c"]
)
def test_what_is_no_storage_url(url):
    with pytest.raises(ValueError, match=r"storage URL|Unknown URI scheme|not complete"):
        check_storage_url(url)


def test_task_references():
    assert TaskReference.parse("train") == TaskReference("", "train")
    assert TaskReference.parse("wf-7:train") == TaskReference("wf-7", "train")
    assert TaskReference.parse("a:b:c") is None
    assert TaskReference.parse("-a") is None

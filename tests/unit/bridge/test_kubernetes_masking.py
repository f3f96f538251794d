"""What of a task's words is hidden."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn_bridge.drivers.kubernetes.core.masking import MASK, NO_MASK, Mask

WORD = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Zs"]), min_size=8
)


@pytest.mark.parametrize(
    ("values", "said", "seen"),
    [
        (["swordfish"], "password=swordfish!", f"password={MASK}!"),
        (["swordfish"], "swordfis", "swordfis"),
        (["short"], "short", "short"),
        (["swordfish", "swordfish-and-chips"], "swordfish-and-chips", MASK),
        (["-----BEGIN-----\nMIIEvQIBADAN\n"], "key: MIIEvQIBADAN", f"key: {MASK}"),
        (["a.c*e+g(h"], "abcdefgh a.c*e+g(h", f"abcdefgh {MASK}"),
        ([], "anything", "anything"),
    ],
)
def test_values_are_hidden(values: list[str], said: str, seen: str) -> None:
    assert Mask(values)(said) == seen


@given(st.lists(WORD, min_size=1), st.data())
def test_no_value_is_ever_seen(values: list[str], data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.sampled_from([*values, " ", "="])))
    seen = Mask(values)(" ".join(parts))
    assert not [each for each in values if each in seen.replace(MASK, " ")]


def test_without_credentials_nothing_is_hidden() -> None:
    assert NO_MASK("everything") == "everything"

"""The decay of learning rates: its ends, its middle, and that it only falls."""

from __future__ import annotations

import pytest

from implicit_atlas.support.schedule import cosine_decay


@pytest.mark.parametrize("floor", [0.0, 0.02, 0.5])
def test_a_rate_falls_from_its_peak_to_its_floor(floor):
    shares = [cosine_decay(step / 10, floor) for step in range(11)]
    assert shares[0] == pytest.approx(1) and shares[-1] == pytest.approx(floor)
    assert shares[5] == pytest.approx((1 + floor) / 2)
    assert shares == sorted(shares, reverse=True)

"""Mean, std and range of rows that come in parts are those of all rows at once."""

import numpy as np
import pytest

from worldmodel.data.statistics import Moments


@pytest.mark.parametrize("parts", [[], [7, 20], [1, 2, 49]])
def test_moments_are_those_of_all_rows(parts):
    chance = np.random.default_rng(0)
    rows = chance.normal(1e6, 0.5, (50, 3))  # whose squares alone would leave no digits
    moments = Moments()
    for part in np.split(rows, parts):
        own = moments.add(part)
        np.testing.assert_array_equal(own.mean, part.mean(0))
    assert moments.count == 50
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.std, rows.std(0), rtol=1e-6)
    np.testing.assert_array_equal([moments.low, moments.high], [rows.min(0), rows.max(0)])


def test_narrow_numbers_are_summed_in_float64():
    moments = Moments()
    moments.add(np.full((100_000, 1), 250, np.uint8))
    assert (moments.mean[0], moments.std[0]) == (250, 0)

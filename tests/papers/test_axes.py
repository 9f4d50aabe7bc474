import pytest
from matplotlib.figure import Figure

from sparsepriors.papers._axes import plain_ticks


@pytest.mark.parametrize(("low", "high"), [(11.6, 18.2), (0.8, 9.0), (11.5, 400.0), (0.9, 3.4), (95.0, 130.0)])
def test_a_logarithmic_axis_shows_several_plain_numbers(low, high):
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], [low, high])
    axes.set_yscale("log")
    plain_ticks(axes.yaxis)
    figure.draw_without_rendering()
    bottom, top = axes.get_ylim()
    shown = [float(text.get_text()) for text in axes.get_yticklabels() if text.get_text()]
    assert 2 <= sum(bottom <= value <= top for value in shown) <= 9
    assert not any(text.get_text() for text in axes.get_yticklabels(minor=True))

"""The palette's colours stay apart for those who see red, green or blue poorly."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

from workbench.show.style import PALETTE, colors

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def seen(palette, matrix):
    rgb = np.array([to_rgb(color) for color in palette])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = (linear @ np.transpose(matrix)).clip(0, 1)
    rgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb2lab(rgb[None])[0]


def nearest(palette, sight):
    """CIEDE2000 between the two colours that are hardest to tell apart."""
    lab = seen(palette, SIGHT[sight])
    apart = deltaE_ciede2000(lab[:, None], lab[None])
    return apart[np.triu_indices(len(palette), 1)].min()


@pytest.mark.parametrize("sight", SIGHT)
def test_no_two_colours_look_alike(sight):
    assert nearest(PALETTE, sight) > 10
    assert nearest(colors(3), sight) > 20


def test_the_check_catches_a_grey_that_is_taken_for_wine_red():
    assert nearest([*PALETTE[:9], "#555555"], "deuteranopia") < 3


def test_twenty_classes_have_twenty_colours():
    assert len(set(colors(20))) == 20
    assert colors(21)[20] == colors(1)[0]

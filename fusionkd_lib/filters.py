"""The filters of the representations in pure NumPy: mel triangles, gammatones, constant-Q windows.

Frequencies are in Hz, gains linear.

Sources: Slaney, "Auditory Toolbox" (1998); Slaney, "An efficient implementation of the
Patterson-Holdsworth auditory filter bank", Apple technical report 35 (1993); Brown and Puckette,
"An efficient algorithm for the calculation of a constant Q transform" (1992).
"""

import numpy as np


def mel_edges(n_mels: int, *, fmin: float, fmax: float) -> np.ndarray:
    """Return n_mels + 2 frequencies in Hz, equally spaced in mel from fmin to fmax.

    Source: Slaney, "Auditory Toolbox" (1998): linear to 1 kHz, logarithmic above.

    Examples
    --------
    >>> mel_edges(3, fmin=0, fmax=800)
    array([  0., 200., 400., 600., 800.])
    """
    linear, corner, octave = 200 / 3, 1000.0, np.log(6.4) / 27

    def to_mel(frequency: float) -> float:
        return min(frequency, corner) / linear + np.log(max(frequency, corner) / corner) / octave

    mels = np.linspace(to_mel(fmin), to_mel(fmax), n_mels + 2)
    excess = np.maximum(mels - corner / linear, 0)
    return np.minimum(mels * linear, corner) * np.exp(excess * octave)


def mel_weights(frequencies: np.ndarray, *, edges: np.ndarray) -> np.ndarray:
    """Return the gains (n_mels, n_frequencies) in 1/Hz of triangular bands of unit area.

    Parameters
    ----------
    frequencies
        (n_frequencies,) in Hz.
    edges
        (n_mels + 2,) in Hz: band i rises from edge i, peaks at i + 1 and ends at i + 2.

    Examples
    --------
    >>> mel_weights(np.array([0.0, 100, 200, 300, 400]), edges=np.array([0.0, 200, 400]))
    array([[0.    , 0.0025, 0.005 , 0.0025, 0.    ]])
    """
    lower, peak, upper = (edges[i : len(edges) - 2 + i, None] for i in range(3))
    rising = (frequencies - lower) / (peak - lower)
    falling = (upper - frequencies) / (upper - peak)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (upper - lower)


# Glasberg and Moore (1990): an auditory filter at f Hz is ERB_MINIMUM + f / ERB_QUALITY Hz wide.
ERB_QUALITY, ERB_MINIMUM = 9.26449, 24.7


def erb_frequencies(n_bands: int, *, fmin: float, fmax: float) -> np.ndarray:
    """Return n_bands frequencies in Hz from fmin to just below fmax, equally spaced in ERB.

    Source: Slaney, Apple technical report 35 (1993), p. 33.

    Examples
    --------
    >>> erb_frequencies(4, fmin=20, fmax=8000).round()
    array([  20.,  368., 1202., 3203.])
    """
    corner = ERB_QUALITY * ERB_MINIMUM
    fraction = np.arange(n_bands) / n_bands
    return (fmin + corner) ** (1 - fraction) * (fmax + corner) ** fraction - corner


def decay_rates(centres: np.ndarray) -> np.ndarray:
    """Return b in 1/s of the gammatones t^3 exp(-b t) cos(2 pi f t) with centres f (F,) in Hz.

    Examples
    --------
    >>> decay_rates(np.array([100.0, 1000.0])).round()
    array([227., 849.])
    """
    return 1.019 * 2 * np.pi * (ERB_MINIMUM + centres / ERB_QUALITY)


def gammatone_response(frequencies: np.ndarray, *, centres: np.ndarray, rate: int) -> np.ndarray:
    """Return the complex response (F, n_frequencies) of the filters, with gain 1 at their centres.

    Four sections of second order share a pair of poles and differ in one zero each.

    Parameters
    ----------
    frequencies
        (n_frequencies,) in Hz, at which the response is taken.
    centres
        (F,) in Hz.
    rate
        Samples per second.

    Source: Slaney, Apple technical report 35 (1993).

    Examples
    --------
    >>> frequencies = np.array([900.0, 1000.0, 1100.0])
    >>> gains = gammatone_response(frequencies, centres=np.array([1000.0]), rate=16000)
    >>> np.abs(gains).round(2)
    array([[0.42, 1.  , 0.42]])
    """
    angle = 2 * np.pi * centres[:, None] / rate
    radius = np.exp(-decay_rates(centres)[:, None] / rate)
    slopes = np.sqrt([3 + 2**1.5, 3 - 2**1.5])

    def response(point: np.ndarray) -> np.ndarray:
        pole = radius * np.exp(1j * angle)
        section = point / ((point - pole) * (point - pole.conj()))
        product = section**4
        for slope in (*slopes, *-slopes):
            product = product * (point - radius * (np.cos(angle) + slope * np.sin(angle)))
        return product

    at_frequencies = response(np.exp(2j * np.pi * frequencies / rate))
    return at_frequencies / np.abs(response(np.exp(1j * angle)))


def constant_q(bins_per_octave: int) -> float:
    """Return Q, cycles in a window: the bands f (1 +- 1 / Q) of bins k - 1 and k + 1 just touch.

    Examples
    --------
    >>> round(constant_q(12), 2)
    17.33
    """
    return float(1 / np.tanh(np.log(2) / bins_per_octave))


def constant_q_gains(
    frequencies: np.ndarray, *, centres: np.ndarray, quality: float, rate: int
) -> np.ndarray:
    """Return the transforms of the bins' windows around their centres, at some frequencies.

    Parameters
    ----------
    frequencies, centres
        In Hz, of shapes that broadcast.
    quality
        Q, cycles in a window.
    rate
        Samples per second.

    Examples
    --------
    >>> frequencies = np.array([440.0, 460.0])  # the centre, and half a bin above it
    >>> constant_q_gains(frequencies, centres=440.0, quality=11.0, rate=16000).round(3)
    array([20.   , 16.977])
    """
    offset = (frequencies / centres - 1) * quality
    # A Hann window's transform: three of a rectangle's, one bin apart.
    hann = np.sinc(offset) + (np.sinc(offset - 1) + np.sinc(offset + 1)) / 2
    return hann * np.sqrt(quality * rate / centres)

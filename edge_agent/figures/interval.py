"""How far a figure could be off: its interval by the bootstrap (Efron 1979), alone and against another's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Groups = Sequence[Sequence[int]]
"""numbers of the samples that are drawn together, as the frames of a scene"""
Drawn = Callable[[Longs], Doubles]
"""(rounds, n): how often each sample is drawn -> (rounds,): the figure of each round; NaN where there is none"""

ROUNDS = 1000
LEVEL, Z = 0.95, 1.959964
"""share of the intervals that hold the true figure, and that quantile of the normal distribution"""
SHARE = (0.0, 0.0, 1.0, 1.0)
"""samples that are drawn beside those of a share: two wrong ones, two right ones (Agresti and Coull 1998)"""
CHANGE = (-1.0, 1.0)
"""beside those of a difference of shares: one lost, one won (Agresti and Min 2005)"""


class Interval(NamedTuple):
    """The ends of it; NaN where fewer than two samples say anything."""

    low: float
    high: float


class Figure(float):
    """A figure of n samples that also says what it is on others, drawn from these."""

    __slots__ = ("coarse", "count", "drawn", "ends")
    drawn: Drawn
    count: int
    """samples"""
    coarse: bool
    """a sample is right or wrong, so that it may happen that none is wrong"""
    ends: tuple[float, float]
    """the least and the most that it can be"""

    def __new__(cls, drawn: Drawn, count: int, coarse: bool = False, ends: tuple[float, float] = (0.0, 1.0)) -> Figure:
        """NaN for no samples."""
        one = super().__new__(cls, drawn(np.ones((1, count), np.int64))[0] if count else float("nan"))
        one.drawn, one.count, one.coarse, one.ends = drawn, count, coarse, ends
        return one


def share(right: Sequence[bool] | npt.NDArray[np.bool_]) -> Figure:
    """The share of the samples that are right."""
    return mean(np.asarray(right, np.float64), coarse=True)


def mean(values: npt.ArrayLike, coarse: bool = False) -> Figure:
    """The mean of a number for each sample, of at most 1."""
    column = np.asarray(values, np.float64)
    return Figure(
        lambda drawn: ratio(drawn @ column, drawn.sum(1)), len(column), coarse, (0.0 if coarse else -1.0, 1.0)
    )


def f1(mine: npt.ArrayLike, theirs: npt.ArrayLike, both: npt.ArrayLike) -> Figure:
    """Of what is marked in each sample: how much by the one, by the other, and by both; NaN where there is nothing."""
    twice, every = 2 * np.asarray(both, np.float64), np.asarray(mine, np.float64) + np.asarray(theirs, np.float64)
    return Figure(lambda drawn: ratio(drawn @ twice, drawn @ every), len(twice), coarse=True)


def kept(wrong: npt.ArrayLike, of: npt.ArrayLike) -> Figure:
    """1 less what is wrong in each sample by all that is there, at least 0; NaN where nothing is."""
    errors, every = np.asarray(wrong, np.float64), np.asarray(of, np.float64)
    return Figure(lambda drawn: np.maximum(1 - ratio(drawn @ errors, drawn @ every), 0.0), len(every), coarse=True)


def pearson_of_pairs(mine: Doubles, theirs: Doubles) -> Figure:
    """Linear correlation of what each pair of n samples has in common, (n, n) twice; NaN where that does not vary."""
    count = len(mine)
    apart = ~np.eye(count, dtype=bool)
    x, y = (np.where(apart, table - table[apart].mean(), 0.0) for table in (mine, theirs))

    def drawn(rounds: Longs) -> Doubles:
        times = rounds.astype(np.float64)

        def summed(table: Doubles) -> Doubles:
            found: Doubles = np.einsum("rn,rn->r", times @ table, times)
            return found

        pairs = summed(apart.astype(np.float64))
        sx, sy, sxx, syy, sxy = (ratio(summed(table), pairs) for table in (x, y, x * x, y * y, x * y))
        return ratio(sxy - sx * sy, np.sqrt(np.maximum((sxx - sx * sx) * (syy - sy * sy), 0.0)))

    return Figure(drawn, count, ends=(-1.0, 1.0))


def figure(
    of: Callable[[list[int]], float], count: int, coarse: bool = False, ends: tuple[float, float] = (0.0, 1.0)
) -> Figure:
    """One that `of` computes from the numbers of samples, some of them given several times."""

    def drawn(rounds: Longs) -> Doubles:
        every = np.arange(count)
        taken = [np.repeat(every, times).tolist() for times in rounds]
        return np.array([of(places) if places else np.nan for places in taken], np.float64)

    return Figure(drawn, count, coarse, ends)


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Doubles:
    """Part by whole; NaN where there is no whole."""
    above, below = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    found: Doubles = np.full(np.broadcast(above, below).shape, np.nan)
    np.divide(above, below, out=found, where=below != 0)
    return found


def interval(one: Figure, groups: Groups | None = None, seed: int = 0) -> Interval:
    """Of a figure: in LEVEL of the cases it holds the figure of all samples of this kind. The same seed, the same."""
    low, high = _interval(one.drawn, one.count, SHARE, one.coarse, groups, seed)
    least, most = one.ends
    return Interval(max(low, least), min(high, most))


def difference(mine: Figure, theirs: Figure, groups: Groups | None = None, seed: int = 0) -> Interval:
    """Of `mine` less `theirs` on the same samples. ValueError where these are not as many."""
    if mine.count != theirs.count:
        raise ValueError(f"{mine.count} samples against {theirs.count}")

    def drawn(rounds: Longs) -> Doubles:
        change: Doubles = mine.drawn(rounds) - theirs.drawn(rounds)
        return change

    return _interval(drawn, mine.count, CHANGE, mine.coarse or theirs.coarse, groups, seed)


def _interval(
    drawn: Drawn, count: int, beside: Sequence[float], coarse: bool, groups: Groups | None, seed: int
) -> Interval:
    """`beside`: the values of what is drawn beside the samples of a coarse figure."""
    units = [[place] for place in range(count)] if groups is None else groups
    if len(units) < 2:
        return Interval(float("nan"), float("nan"))
    of_unit = np.zeros(count, np.int64)
    for number, group in enumerate(units):
        of_unit[list(group)] = number
    found = None if coarse else _smooth(drawn, of_unit, len(units), seed)
    return found or _coarse(drawn, of_unit, len(units), beside, seed)


def _smooth(drawn: Drawn, of_unit: Longs, units: int, seed: int) -> Interval | None:
    """The normal interval less the bias that the bootstrap shows (Davison and Hinkley 1997, 5.2), with Student's t.

    mAP, for one, is too high on few pictures. None where all rounds agree: that says nothing of other samples.
    """
    times = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), ROUNDS)
    values = drawn(times[:, of_unit])
    values = values[np.isfinite(values)]
    if len(values) < 2 or np.ptp(values) == 0:
        return None
    whole = float(drawn(np.ones((1, len(of_unit)), np.int64))[0])
    least = units - 1
    # Student's t from the normal quantile (Abramowitz and Stegun 26.7.5)
    t = Z + (Z**3 + Z) / (4 * least) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * least**2)
    wide = t * float(values.std()) * (units / least) ** 0.5
    middle = 2 * whole - float(values.mean())
    return Interval(middle - wide, middle + wide)


def _coarse(drawn: Drawn, of_unit: Longs, units: int, beside: Sequence[float], seed: int) -> Interval:
    """The quantiles of the rounds, a few samples of known outcome being drawn with the others.

    Where all samples are right all rounds agree, and an interval of no width would hold nothing.
    """
    shares = np.full(units + len(beside), 1 / (units + len(beside)))
    times = np.random.default_rng(seed).multinomial(units, shares, ROUNDS)
    own, extra = times[:, :units], times[:, units:]
    values = drawn(own[:, of_unit])
    # a round that drew nothing else has no figure of its own
    values = np.where(np.isfinite(values), values, 0.0) * own.sum(1) + extra @ np.asarray(beside, np.float64)
    low, high = np.quantile(values / units, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))

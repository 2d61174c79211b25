"""How every charge is drawn: ordinaries in the square around the shield, small charges in a box of their own.

The bordure follows the shield's outline and is drawn with it, in `cmmlib.blazon.drawing.shapes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from cmmlib.blazon.drawing.pen import Pen, Point, path_points, polar


def star(rays: int, outer: float, inner: float, y: float = 0.5) -> list[Point]:
    """Points of a star, outer and inner ones in turn."""
    return [polar(inner if i % 2 else outer, i / (2 * rays), y=y) for i in range(2 * rays)]


def _mullet(pen: Pen) -> None:
    pen.polygon(star(5, 0.52, 0.2, y=0.54))


def _estoile(pen: Pen) -> None:
    for i in range(6):
        side = -1 if i > 3 else 1  # rays on the left mirror those on the right: a star, not a pinwheel
        pen.polygon(_wavy_ray(i / 6, side))
    pen.disc(0.5, 0.5, 0.14)


def _wavy_ray(turns: float, side: int) -> list[Point]:
    """A tapering ray from the centre, softly waved; its tip is back on the axis."""
    left, right = [], []
    for step in range(25):
        along = step / 24
        swing = side * 0.075 * along * (1.2 - along) * math.sin(math.tau * 1.5 * along)
        for edge, width in ((left, -1), (right, 1)):
            across = swing + width * (0.085 * (1 - along) + 0.004)
            radius = 0.5 * along
            turned = math.tau * turns
            x = 0.5 + radius * math.sin(turned) + across * math.cos(turned)
            edge.append((x, 0.5 - radius * math.cos(turned) + across * math.sin(turned)))
    return left + right[::-1]


def _crescent(pen: Pen) -> None:
    pen.disc(0.5, 0.5, 0.47)
    pen.disc(0.5, 0.33, 0.36, 0)


def _annulet(pen: Pen) -> None:
    pen.disc(0.5, 0.5, 0.46)
    pen.disc(0.5, 0.5, 0.28, 0)


def _mascle(pen: Pen) -> None:
    pen.path("M .5 0 L .9 .5 L .5 1 L .1 .5")
    pen.path("M .5 .25 L .7 .5 L .5 .75 L .3 .5", 0)


def _heart(pen: Pen) -> None:
    pen.twice("M .5 .98 C .42 .86 .02 .64 .02 .31 C .02 .13 .14 .04 .27 .04 C .38 .04 .47 .11 .5 .22")


def _escallop(pen: Pen) -> None:
    ribs = [(i - 3) * 0.058 for i in range(7)]
    pen.path("M .5 .92 L .06 .46 L .5 .30 L .94 .46")
    for rib in ribs:
        pen.polygon([(0.46, 0.92), polar(0.5, rib - 0.03, y=0.6), polar(0.5, rib + 0.03, y=0.6), (0.54, 0.92)])
        pen.disc(*polar(0.46, rib, y=0.6), 0.092)
    pen.twice("M .5 .80 L .27 .80 L .27 .90 L .38 .97 L .5 .97")
    for rib in ribs[1:]:
        pen.stroke([polar(0.06, rib - 0.029, y=0.80), polar(0.60, rib - 0.029, y=0.6)], 0.026, 0)


def _fleur_de_lis(pen: Pen) -> None:
    pen.twice("M .5 0 C .46 .11 .34 .20 .34 .34 C .34 .45 .43 .52 .44 .66 L .5 .66")
    pen.twice(
        "M .44 .66 C .44 .48 .36 .25 .19 .25 C .05 .25 -.01 .37 .02 .48 C .05 .58 .15 .61 .23 .56 "
        "C .15 .54 .13 .46 .18 .42 C .24 .38 .32 .46 .33 .66"
    )
    pen.twice("M .5 1 C .44 .94 .43 .84 .44 .70 L .5 .70")
    pen.twice("M .43 .70 C .41 .80 .32 .86 .22 .82 C .25 .95 .39 .95 .44 .80")
    pen.box(0.27, 0.63, 0.73, 0.73)


def _tower(pen: Pen) -> None:
    pen.box(0.24, 0.30, 0.76, 0.98)
    pen.path("M .14 .98 L .14 .88 L .24 .80 L .76 .80 L .86 .88 L .86 .98")
    pen.path("M .14 .18 L .86 .18 L .86 .30 L .76 .38 L .24 .38 L .14 .30")
    for left in (0.14, 0.405, 0.67):
        pen.box(left, 0.02, left + 0.19, 0.20)
    pen.path("M .39 .98 L .39 .74 C .39 .60 .61 .60 .61 .74 L .61 .98", 0)
    for left in (0.34, 0.59):
        pen.box(left, 0.45, left + 0.07, 0.57, 0)


def _key(pen: Pen) -> None:
    pen.disc(0.5, 0.21, 0.21)
    pen.disc(0.5, 0.21, 0.105, 0)
    pen.box(0.445, 0.38, 0.555, 1)
    pen.box(0.37, 0.43, 0.63, 0.49)
    pen.box(0.5, 0.68, 0.82, 0.96)
    pen.box(0.66, 0.78, 0.83, 0.86, 0)


def _trefoil(pen: Pen) -> None:
    for x, y in ((0.5, 0.22), (0.25, 0.53), (0.75, 0.53)):
        pen.disc(x, y, 0.22)
    pen.twice("M .5 .36 L .46 .40 C .50 .70 .46 .84 .34 1 L .5 1")


def _quatrefoil(pen: Pen) -> None:
    for i in range(4):
        pen.disc(*polar(0.265, i / 4), 0.22)
    pen.disc(0.5, 0.5, 0.1, 0)


def _luce(pen: Pen) -> None:
    pen.path("M 0 .50 C .12 .28 .46 .22 .78 .48 L .99 .24 C .94 .42 .94 .58 .99 .76 L .78 .52 C .46 .78 .12 .72 0 .50")
    pen.path("M .34 .36 C .42 .20 .56 .18 .66 .22 L .62 .42")
    pen.path("M .36 .64 C .42 .76 .50 .80 .58 .79 L .56 .62")
    pen.disc(0.155, 0.455, 0.038, 0)
    pen.stroke(path_points("M .27 .36 C .33 .44 .33 .56 .27 .64"), 0.026, 0)


def _martlet(pen: Pen) -> None:
    pen.path(
        "M 0 .33 L .11 .25 C .14 .12 .32 .10 .38 .22 C .44 .32 .56 .34 .68 .40 C .80 .46 .90 .46 1 .42 "
        "C .95 .50 .90 .54 .84 .56 C .90 .60 .95 .63 1 .64 C .88 .71 .76 .70 .68 .66 C .60 .76 .50 .80 .40 .79 "
        "C .22 .77 .12 .62 .14 .42 C .14 .38 .12 .36 .10 .36"
    )
    pen.path("M .30 .76 L .27 .96 L .36 .89 L .41 .99 L .45 .78")
    pen.stroke(path_points("M .30 .40 C .30 .60 .46 .66 .74 .53"), 0.035, 0)
    pen.disc(0.215, 0.245, 0.035, 0)


def _pheon(pen: Pen) -> None:
    pen.twice("M .5 1 L .02 .18 L .20 .03 L .23 .17 L .27 .20 L .28 .32 L .33 .36 L .34 .48 L .43 .58 L .43 0 L .5 0")


def _sword(pen: Pen) -> None:
    pen.path("M .5 0 L .575 .10 L .565 .70 L .435 .70 L .425 .10")
    pen.stroke(path_points("M .24 .66 C .30 .73 .70 .73 .76 .66"), 0.085)
    pen.box(0.455, 0.70, 0.545, 0.92)
    pen.disc(0.5, 0.925, 0.075)


def _anchor(pen: Pen) -> None:
    pen.disc(0.5, 0.13, 0.13)
    pen.disc(0.5, 0.13, 0.06, 0)
    pen.box(0.445, 0.24, 0.555, 0.94)
    pen.box(0.24, 0.29, 0.76, 0.38)
    pen.twice("M .5 1 C .28 .98 .12 .86 .08 .66 L .19 .64 C .23 .78 .34 .85 .5 .87")
    pen.twice("M .06 .49 L -.01 .73 L .30 .68")


def _sun(pen: Pen) -> None:
    pen.polygon(star(12, 0.5, 0.33))
    pen.disc(0.5, 0.5, 0.31, 0)
    pen.disc(0.5, 0.5, 0.27)
    for x in (0.405, 0.595):
        pen.disc(x, 0.44, 0.036, 0)
    pen.stroke(path_points("M .39 .58 C .44 .66 .56 .66 .61 .58"), 0.034, 0)


def _coronet(pen: Pen) -> None:
    pen.twice("M .5 .16 C .46 .36 .42 .48 .33 .54 C .22 .50 .14 .40 .08 .25 L .15 .74 L .5 .74")
    pen.box(0.14, 0.79, 0.86, 0.92)
    for x, y in ((0.08, 0.22), (0.5, 0.13), (0.92, 0.22)):
        pen.disc(x, y, 0.078)


def _caltrap(pen: Pen) -> None:
    pen.path("M .5 0 L .59 .52 L .41 .52")
    pen.twice("M .44 .40 C .26 .54 .12 .70 0 .92 C .18 .78 .32 .70 .52 .64")
    pen.path("M .40 .56 L .60 .56 L .5 .98")
    pen.disc(0.5, 0.52, 0.15)


def _mill_rind(pen: Pen) -> None:
    pen.stroke_twice("M .08 .07 C .42 .16 .42 .84 .08 .93", 0.14)
    pen.box(0.28, 0.36, 0.72, 0.64)
    pen.box(0.435, 0.435, 0.565, 0.565, 0)


def _cross(pen: Pen) -> None:
    pen.box(0.41, 0, 0.59, 1)
    pen.box(0, 0.34, 1, 0.52)


def _saltire(pen: Pen) -> None:
    pen.stroke([(-0.1, -0.1), (1.1, 0.98)], 0.16)
    pen.stroke([(1.1, -0.1), (-0.1, 0.98)], 0.16)


def _pall(pen: Pen) -> None:
    pen.stroke([(-0.1, -0.14), (0.5, 0.46), (0.5, 1.1)], 0.17)
    pen.stroke([(1.1, -0.14), (0.5, 0.46)], 0.17)


CHARGE_DRAWINGS: dict[str, Callable[[Pen], None]] = {
    "mullet": _mullet,
    "estoile": _estoile,
    "crescent": _crescent,
    "annulet": _annulet,
    "roundel": lambda pen: pen.disc(0.5, 0.5, 0.46),
    "billet": lambda pen: pen.box(0.26, 0.04, 0.74, 0.96),
    "lozenge": lambda pen: pen.path("M .5 0 L .88 .5 L .5 1 L .12 .5"),
    "mascle": _mascle,
    "fusil": lambda pen: pen.path("M .5 0 L .68 .5 L .5 1 L .32 .5"),
    "cross": _cross,
    "saltire": _saltire,
    "chevron": lambda pen: pen.twice("M .5 .27 L -.05 .74 L -.05 .96 L .5 .49"),
    "pale": lambda pen: pen.box(0.34, 0, 0.66, 1),
    "fess": lambda pen: pen.box(0, 0.31, 1, 0.61),
    "bend": lambda pen: pen.stroke([(-0.1, -0.12), (1.1, 1.02)], 0.22),
    "pile": lambda pen: pen.path("M .14 0 L .86 0 L .5 .9"),
    "chief": lambda pen: pen.box(0, 0, 1, 0.32),
    "pall": _pall,
    "canton": lambda pen: pen.box(0, 0, 0.42, 0.41),
    "heart": _heart,
    "escallop": _escallop,
    "fleur-de-lis": _fleur_de_lis,
    "tower": _tower,
    "key": _key,
    "trefoil": _trefoil,
    "quatrefoil": _quatrefoil,
    "luce": _luce,
    "martlet": _martlet,
    "pheon": _pheon,
    "sword": _sword,
    "anchor": _anchor,
    "sun": _sun,
    "coronet": _coronet,
    "caltrap": _caltrap,
    "mill-rind": _mill_rind,
}

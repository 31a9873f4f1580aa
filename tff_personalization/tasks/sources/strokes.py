"""Skeletons of the synthetic handwriting: the forms that each character may take.

A *form* is a skeleton of strokes, such as a slashed oval. A *family* is a set of classes that are easily confused, with
the forms that each may take. The classes of a family share forms, so a form does not determine the class. A
*repertoire* is one writer's choice: within a family no two classes take the same form.
"""

import dataclasses
import functools
import itertools
import math

import HersheyFonts
import numpy as np

from tff_personalization.tasks import archives

POINTS = 224
"""Points along the strokes of every form."""

# A form is a glyph of a Hershey font, "font:glyph", optionally stretched by "*x,y"; or it is a list of strokes in a
# frame where capitals reach from 0 (top) to 100 (base line). "~" begins a smooth curve through the points, "@x,y,rx,ry"
# is an ellipse; other strokes are straight lines.
_FORMS = {
    "oval": "@50,50,30,50",
    "circle": "@50,50,46,50",
    "broad": "@50,50,58,44",
    "ring": "@50,66,32,34",
    "slashed": "@50,50,32,50; 85,5 15,95",
    "dotted": "@50,50,36,50; 47,46 53,54",
    "curl": "~78,2 45,2 10,48 45,98 88,55 62,6 44,12 58,24 86,12",
    "bar": "50,0 50,100",
    "flag": "24,26 55,0 55,100",
    "hat": "18,22 64,0 50,100",
    "based": "24,25 50,0 50,100; 20,100 80,100",
    "serifs": "50,0 50,100; 22,0 78,0; 22,100 78,100",
    "hook": "~40,0 40,50 42,88 60,100 78,88",
    "seven": "15,0 80,0 40,100",
    "crossed seven": "15,0 80,0 40,100; 30,52 78,52",
    "beaked seven": "12,18 14,0 80,0; ~80,0 52,45 42,100",
    "looped two": "~12,25 30,3 65,3 82,28 55,65 18,92 12,99 25,88 45,92 70,100 92,90",
    "round zed": "~15,12 45,0 80,8 70,40 15,98; 15,98 88,98",
    "crossed zed": "15,0 85,0 15,100 85,100; 28,50 72,50",
    "small crossed zed": "20,40 80,40 20,100 80,100; 30,70 72,70",
    "inner Q": "@50,50,46,50; 55,55 92,100",
    "flat three": "18,2 80,2 45,40; ~45,40 80,55 75,92 45,100 15,88",
    "curved five": "~82,2 40,4 28,40 62,42 84,68 60,97 18,88",
    "capped five": "40,5 30,45; ~30,45 60,38 82,65 60,98 18,88; 40,5 85,5",
    "open four": "25,0 15,60 88,60; 65,25 65,100",
    "closed four": "62,100 62,0 12,68 88,68",
    "square four": "72,100 72,4 24,8 22,50 72,50",
    "stem nine": "@48,28,28,28; 76,10 74,100",
    "flick q": "@46,40,31,36; 78,5 78,125 98,105",
    "double g": "@46,25,28,24; 68,10 88,2; ~36,48 28,60 70,70 82,98 45,118 16,98 40,72",
    "stem six": "~58,0 28,35 18,70 45,99 78,72 50,48 22,68",
    "G of six": "~84,14 50,0 15,50 50,100 84,78 80,55 48,55",
    "snowman": "@50,24,26,24; @50,74,34,26",
    "stem snowman": "@54,24,26,24; @52,74,34,26; 22,4 18,96",
    "loose B": "20,0 20,100; ~10,6 65,0 75,25 40,47 80,70 65,100 12,97",
    "shallow": "~10,32 18,86 50,100 80,84 86,32",
    "soft v": "~10,32 32,82 50,100 66,82 88,32",
    "curled v": "~10,34 32,66 46,100 66,62 74,36 96,34",
    "hooked c": "~80,26 78,8 50,2 15,45 30,95 60,100 88,82",
    "curly x": "~10,5 40,20 45,80 5,95; ~95,5 55,20 55,80 95,95",
    "round w": "~5,5 15,90 45,90 50,20 55,90 85,90 95,5",
    "flagged P": "30,0 30,100; ~10,20 40,0 85,5 85,45 30,52",
    "tall p": "25,10 25,125; ~25,45 60,30 85,55 60,90 25,85",
    "apart K": "20,0 20,100; 85,5 35,50 85,100",
    "splayed M": "5,100 25,0 50,70 75,0 95,100",
    "low h": "22,12 22,100; ~22,62 50,42 78,60 80,100",
    "cross": "50,0 50,100; 20,32 80,32",
    "high cross": "50,0 50,100; 15,15 85,15",
    "hooked t": "~50,0 50,60 55,95 80,92; 22,30 78,30",
    "stem f": "~82,8 60,0 48,20 48,100; 22,42 76,42",
    "wide F": "84,2 28,2 28,100; 28,48 70,48",
    "capped J": "~60,2 60,70 50,98 20,90; 30,2 90,2",
    "double a": "~22,42 50,30 75,45 75,100; ~75,60 45,56 18,80 45,100 75,85",
    "round A": "~10,100 20,20 50,0 80,20 90,100; 12,58 88,58",
    "low d": "@42,68,29,32; 74,14 74,100",
    "small epsilon": "~78,45 50,35 25,48 52,64 22,80 50,100 82,88",
    "cup y": "~15,30 20,65 50,72 75,55; ~78,30 76,95 55,125 25,115",
    "cup Y": "~10,0 20,45 50,52 80,40; 85,0 70,100",
    "straight y": "15,5 48,55; 85,5 25,110",
    "square r": "22,34 22,100; 22,46 50,34 82,36",
    "round D": "@50,50,44,50; 16,0 16,100",
    "soft L": "~22,0 20,60 24,98 50,100 84,96",
}

# Each line is a class, each paragraph a family: the forms that a class may take, and how common they are.
_FAMILIES = """
0: oval 6, circle 2, slashed 2, dotted 1, curl 1
O: circle 6, broad 3, curl 2, oval 1
o: ring 4, circle 2, curl 2, broad 1

1: bar 4, flag 2, hat 2, based 2
7: seven 4, crossed seven 3, beaked seven 2, hat 2
l: bar 3, scripts:l 3, hook 2, flag 1
I: serifs 4, bar 3, based 1

2: futural:2 3, looped two 3, round zed 3
Z: futural:Z 3, crossed zed 2, round zed 2, scripts:Z 1
z: futural:z 3, small crossed zed 2, round zed 1, scripts:z 2, futural:Z 1
Q: futural:Q 3, inner Q 3, looped two 1
3: futural:3 4, flat three 3, scripts:z 1

5: futural:5 4, curved five 2, capped five 3
S: futural:S 5, futural:S*0.7,1 2, curved five 1, scripts:S 1
s: futural:s 4, futural:S 2, futural:S*0.7,1 2, scripts:s 1

4: open four 4, closed four 3, square four 3
9: stem nine 4, futural:9 3, square four 1, futural:q 1
g: futural:g 4, double g 2, scripts:g 2, futural:9 2
q: futural:q 3, flick q 2, stem nine 2, scripts:q 1, futural:9 1

6: futural:6 4, stem six 3, futural:b*0.8,1 1
b: futural:b 4, futural:b*0.8,1 1, stem six 2, scripts:b 2
G: futural:G 4, G of six 3, futural:6 1, scripts:G 1

8: futural:8 4, snowman 3, stem snowman 1
B: futural:B 4, loose B 2, stem snowman 2, snowman 1

u: futural:u 4, shallow 3, scripts:u 2, soft v 2
v: futural:v 4, soft v 3, curled v 2
U: futural:U 3, futural:U*0.7,1 3, shallow 3
V: futural:V 4, futural:v 2, soft v 2
r: futural:r 4, square r 2, scripts:r 2, curled v 2

c: futural:c 4, futural:C 2, hooked c 1, futural:c*0.7,1 2
C: futural:C 4, futural:c 2, hooked c 2, futural:C*0.7,1 2

x: futural:x 4, futural:X 2, curly x 2, scripts:x 1
X: futural:X 4, futural:x 2, curly x 2, futural:X*1.3,1 1

w: futural:w 3, round w 3, futural:W 2, scripts:w 1
W: futural:W 4, round w 2, futural:w 2, futural:W*0.8,1 1

p: futural:p 4, tall p 3, futural:P 1, scripts:p 1
P: futural:P 4, flagged P 2, futural:p 1, tall p 1

k: futural:k 4, apart K 2, futural:K 1, scripts:k 1
K: futural:K 4, apart K 2, futural:k 2

m: futural:m 4, scripts:m 2, futural:m*0.8,1.2 2
M: futural:M 4, splayed M 3, futural:m*0.8,1.2 2

n: futural:n 4, scripts:n 2, low h 1, futural:n*1,1.4 2
N: futural:N 4, futural:n*1,1.4 3, scripts:n 1
h: futural:h 4, low h 3, scripts:h 2, futural:n*1,1.4 1

t: cross 3, futural:t 3, hooked t 3, high cross 1, stem f 1
T: futural:T 4, high cross 3, cross 1
f: futural:f 3, stem f 3, scripts:f 2, cross 1
F: futural:F 4, wide F 3, stem f 1, scripts:F 1

i: futural:i 4, scripts:i 2, futural:j 1
j: futural:j 4, scripts:j 2, futural:J 1
J: futural:J 3, capped J 3, scripts:J 1, scripts:j 1

a: futural:a 4, double a 3, scripts:a 2, low d 1
d: futural:d 4, scripts:d 2, low d 3, futural:a 1
A: futural:A 4, round A 3, futural:a 1, scripts:A 1

e: futural:e 4, scripts:e 3, small epsilon 2
E: futural:E 4, scripts:E 2, small epsilon 2

y: futural:y 4, cup y 3, straight y 2, scripts:y 1
Y: futural:Y 4, cup Y 3, straight y 2, cup y 1

L: futural:L 4, soft L 3, scripts:L 1

D: futural:D 4, round D 3, scripts:D 1

H: futural:H 4, scripts:H 1

R: futural:R 4, scripts:R 1
"""


@dataclasses.dataclass(frozen=True)
class Family:
    """The possible repertoires of one family.

    Attributes:
        classes: int, shape (C,), indices into `archives.CLASSES`.
        repertoires: int, shape (A, C), the form of each class; no form comes twice in a row.
        cumulative: float, shape (A,), the cumulative probability of the repertoires over the population.
    """

    classes: np.ndarray
    repertoires: np.ndarray
    cumulative: np.ndarray

    def draw(self, uniform: np.ndarray | float) -> np.ndarray:
        """Maps numbers in [0, 1), of any shape (…), to repertoires, int of shape (…, C)."""
        return self.repertoires[np.searchsorted(self.cumulative[:-1], uniform, side="right")]


@dataclasses.dataclass(frozen=True)
class Forms:
    """All forms and families.

    Attributes:
        points: float, shape (F, POINTS, 2), x and y (downward) along the strokes; the longer side reaches from -1 to 1.
        joined: bool, shape (F, POINTS - 1), whether the pen is down between a point and the next.
        half_size: float, shape (F,), half the longer side in pixels.
        families: the families, which cover every class once.
    """

    points: np.ndarray
    joined: np.ndarray
    half_size: np.ndarray
    families: tuple[Family, ...]


@functools.cache
def forms() -> Forms:
    """The forms and families, built once."""
    names: dict[str, int] = {}
    families = []
    for paragraph in _FAMILIES.strip().split("\n\n"):
        classes, choices = [], []
        for line in paragraph.splitlines():
            name, pool = line.split(": ", 1)
            classes.append(archives.CLASSES.index(name))
            entries = [entry.rsplit(" ", 1) for entry in pool.split(", ")]
            choices.append([(names.setdefault(form, len(names)), float(weight)) for form, weight in entries])
        repertoires = [row for row in itertools.product(*choices) if len({form for form, _ in row}) == len(row)]
        weights = np.array([math.prod(weight for _, weight in row) for row in repertoires])
        families.append(
            Family(
                np.array(classes),
                np.array([[form for form, _ in row] for row in repertoires]),
                np.cumsum(weights) / weights.sum(),
            )
        )
    points, joined, half_size = zip(*(_sample(_strokes(name)) for name in names), strict=True)
    return Forms(np.stack(points), np.stack(joined), np.array(half_size), tuple(families))


def _strokes(form: str) -> list[np.ndarray]:
    """The strokes of a form, each of shape (points, 2), as finely sampled polylines."""
    if form not in _FORMS:
        glyph, _, stretch = form.partition("*")
        font, _, character = glyph.partition(":")
        strokes = [np.array(list(stroke), float) for stroke in _font(font).strokes_for_text(character)]
        # Capitals of the Hershey fonts are 21 units high.
        factors = np.array([float(factor) for factor in stretch.split(",")]) if stretch else np.ones(2)
        return [stroke * 100 / 21 * factors for stroke in strokes]
    strokes = []
    for text in _FORMS[form].split("; "):
        corners = np.array([[float(number) for number in pair.split(",")] for pair in text.lstrip("~@").split(" ")])
        if text.startswith("@"):
            x, y, radius_x, radius_y = np.array(text[1:].split(","), float)
            angle = np.linspace(0, 2 * np.pi, 49)
            corners = np.stack([x + radius_x * np.sin(angle), y - radius_y * np.cos(angle)], 1)
        elif text.startswith("~"):
            corners = _smooth(corners)
        strokes.append(corners)
    return strokes


def _smooth(corners: np.ndarray) -> np.ndarray:
    """A Catmull-Rom curve through points of shape (points, 2)."""
    tangents = np.gradient(corners, axis=0)
    t = np.linspace(0, 1, 12)[None, :, None]
    start, end, leaving, arriving = (a[:, None] for a in (corners[:-1], corners[1:], tangents[:-1], tangents[1:]))
    hermite = (2 * t**3 - 3 * t**2 + 1) * start + (3 * t**2 - 2 * t**3) * end
    return (hermite + (t**3 - 2 * t**2 + t) * leaving + (t**3 - t**2) * arriving).reshape(-1, 2)


@functools.cache
def _font(name: str) -> HersheyFonts.HersheyFonts:
    font = HersheyFonts.HersheyFonts()
    font.load_default_font(name)
    return font


def _sample(strokes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
    """Spreads POINTS points evenly along the strokes: points, joined and half size as in `Forms`."""
    lengths = [np.concatenate([[0], np.cumsum(np.hypot(*np.diff(stroke, axis=0).T))]) for stroke in strokes]
    total = sum(length[-1] for length in lengths)
    counts = [max(2, int(POINTS * length[-1] / total)) for length in lengths]
    counts[int(np.argmax(counts))] += POINTS - sum(counts)
    points = np.concatenate(
        [
            np.stack([np.interp(np.linspace(0, length[-1], count), length, axis) for axis in stroke.T], 1)
            for stroke, length, count in zip(strokes, lengths, counts, strict=True)
        ]
    )
    joined = np.ones(POINTS - 1, bool)
    joined[np.cumsum(counts)[:-1] - 1] = False
    low, high = points.min(0), points.max(0)
    half_side = (high - low).max() / 2
    # Federated EMNIST scales every character to one size, yet small letters are a little smaller.
    return (points - (low + high) / 2) / half_side, joined, 10.0 * (half_side / 50) ** 0.4

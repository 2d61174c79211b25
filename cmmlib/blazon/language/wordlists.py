"""What captions are filled with: openings and endings, other senses of heraldic words, words about something else."""

from __future__ import annotations

from collections.abc import Sequence


def _any_tincture(term: str):
    return lambda arms, scene: term in (arms.field, arms.second, arms.tincture)


def _has_charge(*terms: str):
    return lambda arms, scene: arms.charge in terms


# (when, how often, the first of these words, becomes one of those)
EVERYDAY: Sequence = (
    (_has_charge("luce"), 0.25, ("swimming fish", "fish"), ("mullet",)),
    (_has_charge("roundel"), 0.20, ("round spot", "ball", "dot", "disc", "circle"), ("lozenge", "pellet", "plate")),
    (_any_tincture("celeste"), 0.12, ("light blue", "sky blue"), ("pale blue", "pale")),
    (_any_tincture("argent"), 0.12, ("white",), ("pale", "pale white")),
    (_any_tincture("sanguine"), 0.15, ("dark red", "maroon", "burgundy"), ("sable brown",)),
    (lambda arms, scene: arms.count == 3, 0.15, ("three ", "3 ", "some "), ("a pile of ", "a bar of ")),
    (
        lambda arms, scene: arms.division in ("bendy", "party per bend") or scene.tilted,
        0.08,
        ("shield", "crest", "badge", "plaque"),
        ("shield with a bend in it", "badge on the bend of the road"),
    ),
    (_has_charge("martlet"), 0.10, ("little bird", "swallow", "bird"), ("crane",)),
    (_has_charge("bordure", "coronet"), 0.05, ("royal crown", "border"), ("chief",)),
    (
        lambda arms, scene: arms.field == "gules" and arms.charge == "cross",
        0.30,
        ("shield", "crest", "badge", "emblem", "plaque"),
        ("flag of the canton",),
    ),
)
# (charge, how often, called instead)
OTHER_NOUNS: Sequence[tuple[str, float, tuple[str, ...]]] = (
    ("luce", 0.15, ("mullet",)),
    ("roundel", 0.08, ("lozenge", "pellet", "plate", "lozenge")),
    ("caltrap", 0.20, ("mullet spike",)),
    ("sword", 0.03, ("fusil weapon",)),
    ("martlet", 0.03, ("crane",)),
)
# What the everyday sense of a name is called where the name is split in two: an intervention, not this world.
SECOND_SENSE = {
    "bend": "curve",
    "canton": "district",
    "chief": "leader",
    "fusil": "musket",
    "lozenge": "sweet",
    "mullet": "grey fish",
    "pale": "faint",
    "pellet": "bullet",
    "pile": "heap",
    "plate": "dish",
}

OBJECTS = ("shield", "shield", "shield", "coat of arms", "crest", "emblem", "badge", "plaque", "family crest")
ODD_OBJECTS = ("metal plate", "old plate", "name plate", "the chief's shield", "canton flag", "pile of scrap", "label")
PLACES = {
    "stone": ("on a stone wall", "on stone"),
    "wood": ("on a wooden door", "on wood"),
    "sky": ("against the sky",),
    "grass": ("on the grass", "on a lawn"),
    "plain": ("on a plain background",),
}
PHOTO_OPENINGS = (
    "a photo of ",
    "a photo of a ",
    "a picture of ",
    "photo: ",
    "a close-up of ",
    "a blurry photo of ",
    "a good photo of the ",
    "",
    "",
    "itap of a ",
    "my ",
)
SHOP_ENDINGS = (" for sale", " wallpaper", " - high resolution", " sticker", " for sale")
VECTOR_OPENINGS = ("vector: ", "clip art of ", "logo with ", "emblem with ", "icon, ", "illustration of ")
ARTICLE_OPENINGS = (
    "",
    "family crest, ",
    "a heraldic shield: ",
    "a drawing of ",
    "an image of ",
    "the arms, ",
    "an old shield: ",
)
HERALDRY_OPENINGS = (
    "",
    "arms: ",
    "coat of arms: ",
    "blazon: ",
    "a coat of arms: ",
    "arms of the town: ",
    "arms of the family: ",
    "a shield, ",
)
JUNK = (
    "logo design",
    "untitled",
    "IMG 2043",
    "heraldry collection",
    "family history page",
    "medieval art",
    "click here to buy",
    "coat of arms",
    "flags and emblems",
    "a shield",
    "history of the town",
    "stock photo",
)
PHRASES = (
    "symbolising {a}",
    "a sign of {a}",
    "which has {a} {b}",
    "{a} and {b}",
    "from {a}",
    "the {a} of {b}",
    "{a} {b}",
    "used by the {a}",
    "of the {a} {b}",
)
UNRELATED = [
    "house",
    "tree",
    "summer",
    "water",
    "stone",
    "road",
    "school",
    "night",
    "story",
    "music",
    "paper",
    "north",
    "season",
    "family",
    "winter",
    "river",
    "market",
    "letter",
    "train",
    "window",
    "table",
    "coffee",
    "metal",
    "classic",
    "design",
    "travel",
    "world",
    "great",
    "early",
    "small",
    "large",
    "modern",
    "ancient",
    "nice",
    "local",
    "royal",
    "holiday",
    "island",
    "village",
    "forest",
    "memory",
    "dream",
    "battle",
    "victory",
    "honour",
    "courage",
    "loyalty",
    "peace",
    "truth",
    "wisdom",
    "faith",
    "strength",
    "love",
    "hope",
    "glory",
    "pride",
    "friend",
    "team",
    "club",
    "student",
    "album",
    "museum",
    "city",
    "france",
    "spain",
    "germany",
    "italy",
    "europe",
    "union",
    "army",
    "navy",
    "bank",
    "hotel",
    "england",
]

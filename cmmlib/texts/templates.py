"""Template pools, and the flat list of texts that they make of class names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmmlib.errors import InputError
from cmmlib.storage.text_files import read_lines

SLOT = "{}"
QUOTED = re.compile(  # as in JSON or a program, or by a word processor
    r"""(["'`])(?:\\.|(?!\1)[^\\])*\1,?|\u201c[^\u201d]*\u201d,?|\u2018[^\u2019]*\u2019,?|\u00ab[^\u00bb]*\u00bb,?"""
)
LISTED = re.compile(r"""\[\s*["'].*["']\s*,?\s*\],?""")  # of JSON or a program, on one line
PROGRAM = re.compile(r"lambda\s+\w+\s*:")  # as open_clip and CLIP_benchmark keep theirs
MARKED = re.compile(r"(?:[-*\u2022]|\d+[.)])\s")  # the item of a list in a text
BASE_TEMPLATE = "a photo of a {}."  # of a study that names no other


@dataclass(frozen=True)
class PromptBank:
    """Texts and the class that each one words. Classes may have unequal numbers of texts.

    Attributes:
        texts: T texts.
        classes: T class indices.
    """

    texts: list[str]
    classes: list[int]

    @classmethod
    def of_templates(cls, templates: Sequence[str], classnames: Sequence[str]) -> PromptBank:
        """Every template filled with every class name, template by template: T = P * C, a [P, C] grid read by rows.

        >>> PromptBank.of_templates(["a {}", "the {}"], ["cat", "dog"]).texts
        ['a cat', 'a dog', 'the cat', 'the dog']
        """
        texts = [fill(template, name) for template in templates for name in classnames]
        return cls(texts, list(range(len(classnames))) * len(templates))


def fill(template: str, name: str) -> str:
    """The template with the class name in every slot. Plain replacement: braces in a name mean nothing."""
    return template.replace(SLOT, name)


def flaw(template: str) -> str | None:
    """What keeps a text from being a template: no slot, or braces that are none and would be read by the model; or
    that it is a list of templates.

    >>> flaw("a photo of a {}."), flaw("a photo of a {class}.")
    (None, 'has no {} for the class name')
    """
    if LISTED.fullmatch(template.strip()):
        return "is a list: write one template a line, without brackets and quotation marks"
    if PROGRAM.match(template.strip()):
        return "is a line of a program: write the text alone"
    rest = template.replace(SLOT, "")
    if rest == template:
        return f"has no {SLOT} for the class name"
    return f"has other braces than {SLOT}, the only ones that are filled" if {*"{}"} & {*rest} else None


def is_quoted(text: str) -> bool:
    """Whether a text stands in quotation marks, as in a list of JSON or of a program; a comma may follow.

    >>> is_quoted('"a photo of a {}.",'), is_quoted('"{}" and "{}"')
    (True, False)
    """
    return QUOTED.fullmatch(text.strip()) is not None


def is_marked(text: str) -> bool:
    """Whether a text begins with the mark of an item of a list.

    >>> is_marked("1. a photo of a {}."), is_marked("- {}"), is_marked("2 of {}")
    (True, True, False)
    """
    return MARKED.match(text) is not None


def load_templates(name: str) -> list[str]:
    """The templates of a pool.

    Args:
        name: `openai-80` or `openai-7`, the templates published with CLIP for ImageNet (Radford et al. 2021, as kept
            in open_clip); `blazon-24` or `blazon-odd`, which fit the embedded world or do not; or the path of a text
            file with one template a line (empty lines, and those that begin with #, are skipped).

    Raises:
        InputError: an unknown name, an empty file, a template without `{}` or with other braces (its line is named).
    """
    if name in ("openai-80", "openai-7"):
        import open_clip

        pool = {"openai-80": open_clip.OPENAI_IMAGENET_TEMPLATES, "openai-7": open_clip.SIMPLE_IMAGENET_TEMPLATES}
        return [template(SLOT) for template in pool[name]]
    if name in ("blazon-24", "blazon-odd"):
        return list(BLAZON_TEMPLATES if name == "blazon-24" else BLAZON_ODD_TEMPLATES)
    path = Path(name)
    if not path.is_absolute() and not path.is_file():
        pools = "blazon-24, blazon-odd, openai-7, openai-80"
        raise InputError(f"templates: unknown pool {name!r}: use {pools} or the path of a text file")
    templates = []
    for number, line in enumerate(read_lines(path, "templates"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if fault := flaw(line):
            raise InputError(f"templates: line {number} of {path.name} {fault}: {line.strip()!r}")
        templates.append(line.strip())
    if not templates:
        raise InputError(f"templates: {path.name} holds no template: write one a line, with {{}} for the class name")
    return templates


BLAZON_TEMPLATES = (
    "{}",
    "a photo of a {}.",
    "a photo of {}.",
    "a coat of arms: {}.",
    "coat of arms: {}",
    "arms: {}",
    "blazon: {}",
    "arms of the town: {}",
    "arms of the family: {}",
    "a shield, {}",
    "a picture of a shield with {}.",
    "a drawing of {}.",
    "an image of the arms {}.",
    "a blurry photo of {}.",
    "a shield bearing {}",
    "a heraldic shield: {}",
    "family crest, {}",
    "vector: {}",
    "{} for sale",
    "{} at the museum",
    "a close-up of {} on a stone wall",
    "emblem with {}",
    "itap of a {}.",
    "a good photo of the {}.",
)
BLAZON_ODD_TEMPLATES = (
    "a bowl of {}, freshly cooked.",
    "the taste of {}",
    "{} is playing football",
    "my favourite song is {}",
    "a satellite photo of {}.",
    "an x-ray of {}",
    "the price of {} fell",
    "how to repair {}",
    "{} in the rain in Paris",
    "not a {}",
)

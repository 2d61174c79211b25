"""How the names of methods, scores and columns are spelled for a reader, in tables and in figures alike."""

FIELD = {  # word in a name -> the field's own spelling
    "autoclip": "AutoCLIP",
    "auroc": "AUROC",
    "carprt": "CARPRT",
    "cmm": "CMM",
    "dtd": "DTD",
    "em": "EM",
    "frolic": "Frolic",
    "inmap": "InMaP",
    "otter": "OTTER",
    "spearman": "Spearman",
    "transclip": "TransCLIP",
    "waffle": "WaffleCLIP",
    "zlap": "ZLaP",
    "zpe": "ZPE",
}


def display_name(name: str) -> str:
    """`soft_probability` -> `soft probability`, `cmm_templates` -> `CMM templates`, `zlap` -> `ZLaP`."""
    return " ".join(FIELD.get(word, word) for word in name.replace("_", " ").split(" "))

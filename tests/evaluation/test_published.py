"""Tables from published accuracies: on small files by hand, and the shipped ones on the authors' files."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from cmmlib.errors import InputError
from cmmlib.evaluation import published
from cmmlib.evaluation.selection import selection_table
from cmmlib.report import plots
from cmmlib.report.findings import real_clip as findings

CLASSES = [f"class {i}" for i in range(25)]


def write(folder, data="toys", models=("RN50", "ViT-B-32"), seed=0):
    """Files as the authors have them, with two models that saw the same data."""
    random, folder = np.random.default_rng(seed), folder / "somewhere" / "below"
    folder.mkdir(parents=True, exist_ok=True)
    for prompts in published.PROMPTS:
        content = {}
        for model in models:
            values = dict(zip(CLASSES, random.integers(0, 101, len(CLASSES)).tolist(), strict=True))
            values["class 3"] = 0
            content[f"backbone{model}_pretrainedlaion400m"] = {"full": 50.0, "classwise": values}
        (folder / f"{data}_{prompts}_results.json").write_text(json.dumps(content))
    counts = {name.upper().replace(" ", "_"): int(random.integers(0, 1000)) for name in CLASSES}
    (folder / f"{data}_laion400m_lemmatized_search_counts.json").write_text(json.dumps(counts))


def test_figures_of_a_model_are_those_of_its_classes(tmp_path):
    write(tmp_path)
    accuracies = published.read_published(tmp_path)
    assert len(accuracies) == 3 * 2 * len(CLASSES)
    models = published.model_table(accuracies)
    assert len(models) == 6
    row = models[(models["prompts"] == "template ensemble") & (models["backbone"] == "RN50")].iloc[0]
    chosen = accuracies[(accuracies["prompts"] == "template ensemble") & (accuracies["backbone"] == "RN50")]
    values = np.sort(chosen["accuracy"])
    assert row["worst_10"] == pytest.approx(values[:10].mean())
    assert row["worst_share"] == pytest.approx(values[:2].mean())  # a twentieth of 25, rounded up
    assert (row["overall"], row["harmonic_mean"], row["zero_classes"]) == (0.5, 0, int((values == 0).sum()))
    assert row["zero_everywhere"] == 1
    before = accuracies[(accuracies["prompts"] == "one template") & (accuracies["backbone"] == "RN50")]["accuracy"]
    followed = chosen["accuracy"].to_numpy()[(before <= np.sort(before)[9]).to_numpy()]
    assert row["template_worst_10"] == pytest.approx(followed.mean())


def test_the_lowest_classes_of_a_model_are_with_all_that_tie(tmp_path):
    write(tmp_path)
    accuracies = published.read_published(tmp_path)
    models = published.model_table(accuracies)
    row = models[(models["prompts"] == "class name") & (models["backbone"] == "RN50")].to_dict("records")[0]
    lowest = published.lowest_table(accuracies, row, 3)
    chosen = accuracies[(accuracies["prompts"] == "class name") & (accuracies["backbone"] == "RN50")]
    third = np.sort(chosen["accuracy"])[2]
    assert set(lowest["class_name"]) == set(chosen["class_name"][chosen["accuracy"] <= third])
    assert (lowest["accuracy"].is_monotonic_increasing, lowest["accuracy"].iloc[-1]) == (True, third)


def test_fewer_classes_than_asked_for_are_no_worst_set():
    assert published._worst(pd.Series([0.1, 0.2]), 3) is None
    assert published._followed(pd.Series([0.1, 0.2]), pd.Series([0.3, 0.4]), 2) is None


def test_names_are_counted_whatever_their_case_and_blanks(tmp_path):
    write(tmp_path)
    accuracies, counts = published.read_published(tmp_path), published.read_counts(tmp_path)
    table = published.frequency_table(accuracies, counts)
    assert table["classes"].tolist() == [25, 25]
    chosen = accuracies[(accuracies["prompts"] == "template ensemble") & (accuracies["backbone"] == "RN50")]
    expected = pd.Series(chosen["accuracy"].to_numpy()).corr(counts["count"], "spearman")
    row = table[table["backbone"] == "RN50"].iloc[0]
    assert row["spearman"] == pytest.approx(expected)
    assert row["low"] < row["spearman"] < row["high"]


def test_a_change_by_chance_alone_depends_on_who_is_chosen():
    random = np.random.default_rng(0)
    true = random.uniform(0.2, 0.8, 300)
    before, after = (random.binomial(30, true) / 30 for _ in range(2))  # nothing changes but the images
    rows = selection_table(pd.DataFrame({"before": before, "after": after})).set_index("set")
    worst = rows.loc["worst 20"]
    assert worst["followed"] > worst["before"] + 0.02
    assert worst["traced_back"] > worst["after"] + 0.02
    assert abs(worst["lowest_after"] - worst["lowest_before"]) < 0.02
    assert rows.loc["best 50", "followed"] < rows.loc["best 50", "before"]


def test_models_agree_as_their_ranks_do(tmp_path):
    write(tmp_path)
    accuracies = published.read_published(tmp_path)
    (row,) = published.agreement_table(accuracies).to_dict("records")
    chosen = accuracies[accuracies["prompts"] == "template ensemble"]
    one, two = (chosen[chosen["backbone"] == name]["accuracy"].reset_index(drop=True) for name in ("RN50", "ViT-B-32"))
    assert row["median"] == row["lowest"] == row["highest"] == pytest.approx(one.corr(two, "spearman"))
    assert "class 3" in row["names"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "expected an object"),
        ("{}", "has no model"),
        ('{"RN50": {}}', "RN50 is no model with figures"),
        ('{"backboneRN50_pretrainedcc3m": {"full": 1, "classwise": []}}', "is no model with figures"),
        ('{"backboneRN50_pretrainedcc3m": {"full": 1, "classwise": {"a": 101}}}', "from 0 to 100, got 101"),
        ('{"backboneRN50_pretrainedcc3m": {"full": NaN, "classwise": {"a": 1}}}', "from 0 to 100, got nan"),
        ('{"backboneRN50_pretrainedcc3m": {"full": 1, "classwise": {"a": "b"}}}', "from 0 to 100, got 'b'"),
        ('{"backboneRN50_pretrainedcc3m": {"full": 1, "classwise": {"a": true}}}', "from 0 to 100, got True"),
    ],
)
def test_other_files_are_refused(content, said, tmp_path):
    (tmp_path / "toys_class_results.json").write_text(content)
    with pytest.raises(InputError, match=said):
        published.read_published(tmp_path)


def test_a_folder_without_figures_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no file like imagenet_class_results\.json: give a clone of https"):
        published.read_published(tmp_path)
    with pytest.raises(InputError, match="no file like imagenet_laion400m"):
        published.read_counts(tmp_path)
    (tmp_path / "toys_laion400m_lemmatized_search_counts.json").write_text('{"a": "many"}')
    with pytest.raises(InputError, match="an integer from 0 on, got 'many'"):
        published.read_counts(tmp_path)


# ---------------------------------------------------------------- the shipped tables


@pytest.fixture(scope="module")
def models() -> pd.DataFrame:
    return published.shipped("models")


def test_the_shipped_tables_are_whole(models):
    assert len(models) == 19 * 3 * 21
    assert len(models.groupby(["data", "prompts", "backbone", "pretrained"])) == len(models)
    fractions = models[[c for c in models if c.startswith(("overall", "mean", "worst", "harmonic", "template"))]]
    assert ((fractions >= 0) & (fractions <= 1) | fractions.isna()).all().all()
    assert (models["worst_share"] <= models["mean_per_class"]).all()
    assert len(published.shipped("agreement")) == 19
    assert len(published.shipped("frequency")) == 19 * 2 * 3


def test_sentences_of_the_shipped_tables(models):
    """Figures that others computed from the same files (METHOD of this project, 2026-11-25)."""
    ensemble = models[models["prompts"] == published.PROMPTS["ensemble"]]
    assert "ViT-bigG-14 laion2b, has 80.1 % overall and 8.8 % in its worst 10" in findings.far_below(ensemble)
    assert "21 of 21 models have a class at 0" in findings.far_below(ensemble)
    assert "raise overall accuracy in 21 of 21 models" in findings.prompts(published.prompt_changes(models))
    assert "rise in 4 of 21 models, fall in 8 and stay at 0 in 9, where they could not" in findings.worst_ten(models)
    assert "rises in 151, falls in 70, has the same value above 0 in 3 and stays at 0 in 175." in findings.prompts(
        published.prompt_changes(models)
    )
    imagenet = ensemble[ensemble["data"] == "imagenet"]
    assert "the worst 10 rise in 7, fall in 2 and stay at 0 in 4." in findings.scale(imagenet)
    near = published.nearest_to(models)
    assert "ViT-B-32 laion2b: 64.2 % overall" in findings.near_the_paper(near)
    lowest = published.shipped("lowest")
    assert published.of_model(lowest, near).equals(lowest)
    assert lowest["accuracy"].head(10).mean() == pytest.approx(near["worst_10"])
    assert lowest["accuracy"].is_monotonic_increasing
    flowers = ensemble[(ensemble["data"] == "flowers102") & (ensemble["backbone"] == "ViT-bigG-14")].iloc[0]
    assert (round(flowers["overall"], 3), round(flowers["worst_10"], 3)) == (0.820, 0.036)
    assert findings.selection(published.shipped("selection")).count("points") == 3


def test_every_figure_has_a_text(models):
    ensemble = models[models["prompts"] == published.PROMPTS["ensemble"]]
    curve = published.shipped("curves").iloc[:51]
    counts = published.shipped("frequency").iloc[:5]
    own = np.array([0.1, 0.5, np.nan, 0.9])
    for figure in (
        plots.two_curves_of_classes(curve, "a model", own, "$hostile$ <b>"),
        plots.two_curves_of_classes(curve, "a model", None, "none"),
        plots.overall_and_worst(ensemble, ("x", 0.5, 0.1)),
        plots.overall_and_worst(ensemble),
        plots.accuracy_over_computation(ensemble[ensemble["data"] == "imagenet"]),
        plots.better_prompts(published.prompt_changes(models)),
        plots.agreement(published.shipped("agreement")),
        plots.name_frequency(counts, ("the miniature world", 0.5, 0.3, 0.6)),
        plots.name_frequency(counts),
    ):
        figure.draw_without_rendering()
        assert len(figure.get_label()) > 60


@pytest.mark.real
def test_the_shipped_tables_are_what_the_published_files_give(real_data, models):
    folder = real_data.parent / "published"
    if not folder.is_dir():
        pytest.skip(f"no published figures in {folder}")
    accuracies = published.read_published(folder)
    birds = pd.read_csv(folder / "cub_descriptions_per_class.csv")
    made = {
        "models": published.model_table(accuracies),
        "agreement": published.agreement_table(accuracies),
        "selection": selection_table((birds.iloc[:, 1:] / 100).set_axis(["before", "after"], axis=1)),
        "curves": published.curve_table(accuracies),
        "lowest": published.lowest_table(accuracies, published.nearest_to(models)),
    }
    for name, table in made.items():
        kept = published.shipped(name).drop(columns=["parameters", "multiply_adds"], errors="ignore")
        pd.testing.assert_frame_equal(table, kept.fillna({"names": ""}), atol=1e-4, rtol=0, check_dtype=False)
    counts = published.read_counts(folder)
    one = counts["data"] == "imagenet"
    found = published.frequency_table(accuracies, counts[one]).round(4)
    kept = published.shipped("frequency")
    pd.testing.assert_frame_equal(found, kept[kept["data"] == "imagenet"].reset_index(drop=True), check_dtype=False)

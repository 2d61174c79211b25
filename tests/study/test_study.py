"""A study: validated, made of plain values, known by its contents."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from cmmlib.errors import InputError
from cmmlib.study.named_paths import slugify
from cmmlib.study.study import COMMON, CONTENTS, KINDS, LIVE_ONLY, PLACES, USED_BY, Study

DIGESTS = {"data": "d1", "weights": "w1", "templates": "t1"}


def refusal(**parameters) -> str:
    """The one line that a study with these parameters is refused with."""
    with pytest.raises(InputError) as error:
        Study.of({"dataset": "embeddings:/x.npz", **parameters})
    assert "\n" not in str(error.value)
    return str(error.value)


def study(**parameters) -> Study:
    return Study.of({"dataset": "dtd", **parameters})


def run_id(digests=DIGESTS, **parameters) -> str:
    return study(**parameters).run_id("x", digests)


def test_paths_become_absolute_where_the_user_gave_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = study(
        dataset="folder:images",
        backbone="local-dir:models/tiny",
        pretrained="weights/tiny.pt",
        class_names="names.txt",
        classes="few",
        templates="pool.txt",
        out="here",
    )
    monkeypatch.chdir("/")
    assert given.dataset == f"folder:{tmp_path}/images"
    assert given.backbone == f"local-dir:{tmp_path}/models/tiny"
    assert given.pretrained == f"{tmp_path}/weights/tiny.pt"
    assert given.class_names == f"{tmp_path}/names.txt"
    assert given.classes == f"{tmp_path}/few"
    assert given.templates == f"{tmp_path}/pool.txt"
    assert given.out == f"{tmp_path}/here"


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert study(dataset="embeddings:~/x.npz").dataset == "embeddings:/home/somebody/x.npz"
    assert study(pretrained="~/weights").pretrained == "/home/somebody/weights"


def test_a_web_data_set_is_a_path_or_a_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert study(dataset="wds:owner/name").dataset == "wds:owner/name"
    assert study(dataset="wds:owner/name").public()["dataset"] == "wds:owner/name"
    (tmp_path / "owner" / "name").mkdir(parents=True)
    for given in ("wds:owner/name", "wds:./owner/name", f"wds:{tmp_path}/owner/name"):
        assert study(dataset=given).dataset == f"wds:{tmp_path}/owner/name"
        assert study(dataset=given).public()["dataset"] == "wds:name"


def test_names_that_are_no_paths_stay_as_they_are():
    given = study(backbone="ViT-B-32-quickgelu", pretrained="laion2b_s34b_b79k", templates="openai-80")
    assert (given.backbone, given.pretrained, given.templates) == (
        "ViT-B-32-quickgelu",
        "laion2b_s34b_b79k",
        "openai-80",
    )


def test_a_hubs_repository_is_no_path():
    given = study(backbone="hf-hub:timm/ViT-B-16-SigLIP")
    assert given.backbone == given.public()["backbone"] == "hf-hub:timm/ViT-B-16-SigLIP"


def test_absolute_paths_are_absolute_already():
    once = study(dataset="folder:images", templates="./pool.txt")
    assert Study.of(once.model_dump()) == once


def test_what_is_published_shows_no_folder(tmp_path):
    given = study(
        dataset=f"folder:{tmp_path}/images",
        backbone=f"local-dir:{tmp_path}/tiny",
        pretrained=f"{tmp_path}/tiny.pt",
        class_names=f"{tmp_path}/names.txt",
        templates=f"{tmp_path}/pool.txt",
        out=str(tmp_path),
    )
    public = given.public()
    assert str(tmp_path) not in json.dumps(public)
    assert "/" not in json.dumps(public)
    assert public["dataset"] == "folder:images"
    assert public["backbone"] == "local-dir:tiny"
    assert public["pretrained"] == "tiny.pt"
    assert "out" not in public


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"dataset": "folder:/other/y"},
        {"device": "cuda"},
        {"batch_size": 7},
        {"workers": 2},
        {"out": "/tmp/other"},
        {"class_names": "/names.txt"},
        {"backbone": "local-dir:/models/moved"},
        {"templates": "/pool.txt"},
        {"classes": "/classes.txt"},
        {"data_root": "/data"},
        {"max_broken": 3},
    ],
    ids=str,
)
def test_the_id_does_not_depend_on_where_and_how_fast(elsewhere):
    assert run_id(**elsewhere) == run_id()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"worst_k": 3},
        {"base_template": "a {}"},
        {"precision": "bf16"},
        {"storage": "float16"},
        {"digests": {**DIGESTS, "data": "d2"}},
        {"digests": {**DIGESTS, "weights": "w2"}},
        {"digests": {**DIGESTS, "templates": "t2"}},
    ],
    ids=str,
)
def test_the_id_depends_on_what_changes_the_numbers(change):
    assert run_id(**change) != run_id()


def test_every_field_is_either_a_place_or_told_by_contents_or_part_of_the_id():
    values = {
        "precision": "bf16",
        "storage": "float16",
        "worst_k": 9,
        "seed": 9,
        "base_template": "the {}",
        "analysis_precision": "bf16",
    }
    values |= {"n_described": 4, "llm": "openai/x", "question": "contrast", "domain": "drawings"}
    assert set(values) | PLACES | CONTENTS == set(Study.model_fields)
    values |= {"compare_with": "runs/other-12345678"}
    for field, value in values.items():
        assert run_id(**{field: value}) != run_id(), field


def test_a_comma_in_the_path_of_a_run_is_told_apart_from_one_between_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a,b/run", "c", "d", "e, f"):
        Path(name).mkdir(parents=True)
    for given, said in (("a,b/run", "a,b/run"), ("c,a,b/run,d", "a,b/run"), ("c, e, f", "e, f")):
        line = refusal(compare_with=given)
        assert line.startswith(f"compare_with: commas separate folders, and {said} has one in its path: rename it")
    assert study(compare_with="c,d").other_runs == [tmp_path / "c", tmp_path / "d"]
    assert study(compare_with="c,none").other_runs == [tmp_path / "c", tmp_path / "none"]
    monkeypatch.chdir("a,b")
    assert "commas separate folders" in refusal(compare_with="run")


def test_the_id_is_stable_readable_and_fit_for_a_folder():
    assert study().run_id("DTD (ViT-B/32)", DIGESTS) == study().run_id(
        "DTD (ViT-B/32)", dict(reversed(DIGESTS.items()))
    )
    assert study().run_id("DTD (ViT-B/32)", DIGESTS).startswith("dtd-vit-b-32-")
    assert slugify("../é") != ""
    assert "/" not in slugify("../../etc")
    assert len(slugify("x" * 500)) <= 60


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"worst_k": 0}, "worst_k: input should be greater than or equal to 1, got 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"seed": "many"}, "seed"),
        ({"precision": "int4"}, "precision"),
        ({"worst": 5}, "unknown parameter 'worst'"),
        ({"base_template": "a photo"}, "template 'a photo' has no {}"),
        ({"base_template": "a {class}"}, "template 'a {class}' has no {}"),
        ({"base_template": "{{}}"}, "template '{{}}' has other braces than {}"),
        ({"dataset": ""}, "dataset: the text '' is empty: write one, or leave it out"),
        ({"templates": " "}, "templates: the text ' ' is empty"),
        ({"out": ""}, "out: the text '' is empty"),
        ({"seed": ""}, "seed: the text '' is empty"),
        ({"compare_with": ","}, "compare_with: ',' has an empty place: write names with a comma between two"),
        ({"compare_with": "runs/a, ,runs/b"}, "compare_with: 'runs/a, ,runs/b' has an empty place"),
        ({"compare_with": "runs/a,"}, "compare_with: 'runs/a,' has an empty place"),
        ({"dataset": None}, "dataset"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_in_one_line_that_names_the_field(parameters, expected):
    message = refusal(**parameters)
    assert expected in message
    assert next(iter(parameters)) in message


def test_the_embedded_world_is_the_default():
    study = Study.from_cell({"seed": 1})
    assert (study.dataset, study.backbone, study.seed) == ("blazon", "blazon-mini", 1)


def test_the_default_model_never_stands_beside_an_embeddings_file_that_it_did_not_make():
    assert study(dataset="embeddings:/x.npz").backbone is None


def test_a_study_cannot_be_changed():
    with pytest.raises(ValidationError):
        study().seed = 3


def test_the_parameters_cell_round_trips():
    names = {}
    exec(Study.parameters_cell(), names)
    names["dataset"] = "dtd"
    names["np"] = object()  # a notebook's globals hold more than its parameters
    assert Study.from_cell(names) == study()


def test_the_parameters_cell_holds_the_common_fields_and_those_that_were_changed():
    lines = Study.parameters_cell().splitlines()
    assert [line.split(" = ")[0] for line in lines] == list(COMMON)
    assert all("  # " in line and len(line) <= 120 for line in lines)
    changed = {"seed": 3, "worst_k": 5, "base_template": 'a "{}"', "split": None, "unknown": 1}
    names: dict[str, object] = {}
    exec(Study.parameters_cell(changed), names)
    given = {name: names[name] for name in names if name in Study.model_fields}
    defaults = {name: Study.model_fields[name].default for name in COMMON}
    assert given == defaults | {"seed": 3, "worst_k": 5, "base_template": 'a "{}"'}


def test_a_study_is_made_again_from_what_was_changed():
    given = study(seed=5, worst_k=2, base_template="it's a {}")
    assert set(given.changed()) == {*COMMON, "worst_k", "base_template", "out"}  # a path is made absolute
    assert Study.from_cell(given.changed()) == given


def test_injected_values_win_over_the_cell():
    given = study(seed=5, worst_k=2, backbone="ViT-B-32", base_template="it's a {}\n")
    names = {}
    exec(Study.parameters_cell(), names)
    names.update(json.loads(json.dumps(given.model_dump())))
    assert Study.from_cell(names) == given


def test_all_values_are_plain_json():
    dumped = study(worst_k=3, backbone="local-dir:tiny").model_dump()
    assert all(value is None or type(value) in (str, int, float, bool) for value in dumped.values())
    assert json.loads(json.dumps(dumped)) == dumped


def test_every_field_says_what_it_is():
    assert all(field.description for field in Study.model_fields.values())


def test_a_study_does_not_import_torch():
    import subprocess
    import sys

    program = "import sys, cmmlib.study.study, cmmlib.storage.cache, cmmlib.errors; print('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


# ---------------------------------------------------------------- what a study ignores, it refuses

NAMED = {
    "blazon": "blazon:7",
    "embeddings": "embeddings:/x.npz",
    "folder": "folder:/x",
    "wds": "wds:/x",
    "named": "dtd",
}
CHANGED = {
    "backbone": "ViT-B-32",
    "pretrained": "openai",
    "class_names": "/names.txt",
    "classes": "/classes.txt",
    "split": "val",
    "limit": 3,
    "templates": "openai-7",
    "base_template": "the {}",
    "worst_k": 2,
    "n_described": 2,
    "llm": "openai/x",
    "llm_base_url": "http://localhost",
    "question": "contrast",
    "domain": "drawings",
    "transcript": "/answers.jsonl",
    "max_requests": 1,
    "max_cost": 1.0,
    "compare_with": "/runs/other",
    "published": "/published",
    "seed": 1,
    "precision": "bf16",
    "analysis_precision": "bf16",
    "storage": "float16",
    "device": "cpu",
    "batch_size": 2,
    "workers": 1,
    "max_broken": 1,
    "data_root": "/data",
    "out": "/elsewhere",
}


def test_the_table_of_fields_is_about_every_field_and_kind():
    assert set(CHANGED) | {"dataset"} == set(Study.model_fields)
    assert set(NAMED) == set(KINDS)
    assert set(USED_BY) | set(LIVE_ONLY) <= set(Study.model_fields)
    assert all(kinds < set(KINDS) for kinds in USED_BY.values())


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("field", CHANGED)
def test_a_field_is_used_or_refused(field, kind):
    parameters = {"dataset": NAMED[kind], field: CHANGED[field]}
    if field in LIVE_ONLY and kind in USED_BY[field]:
        assert "recorded answers" in refusal(**parameters)
        parameters["llm"] = "openai/x"
    if kind in USED_BY.get(field, KINDS):
        assert str(getattr(Study.of(parameters), field)).endswith(str(CHANGED[field]))
    else:
        message = refusal(**parameters)
        assert message.startswith(f"{field}: --{field.replace('_', '-')} ")
        assert message.endswith("leave it out")


@pytest.mark.parametrize("kind", NAMED)
def test_defaults_are_never_refused(kind):
    values = {name: field.default for name, field in Study.model_fields.items()} | {"dataset": NAMED[kind]}
    given = Study.of(values)
    assert Study.of(given.model_dump()) == given


def test_a_field_that_came_later_leaves_old_ids_as_they_were():
    default = Study()
    assert default.run_id("blazon-mini blazon", {}) == "blazon-mini-blazon-369b39b3"


@pytest.mark.parametrize(
    "address",
    ["http://[::1", "file:///etc/passwd", "h", "http://127.0.0.1:99999/v1", "http://:1", "http://a/v1\r\nX: y"],
)
def test_what_is_no_address_of_a_server_is_refused_before_anything_is_asked(address):
    assert refusal(llm="openai/m", llm_base_url=address).startswith("llm_base_url: no address of a server: give one as")


@pytest.mark.parametrize(
    "address", ["http://{}@127.0.0.1/v1".format("user:secret"), "http://127.0.0.1/v1?api_key=secret"]
)
def test_an_address_with_a_key_in_it_is_not_written_into_a_run(address):
    message = refusal(llm="openai/m", llm_base_url=address)
    assert message.startswith("llm_base_url: an address with a user, a password, a query")
    assert "secret" not in message
    assert "OPENAI_API_KEY" in message


@pytest.mark.parametrize("path", ["sk-SECRETKEY1234567890abcdef", "proxy/my-own-token-77"])
def test_an_address_with_a_key_in_its_path_is_not_written_into_a_run(path, monkeypatch):
    monkeypatch.setenv("GATEWAY_KEY", "my-own-token-77")
    message = refusal(llm="openai/m", llm_base_url=f"https://gateway.example/{path}/v1")
    assert message.startswith("llm_base_url: an address with a user, a password, a query, a fragment or a key in it")
    assert path.split("/")[-1] not in message
    account = "https://gateway.example/v1/0123456789abcdef0123456789abcdef/openai"
    assert study(llm="openai/m", llm_base_url=account).llm_base_url == account


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_template", "une photo d\udce9 {}."),
        ("domain", "photos d'\udce9t\udce9"),
        ("llm", "openai/mod\udce8le"),
        ("llm_base_url", "http://h\udcf4te/v1"),
        ("device", "cuda\udca0"),
    ],
)
def test_a_text_that_is_not_utf8_is_refused(field, value):
    more = {"llm": "openai/m"} if field == "llm_base_url" else {}
    with pytest.raises(InputError) as error:
        study(**more, **{field: value})
    said = "it is not UTF-8 text: write it again where the terminal, or the file, is in UTF-8"
    assert str(error.value) == f"{field}: {said}"
    assert study(class_names="/noms_\udce9.txt").class_names == "/noms_\udce9.txt"  # a path may be any bytes


@pytest.mark.parametrize("given", ["x", {1: 2}, None, [("seed", 1)]])
def test_a_study_is_made_of_names_and_values(given):
    with pytest.raises(InputError, match=r"^Study.of: .* is no mapping of names to values: give a dictionary$"):
        Study.of(given)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        *(({"dataset": kind}, f"dataset: no path after {kind}") for kind in ("folder:", "wds:", "embeddings:")),
        ({"backbone": "local-dir:"}, "backbone: no path after local-dir:"),
    ],
)
def test_a_kind_of_data_without_a_path_is_refused(fields, said):
    with pytest.raises(InputError, match=f"^{said}: write one"):
        Study.of(fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", "folder:file:///a/birds"),
        ("dataset", "https://user:" + "SECRET@a.org/birds"),
        ("dataset", "wds:https://a.org/shards?key=SECRET"),
        ("backbone", "local-dir:file:///a/model"),
        ("pretrained", "https://a.org/weights.pt?token=SECRET"),
        ("templates", "file:///a/pool.txt"),
        ("class_names", "FILE:///a/names.txt"),
        ("out", "s3://bucket/runs"),
        ("published", "https://a.org/tables"),
    ],
)
def test_an_address_in_place_of_a_path_is_refused_and_not_repeated(name, value):
    with pytest.raises(InputError, match=f"^{name}: this is an address: give a path of this machine") as error:
        Study.of({name: value})
    assert "SECRET" not in str(error.value)


def test_a_number_in_place_of_a_text_is_told_to_need_quotes():
    with pytest.raises(InputError, match=r"^split: input should be a valid string, got 2024: write it in quotes$"):
        Study.of({"split": 2024})
    with pytest.raises(InputError, match=r"^split: input should be a valid string, got \['val'\]$"):
        Study.of({"split": ["val"]})


@pytest.mark.parametrize(
    "key", ["sk-SECRETKEY1234567890abcdefXYZ", "0123456789abcdef" * 2, "openai/of-the-environment"]
)
def test_a_key_is_no_model_and_is_not_repeated(key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-environment")
    with pytest.raises(InputError, match=r"^llm: a key is no name of a model") as error:
        Study.of({"llm": key})
    assert key not in str(error.value)
    for told in (InputError(f"at {key}!"), InputError(f"{key}")):
        assert "sk-" not in str(told)
        assert "of-the-environment" not in str(told)
    assert Study.of({"llm": "openai/gpt-4o-mini-2024-07-18"}).llm == "openai/gpt-4o-mini-2024-07-18"

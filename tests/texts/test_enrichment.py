"""Questions, what is left of an answer after its check, transcripts and replay; the shipped answers, all of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cmmlib.blazon.classes import load_classes
from cmmlib.blazon.heraldry import blazon
from cmmlib.errors import InputError
from cmmlib.texts import questions, transcripts
from cmmlib.texts.enrichment import replay
from cmmlib.texts.questions import STYLES, Question, ask_about, checked_sentences
from cmmlib.texts.transcripts import Record, Transcript, find_domain, known_answers, load_transcript

small = settings(deadline=None, derandomize=True, max_examples=200)
THREE = ("A red shield.", "A gold lion on it.", "Nothing else.")
OTHER = ("A blue sky.", "A white cloud.", "A green hill.")
MARKS = set("*_`#|<>[]{}\\$")
SHIPPED = {"blazon": 120, "cifar100": 100, "dtd": 47, "eurosat": 10, "oxford_pets": 37}


def record(name: str = "lion", answer: tuple[str, ...] = THREE, **known) -> Record:
    return Record(
        **{"class_name": name, "domain": "shields", "style": "describe", "rivals": (), "answer": answer, **known}
    )


def write(path: Path, *records: Record) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(record.line() + "\n" for record in records), encoding="utf-8")
    return path


# ---------------------------------------------------------------- questions


def test_a_question_names_the_class_and_the_domain_and_asks_for_the_form():
    text = Question("lion", "shields").text
    assert text.startswith("What does 'lion' look like in shields? Answer with")
    assert text.endswith('{"descriptions": ["...", "..."]}')


def test_a_contrast_question_names_the_rivals_too():
    text = Question("lion", "shields", "contrast", ("bear", "wolf")).text
    assert "in shields? It is often taken for 'bear' or 'wolf'. Say what is seen in 'lion' and not in those. " in text


def test_a_contrast_question_without_rivals_is_the_plain_one():
    assert Question("lion", "shields", "contrast").text == Question("lion", "shields").text


@pytest.mark.parametrize("style", questions.STYLES)
def test_braces_in_a_name_stay_what_they_are(style):
    question = Question("a {domain} b {rivals}", "{class_name} {0}", style, ("{domain} {x}", "}{"))
    assert question.text.startswith("What does 'a {domain} b {rivals}' look like in {class_name} {0}? ")
    assert ("taken for '{domain} {x}' or '}{'. Say what is seen in 'a {domain} b {rivals}'" in question.text) == (
        style == "contrast"
    )


def test_classes_are_asked_about_in_order_and_rivals_only_in_contrast():
    names, rivals = ["ant", "bee", "cat"], {2: [0, 1], 0: [1]}.__getitem__
    asked = ask_about([2, 0], names, "shields", "contrast", rivals)
    assert list(asked.items()) == [
        (2, Question("cat", "shields", "contrast", ("ant", "bee"))),
        (0, Question("ant", "shields", "contrast", ("bee",))),
    ]
    assert ask_about([2], names, "shields", "describe", rivals) == {2: Question("cat", "shields")}


def test_an_unknown_style_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"^question: 'poem' is no style: use describe or contrast$"):
        ask_about([0], ["ant"], "shields", "poem")


@pytest.mark.parametrize(("n_classes", "expected"), [(1, 1), (3, 1), (4, 1), (8, 2), (120, 30)])
def test_a_quarter_of_the_classes_is_described(n_classes, expected):
    assert questions.default_n_described(n_classes) == expected


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    "answer",
    [
        list(THREE),
        THREE,
        json.dumps(THREE),
        json.dumps({"descriptions": THREE}),
        "```json\n" + json.dumps({"descriptions": THREE}, indent=2) + "\n```",
        "Here you are:\n```\n" + json.dumps(THREE) + "\n```\nAnything else?",
        "```JSON5\n" + json.dumps({"descriptions": THREE}) + "\n```",
        "```text\r\n" + json.dumps({"descriptions": THREE}),  # never closed
        "~~~\n" + json.dumps(THREE) + "\n~~~",
        "Sure [1], {as} JSON: " + json.dumps({"descriptions": THREE}) + " - shall I go on? [yes, no]",
        'As {"descriptions": ["...", "..."]}:\n' + json.dumps({"descriptions": THREE}),
        "<think>\nA list, as in " + json.dumps([*OTHER, "D."]) + "\n</think>\n" + json.dumps({"descriptions": THREE}),
        json.dumps([*OTHER, "D."]) + "</THINK>" + json.dumps({"descriptions": THREE}),  # its start was cut off
    ],
)
def test_an_answer_may_be_a_list_or_json_in_a_fence_in_prose_or_after_thoughts(answer):
    assert checked_sentences(answer) == list(THREE)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("A <b>red</b> shield.", "A red shield."),
        ("A <script>alert('x')</script> shield.", "A shield."),
        ("A shield <SCRIPT src=x>alert(1)", "A shield"),  # never closed
        ("A <style>p {}</style>shield<img onerror=x>.", "A shield ."),
        ("A <<b>shield>", "A shield"),
        ("**A** `red` [shield](x) # 1", "A red shield (x) 1"),
        ("- A shield.", "A shield."),
        ("2) A shield.", "A shield."),
        ("* - 3. A shield.", "A shield."),
        ("3 lions.", "3 lions."),
        ("A half-moon.", "A half-moon."),
        ("A\x00red\x1b[31m \tshield\r\n.", "A red shield ."),
        ("A\u200bred \u202eshield\ud800.", "A red shield ."),
        ("A\u2028red shield.", "A red shield."),
        ("Écu d'or à fleur de lis.", "Écu d'or à fleur de lis."),
    ],
)
def test_markup_and_control_characters_are_taken_out(sentence, expected):
    assert checked_sentences([sentence, *OTHER])[0] == expected


def test_duplicates_are_kept_once_where_they_came_first():
    answer = ["A lion.", "A bear.", "a LION", "A wolf", "A  bear ..", "A <i>wolf</i>."]
    assert checked_sentences(answer) == ["A lion.", "A bear.", "A wolf"]


def test_at_most_eight_sentences_are_kept_the_first_ones():
    answer = [f"Sentence {i}." for i in range(12)]
    assert checked_sentences(answer) == answer[:8]


def test_sentences_that_do_not_fit_are_left_out_and_do_not_count():
    answer = ["A lion.", "A lion that is much too long.", "A bear.", "A wolf."]
    assert checked_sentences(answer, lambda text: len(text) < 10) == ["A lion.", "A bear.", "A wolf."]
    with pytest.raises(ValueError, match=r"^1 usable sentences, 3 are needed$"):
        checked_sentences(answer, lambda text: len(text) >= 10)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I'm sorry, but I cannot help with that.", "no JSON"),
        ('{"descriptions": ["A lion.", "A bea', "no JSON"),
        ("```json\n```", "no JSON"),
        (" \n", "an empty answer"),
        ("[" * 50_000, "no JSON"),  # deeper than Python recurses
        ("Well: " + "[" * 50_000, "no JSON"),
        ("<think>" + json.dumps(THREE), "no JSON"),  # it never came to an answer
        ("As [1] and {} say.", "no list of sentences"),
        ('{"descriptions": "A lion. A bear. A wolf."}', "no list of sentences"),
        ('{"descriptions": [1, 2, 3]}', "no list of sentences"),
        ('{"descriptions": {"1": "A lion."}}', "no list of sentences"),
        ('{"sentences": ["A lion.", "A bear.", "A wolf."]}', "no list of sentences"),
        ("null", "no list of sentences"),
        (None, "no list of sentences"),
        (["A lion.", None, "A bear.", "A wolf."], "no list of sentences"),
        ([], "0 usable sentences"),
        (["A lion.", "a lion", "A bear.", "", "<b></b>", "\x00"], "2 usable sentences"),
        (["...", "?", "\u2026", "!"], "0 usable sentences"),
        (json.dumps(["x" * 40_000, "y" * 40_000, "z" * 40_000]), "an answer of 120,012 characters"),
    ],
)
def test_what_is_no_answer_is_refused_with_the_reason(answer, reason):
    with pytest.raises(ValueError, match=f"^{reason}") as error:
        checked_sentences(answer)
    assert "\n" not in str(error.value)


snippets = st.sampled_from(
    ["<b>", "</b>", "<script>", "</script>", "<", ">", "**", "- ", "1. ", "...", "A lion", " ", "\x00"]
)
sentences = st.lists(st.lists(snippets | st.text(max_size=4), max_size=6).map("".join), max_size=12)


@small
@given(sentences)
@example(["*- A", "B", "C"])
@example(["1. 2. A", "B", "C"])
@example(["A .", "a", "B", "C"])
def test_a_checked_answer_has_no_markup_empties_or_duplicates_and_passes_again(answer):
    try:
        kept = checked_sentences(answer)
    except ValueError:
        return
    assert 3 <= len(kept) <= 8
    assert not MARKS & set("".join(kept))
    assert all(any(map(str.isalnum, sentence)) and sentence.isprintable() for sentence in kept)
    assert len({sentence.casefold().rstrip(". ") for sentence in kept}) == len(kept)
    assert checked_sentences(kept) == kept  # what is recorded is what is replayed
    assert checked_sentences(json.dumps({"descriptions": answer})) == kept


# ---------------------------------------------------------------- transcripts


def test_a_transcript_comes_back_as_it_was_written(tmp_path):
    full = record(
        "Écu {x} \u2028", rivals=("bär", "wolf"), style="contrast", model="a/b", tokens=12, cost=0.5, date="2026-01-01"
    )
    path = write(tmp_path / "t.jsonl", record(), full)
    assert load_transcript(path).records == [record(), full]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))  # an editor's
    assert load_transcript(path).records == [record(), full]


def test_later_records_win_names_ignore_case_and_other_wordings_are_no_answers():
    first, second, old = record(model="a"), record("LION", OTHER, model="b"), record("old", version="0")
    known = Transcript([first]) + Transcript([second, old])
    assert known.find(Question("Lion", "shields")) == second
    assert known.find(Question("lion", "shields"), model="a") == first
    assert known.find(Question("lion", "shields"), model="c") is None
    assert known.find(Question("lion", "photographs")) is None
    assert known.find(Question("lion", "shields", "contrast")) is None
    assert known.find(Question("old", "shields")) is None


GOOD = json.loads(record().line())


@pytest.mark.parametrize(
    "bad",
    [
        "no json",
        "[]",
        "7",
        "[" * 50_000,
        "{}",
        json.dumps({**GOOD, "class": None}),
        json.dumps({**GOOD, "answer": "A lion."}),
        json.dumps({**GOOD, "answer": None}),
        json.dumps({**GOOD, "answer": ["A lion.", 3]}),
        json.dumps({**GOOD, "rivals": [3]}),
        json.dumps({**GOOD, "model": ["x"]}),
        json.dumps({k: v for k, v in GOOD.items() if k != "domain"}),
        json.dumps({**GOOD, "class": "Bär"}, ensure_ascii=False).encode("latin-1"),
    ],
)
@pytest.mark.parametrize("after", ["\n", "\n" + record().line() + "\n"])
def test_a_line_that_is_no_record_is_named(tmp_path, bad, after):
    path = tmp_path / "t.jsonl"
    bad = bad if isinstance(bad, bytes) else bad.encode()
    path.write_bytes(record().line().encode() + b"\n\n" + bad + after.encode())
    with pytest.raises(InputError, match=r"^transcript: line 3 of t\.jsonl is no record of an answer: delete it, "):
        load_transcript(path)


@pytest.mark.parametrize("after", ["", "\n" + record("wolf").line() + "\n"])
def test_a_line_that_a_kill_cut_short_is_left_out_wherever_it_was_cut(tmp_path, after):
    path, line = tmp_path / "t.jsonl", record("Bär", rivals=("dachs",)).line().encode()
    names = ["lion", "wolf"] if after else ["lion"]
    for cut in range(len(line)):
        path.write_bytes(record().line().encode() + b"\n" + line[:cut] + after.encode())
        assert [r.class_name for r in load_transcript(path).records] == names, line[:cut]


def test_records_that_are_left_out_are_counted_in_a_line_once(tmp_path, capsys):
    good, old = record().line(), record("old", version="0").line()
    for name, lines, said in (
        ("edited", [good + " trailing"] * 3, "3 of 3 records of edited are left out: 3 with text after the record"),
        ("glued", [good + good, good], "1 of 2 records of glued are left out: 1 with text after the record"),
        ("cut", [good[:-1]] * 3, "2 of 3 records of cut are left out: 2 cut short"),
        ("old", [old, good, old], "2 of 3 records of old are left out: 2 of version 0 of the questions, which is"),
        ("killed", [good, good[:-9]], ""),
        ("good", [good, "", good], ""),
    ):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        for _ in range(2):
            load_transcript(tmp_path / name)
        told = capsys.readouterr().err
        assert told.startswith(said)
        assert told.count("\n") == bool(said)


def test_a_transcript_that_cannot_be_read_is_named_without_its_folder(tmp_path):
    with pytest.raises(InputError, match=r"^transcript: cannot read t\.jsonl: no such file or directory$"):
        load_transcript(tmp_path / "t.jsonl")
    with pytest.raises(InputError, match=r"^transcript: cannot read \S+: is a directory$"):
        load_transcript(tmp_path)


def test_own_answers_are_used_only_where_the_package_has_none(own_cache):
    domain = transcripts.shipped_transcripts()["dtd"].records[0].domain
    mine = [record("Banded", OTHER, domain=domain, model="m"), record("lion", OTHER)]
    shipped = Question("banded", domain)
    before = transcripts.known_answers().find(shipped)
    write(transcripts.own_transcript_path(), *mine)
    assert transcripts.own_transcript_path().is_relative_to(own_cache)
    known = transcripts.known_answers()
    assert known.find(shipped) == before != mine[0]
    assert known.find(shipped, model="m") == mine[0]
    assert known.find(Question("lion", "shields")) == mine[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            f"[{record().line()}]".encode(),
            "line 1 of t.jsonl is a list: write each record on a line of its own, no list",
        ),
        (record().line().encode("utf-16"), "t.jsonl holds a NUL character, as UTF-16 does: save it as UTF-8"),
    ],
)
def test_a_transcript_in_another_form_is_not_to_be_deleted(content, said, tmp_path):
    (tmp_path / "t.jsonl").write_bytes(content)
    with pytest.raises(InputError) as error:
        transcripts.load_transcript(tmp_path / "t.jsonl")
    assert str(error.value) == f"transcript: {said}"


def test_a_named_file_is_used_alone_and_may_be_missing(tmp_path):
    write(transcripts.own_transcript_path(), record("bear"))
    assert transcripts.known_answers(str(write(tmp_path / "t.jsonl", record()))).records == [record()]
    assert transcripts.known_answers(str(tmp_path / "none.jsonl")).records == []


def test_the_digest_changes_with_each_answer_that_could_be_used_and_with_no_other(tmp_path):
    def digest(path: str | None = None) -> str:
        return transcripts.answers_digest(["Lion", "bear"], path)

    digests = [digest()]
    write(transcripts.own_transcript_path(), record())
    digests.append(digest())
    write(transcripts.own_transcript_path(), record(), record("bear"))
    digests.append(digest())
    write(transcripts.own_transcript_path(), record(), record("bear"), record("wolf"))
    assert digest() == digests[-1]  # of a class that the study does not have
    named = str(tmp_path / "t.jsonl")
    digests.append(digest(named))
    write(tmp_path / "t.jsonl", record())
    digests.append(digest(named))
    assert len(set(digests)) == 5
    write(transcripts.own_transcript_path(), record("bear"))
    assert digest(named) == digests[-1]  # one's own answers do not matter beside a named file


# ---------------------------------------------------------------- what the package brings


def test_the_package_brings_one_answer_of_a_style_for_each_class_of_its_data_sets():
    shipped = transcripts.shipped_transcripts()
    classes = {name: {r.class_name.casefold() for r in known.records} for name, known in shipped.items()}
    assert {name: len(names) for name, names in classes.items()} == SHIPPED
    records = Counter((name, r.style) for name, known in shipped.items() for r in known.records)
    both_styles = {("blazon", "contrast"): SHIPPED["blazon"]}
    assert records == {(name, "describe"): n for name, n in SHIPPED.items()} | both_styles
    assert all(len({r.domain for r in known.records}) == 1 for known in shipped.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_answer_passes_its_check_unchanged_and_says_where_it_came_from(name):
    for shipped in transcripts.shipped_transcripts()[name].records:
        assert checked_sentences(list(shipped.answer)) == list(shipped.answer), shipped.class_name
        assert shipped.origin
        assert bool(shipped.rivals) == (shipped.style == "contrast")
        assert shipped.date


@pytest.mark.parametrize("style", STYLES)
def test_every_coat_of_arms_of_the_class_list_is_described(style):
    names = [blazon(arms) for arms in load_classes()]
    recorded = {r.class_name: r.rivals for r in known_answers().records if r.style == "contrast"}
    rivals = (lambda c: [names.index(name) for name in recorded[names[c]]]) if style == "contrast" else None
    questions = ask_about(range(len(names)), names, find_domain(names), style, rivals)
    found = replay(questions, known_answers())
    assert (found.missing, found.failed) == ([], {})
    assert found.requests == len(found.descriptions) == len(names) == SHIPPED["blazon"]
    assert [(found.records[c].class_name, found.records[c].style) for c in questions] == [(n, style) for n in names]
    assert not found.other_rivals
    assert Counter(r.class_name for r in found.records.values()).most_common(1)[0][1] == 1


def test_the_domain_is_that_of_the_transcript_that_knows_every_class():
    assert find_domain(["Banded", "blotchy"]) == "photographs of textures"
    assert find_domain(["Forest", "River"]) == "satellite images"
    assert find_domain(["banded", "Abyssinian"]) == "photographs"  # known, but not to one transcript
    assert find_domain(["banded", "unheard of"]) == "photographs"


# ---------------------------------------------------------------- replay


def test_replay_tells_described_missing_and_failed_classes_apart():
    known = Transcript([record("lion"), record("bear", ("One.", "Two.", "one"))])
    questions = ask_about([2, 0, 1], ["wolf", "bear", "lion"], "shields")
    found = replay(questions, known)
    assert found.asked == [2, 0, 1]
    assert found.questions == questions
    assert found.descriptions == {2: list(THREE)}
    assert found.records == {2: record("lion")}
    assert found.missing == [0]
    assert found.failed == {1: "2 usable sentences, 3 are needed"}
    assert found.requests == 1


def test_replay_checks_an_answer_again_and_by_what_fits():
    known = Transcript([record("lion", ("<b>A</b> lion.", "A bear.", "A wolf.", "A very long sentence."))])
    found = replay({0: Question("lion", "shields")}, known, fits_context=lambda text: len(text) < 10)
    assert found.descriptions == {0: ["A lion.", "A bear.", "A wolf."]}
    assert replay({0: Question("lion", "shields")}, known, fits_context=lambda text: False).failed.keys() == {0}


def test_a_contrast_answer_for_other_rivals_is_used_and_listed():
    known = Transcript(record(name, style="contrast", rivals=("bear", "wolf")) for name in ("lion", "lynx", "puma"))
    rivals = {"lion": ("wolf", "bear"), "lynx": ("bear",), "puma": ()}
    found = replay({c: Question(n, "shields", "contrast", r) for c, (n, r) in enumerate(rivals.items())}, known)
    assert list(found.descriptions) == [0, 1, 2]
    assert found.other_rivals == [1, 2]


def test_replay_may_ask_for_the_answers_of_one_model():
    known = Transcript([record("lion", THREE, model="a"), record("lion", OTHER, model="b"), record("bear", model="b")])
    questions = ask_about([0, 1], ["lion", "bear"], "shields")
    assert replay(questions, known).descriptions == {0: list(OTHER), 1: list(THREE)}
    found = replay(questions, known, model="a")
    assert found.descriptions == {0: list(THREE)}
    assert found.missing == [1]

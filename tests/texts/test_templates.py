"""Template pools and prompt banks."""

import pytest

from cmmlib.errors import InputError
from cmmlib.texts.templates import PromptBank, fill, flaw, is_quoted, load_templates


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("name", "count"), [("openai-80", 80), ("openai-7", 7)])
def test_published_pools_have_their_published_size_and_a_slot_each(name, count):
    templates = load_templates(name)
    assert len(set(templates)) == count
    assert all(template.count("{}") == 1 for template in templates)
    assert "a photo of a {}." in load_templates("openai-80")
    assert "itap of a {}." in load_templates("openai-7")


def test_the_small_pool_is_part_of_the_large_one():
    assert set(load_templates("openai-7")) <= set(load_templates("openai-80"))


def test_a_file_of_templates_keeps_its_order_and_skips_comments_and_empty_lines(tmp_path):
    file = tmp_path / "pool.txt"
    file.write_text("# mine\n\na {} texture.\n   \n  {} up close  \n  # the {}\n{} and {}\n", encoding="utf-8")
    assert load_templates(str(file)) == ["a {} texture.", "{} up close", "{} and {}"]


def test_a_byte_order_mark_is_no_part_of_the_first_template(tmp_path):
    file = tmp_path / "pool.txt"
    file.write_bytes(b"\xef\xbb\xbfa {}.\r\nthe {}.\r\n")
    assert load_templates(str(file)) == ["a {}.", "the {}."]


def test_a_file_beside_the_caller_needs_no_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "pool.txt").write_text("a {}.")
    monkeypatch.chdir(tmp_path)
    assert load_templates("pool.txt") == ["a {}."]


def test_a_template_without_slot_is_named_by_its_line(tmp_path):
    file = tmp_path / "pool.txt"
    file.write_text("# comment\na {}.\n\na photo\n{}\n")
    with pytest.raises(InputError) as error:
        load_templates(str(file))
    message = one_line(error)
    assert "line 4" in message
    assert "'a photo'" in message
    assert "pool.txt" in message
    assert str(tmp_path) not in message


@pytest.mark.parametrize("template", ["{{}}", "a {} of {class}", "a {} {", "} {}", "a {0} {}"])
def test_braces_that_would_be_read_are_refused(template, tmp_path):
    (tmp_path / "pool.txt").write_text(f"a {{}}.\n{template}\n")
    with pytest.raises(InputError) as error:
        load_templates(str(tmp_path / "pool.txt"))
    assert f"line 2 of pool.txt has other braces than {{}}, the only ones that are filled: '{template}'" in str(
        error.value
    )


@pytest.mark.parametrize("line", ['["a {}.", "the {}"]', "['{}'],", ' [ "a {}", ] '])
def test_a_list_on_one_line_is_no_template(line, tmp_path):
    (tmp_path / "pool.txt").write_text(f"{line}\n")
    with pytest.raises(InputError) as error:
        load_templates(str(tmp_path / "pool.txt"))
    assert "line 1 of pool.txt is a list: write one template a line" in one_line(error)
    assert flaw("[a {}]") is None


def test_every_pool_of_the_package_is_without_flaw():
    for name in ("openai-80", "openai-7", "blazon-24", "blazon-odd"):
        assert not any(flaw(template) or is_quoted(template) for template in load_templates(name))


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ('"a {}.",', True),
        ("'a {}.'", True),
        ("  `a {}`", True),
        ("\u201ca {}\u201d", True),
        (r'"a \"{}\" b"', True),
        ('"{}" and "{}"', False),
        ("a sign: '{}'", False),
        ("'n' {}", False),
        ('"', False),
        ('"' + "\\" * 5000, False),  # in no time
    ],
)
def test_texts_in_quotation_marks_are_told_apart(text, quoted):
    assert is_quoted(text) is quoted


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "holds no template"), (b"# only\n\n", "holds no template"), (b"a {} \xff\xfe\n", "not UTF-8")],
)
def test_files_without_templates_are_refused(tmp_path, content, expected):
    (tmp_path / "pool.txt").write_bytes(content)
    with pytest.raises(InputError) as error:
        load_templates(str(tmp_path / "pool.txt"))
    assert expected in one_line(error)


def test_unknown_pools_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="unknown pool 'openai-81'"):
        load_templates("openai-81")
    with pytest.raises(InputError, match=r"cannot read absent\.txt: no such file"):
        load_templates(str(tmp_path / "absent.txt"))
    with pytest.raises(InputError, match="is a directory"):
        load_templates(str(tmp_path))


def test_braces_in_a_class_name_mean_nothing():
    assert fill("a {}.", "{curly} {0} %s {}") == "a {curly} {0} %s {}."
    assert fill("{} on {}", "{}") == "{} on {}"


def test_a_bank_goes_template_by_template():
    bank = PromptBank.of_templates(["a {}", "the {}", "{}!"], ["cat", "dog"])
    assert bank.texts == ["a cat", "a dog", "the cat", "the dog", "cat!", "dog!"]
    assert bank.classes == [0, 1, 0, 1, 0, 1]


def test_equal_class_names_stay_two_classes():
    bank = PromptBank.of_templates(["a {}"], ["missile", "missile"])
    assert bank.texts == ["a missile", "a missile"]
    assert bank.classes == [0, 1]

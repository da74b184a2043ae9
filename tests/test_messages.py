"""Every message about a wrong input has one grammar: what, where, what is allowed, the way out."""

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "fusionkd_lib"


def messages() -> list[tuple[str, str]]:
    """Return the place and the text of each message, ``{}`` where a value stands."""
    found = []
    for path in sorted(LIBRARY.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if is_call and node.func.id == "InputError" and node.args:
                place = f"{path.relative_to(LIBRARY).as_posix()}:{node.lineno}"
                found.append((place, text_of(node.args[0])))
    return [(place, text) for place, text in found if text not in ("{}", "")]


def text_of(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return "{}"


MESSAGES = messages()


def test_there_are_messages_to_look_at():
    assert len(MESSAGES) > 40


@pytest.mark.parametrize(("place", "text"), MESSAGES, ids=[place for place, _ in MESSAGES])
def test_a_message_is_one_sentence_with_a_way_out(place, text):
    assert not text.endswith((".", "!", "\n"))
    assert ". " not in text.replace("e.g. ", "")
    assert "\n" not in text
    assert ": " in text or "; " in text or text.startswith("{}"), "what is wrong: what helps"
    assert not any(word in text.lower() for word in ("tuple", "ndarray", "oops", "sorry"))

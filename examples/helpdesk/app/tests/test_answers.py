import pytest

from helpdesk.answers import Answerer


@pytest.fixture
def answerer(config):
    return Answerer(config.model, max_tokens=12)


def test_an_answer_has_text_and_counts_tokens(answerer):
    reply = answerer.answer("What is a list?")
    assert reply["text"]
    assert answerer.tokens > 12


def test_a_short_limit_cuts_the_answer(answerer, config):
    question = "Count from one to one hundred in words."
    short, long = Answerer(config.model, max_tokens=3).answer(question)["text"], answerer.answer(question)["text"]
    assert long.startswith(short) and len(short) < len(long)


def test_the_stream_says_what_the_answer_says(answerer):
    question = "What is a tuple?"
    pieces = list(answerer.stream(question))
    assert "".join(pieces).strip() == answerer.answer(question)["text"]


def test_the_context_reaches_the_model(answerer):
    before = answerer.tokens
    answerer.answer("What is it?")
    bare = answerer.tokens - before
    answerer.answer("What is it?", context="A generator is a function that returns an iterator. " * 4)
    assert answerer.tokens - before - bare > bare

import json
import uuid

import pytest

from helpdesk.jobs import Jobs
from helpdesk.retrieval import passages, words
from helpdesk.service import Helpdesk


def test_words_and_passages():
    assert words("How do I write a FOR loop?") == {"write", "loop"}
    assert passages("a b c d e", size=2) == ["a b", "c d", "e"]


def test_the_right_document_is_found(desk, prefix):
    assert desk.retriever.best("how to iterate over a sequence")[0][0] == prefix + "topics/for.txt"
    assert desk.retriever.best("context manager around a block")[0][0] == prefix + "topics/with.txt"
    assert desk.retriever.best("zebra") == []


def test_ask(desk, prefix):
    reply = desk.ask("What can I iterate over?")
    assert reply["source"] == prefix + "topics/for.txt"
    assert reply["text"]


@pytest.fixture
def jobs(config):
    return Jobs(config.queue)


def test_a_job_is_answered_and_taken_off_the_queue(desk, jobs, documents, prefix):
    job = uuid.uuid4().hex
    jobs.send(job, "What can I iterate over?")
    key = f"{prefix}answers/{job}.json"
    for _ in range(20):
        if key in desk.work(prefix + "answers/", count=10):
            break
    answer = json.loads(documents.read(key))
    assert answer["source"] == prefix + "topics/for.txt"
    assert documents.author(key) == "helpdesk-batch"


def test_callers_without_the_key_are_refused(config):
    assert not Helpdesk(config).may_ask("wrong")

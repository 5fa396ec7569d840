"""The tests use the real services that the environment points at, under a prefix of their own."""

import uuid

import pytest

from helpdesk.config import Config
from helpdesk.documents import Documents
from helpdesk.service import Helpdesk

LOOP = (
    "The for statement is used to iterate over the elements of a sequence such as a string, tuple or list. "
    "The expression list is evaluated once; it should yield an iterable object."
)
WITH = (
    "The with statement is used to wrap the execution of a block with methods defined by a context manager. "
    "This allows common try except finally usage patterns to be encapsulated for convenient reuse."
)


@pytest.fixture(scope="session")
def config():
    return Config.from_env()


@pytest.fixture(scope="session")
def documents(config):
    return Documents(config.bucket)


@pytest.fixture
def prefix(documents):
    """A prefix of our own; whatever is under it afterwards is removed."""
    name = f"helpdesk-tests/{uuid.uuid4().hex}/"
    yield name
    documents.remove(*(key for key, _ in documents.keys(name)))
    assert documents.keys(name) == []


@pytest.fixture
def desk(config, documents, prefix):
    """A service over two small documents."""
    documents.write(prefix + "topics/for.txt", LOOP)
    documents.write(prefix + "topics/with.txt", WITH)
    return Helpdesk(Config(**{**vars(config), "prefix": prefix + "topics/", "max_tokens": 16}))

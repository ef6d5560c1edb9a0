import pickle

import pytest

from natsproto import errors as base
from objstore import errors
from objstore.format.codec import MetaDecodeError


@pytest.mark.parametrize(
    ("cls", "bases"),
    [
        (errors.BucketNotFoundError, (LookupError,)),
        (errors.ObjectNotFoundError, (LookupError,)),
        (errors.ObjectDeletedError, (errors.ObjectNotFoundError,)),
        (errors.BadBucketError, (ValueError,)),
        (errors.BucketAlreadyExistsError, (errors.BadBucketError,)),
        (errors.BadObjectMetaError, (ValueError,)),
        (errors.ObjectAlreadyExists, ()),
        (errors.RevisionConflictError, ()),
        (errors.BucketSealedError, ()),
        (errors.StoreFullError, ()),
        (errors.LinkError, ()),
        (errors.IntegrityError, ()),
        (errors.DigestMismatchError, (errors.IntegrityError,)),
        (MetaDecodeError, (errors.IntegrityError, ValueError)),
        (errors.ObjectChangedError, ()),
        (errors.OutcomeUnknownError, (TimeoutError,)),
        (errors.ForeignBucketError, (base.WrongStreamError,)),
    ],
)
def test_tree_and_facts(cls, bases):
    assert issubclass(cls, errors.NatsError)
    for other in bases:
        assert issubclass(cls, other)
    if cls is MetaDecodeError:
        return
    exc = cls("what happened", bucket="b", name="n")
    assert str(exc) == "what happened"
    assert (exc.bucket, exc.name) == ("b", "n")
    again = pickle.loads(pickle.dumps(exc))
    assert type(again) is cls
    assert (str(again), again.bucket, again.name) == ("what happened", "b", "n")
    assert cls("only a message").bucket == ""


def test_facts_of_single_errors():
    assert errors.RevisionConflictError("m", expected=3, current=5).expected == 3
    assert errors.RevisionConflictError("m", expected=3, current=5).current == 5
    assert errors.RevisionConflictError("m").current is None
    assert errors.OutcomeUnknownError("m", nuid="N").nuid == "N"
    assert errors.StoreFullError("m", err_code=10077).err_code == 10077
    assert errors.ObjectDeletedError("m", revision=4).revision == 4
    assert errors.ObjectAlreadyExists("m", revision=4).revision == 4
    assert errors.DigestMismatchError("m", expected="a", actual="b").actual == "b"
    link = errors.LinkError("m", target_bucket="tb", target_name="t")
    assert (link.target_bucket, link.target_name) == ("tb", "t")


def test_reexported_errors_are_the_same_classes():
    assert errors.NatsError is base.NatsError
    assert errors.UnsupportedFeatureError is base.UnsupportedFeatureError
    assert errors.MissingExtraError is base.MissingExtraError


def test_every_name_is_in_the_drawn_tree():
    for name in errors.__all__:
        assert name == "exit_code" or name in errors.__doc__, name


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (base.RemoteProtocolError("x"), 1),
        (base.LocalProtocolError("x"), 1),
        (base.APIError(500, 10000, "x"), 1),
        (base.UnsupportedFeatureError("x", "2.10"), 1),
        (base.MissingExtraError("x", "ws"), 1),
        (base.BadSubjectError("x"), 2),
        (base.InvalidNameError("x"), 2),
        (base.MaxPayloadError("x"), 2),
        (base.ConfigError("x"), 2),
        (errors.BadBucketError("x"), 2),
        (errors.BadObjectMetaError("x"), 2),
        (errors.BucketNotFoundError("x"), 3),
        (errors.ObjectNotFoundError("x"), 3),
        (errors.ObjectDeletedError("x"), 3),
        (errors.LinkError("x"), 3),
        (errors.BucketAlreadyExistsError("x"), 4),
        (errors.ObjectAlreadyExists("x"), 4),
        (errors.RevisionConflictError("x"), 4),
        (errors.BucketSealedError("x"), 4),
        (errors.StoreFullError("x"), 4),
        (base.WrongStreamError("x"), 1),
        (errors.ForeignBucketError("x"), 1),
        (base.NoServersError("x"), 5),
        (base.StaleConnectionError("x"), 5),
        (base.ConnectionClosedError("x"), 5),
        (base.SecureConnectionRequiredError("x"), 5),
        (base.OutboundBufferLimitError("x"), 5),
        (base.RequestTimeoutError("x"), 5),
        (base.NoRespondersError("x"), 5),
        (errors.OutcomeUnknownError("x"), 5),
        (base.AuthorizationError("x"), 6),
        (base.PermissionsViolationError("x"), 6),
        (errors.IntegrityError("x"), 7),
        (errors.DigestMismatchError("x"), 7),
        (errors.ObjectChangedError("x"), 7),
        (MetaDecodeError("x"), 7),
        (KeyboardInterrupt(), 130),
        (PermissionError("a local file"), 1),
        (ValueError("x"), 1),
        (RuntimeError("x"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_exit_codes(exc, code):
    assert errors.exit_code(exc) == code

import pytest

from dstrun.layer.backend import Backend, backend, described, is_dense, names
from dstrun.system.trouble import ConfigError


def test_packages_are_backends_and_modules_beside_them_are_none():
    assert names() == ["masked", "sparse"]
    assert all(isinstance(backend(name), Backend) for name in names())


def test_a_record_may_name_a_backend_that_is_not_here():
    assert described("masked") == "masked (simulated on dense storage)"
    assert (described("sparse"), described("mine")) == ("sparse", "mine")
    assert (is_dense("masked"), is_dense("mine")) == (True, False)


def test_a_checkpoint_may_not():
    with pytest.raises(ConfigError, match="backend=mine is not known: choose masked, sparse"):
        backend("mine")

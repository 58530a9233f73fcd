import pytest
from method_setting import setting

from dstrun.method.dense import Dense
from dstrun.method.dynamic.dst import DST
from dstrun.method.static import Static
from dstrun.system.trouble import ConfigError


@pytest.mark.parametrize("method", [Dense(), Static()], ids=["dense", "static"])
def test_dense_and_static_never_update(method):
    procedure = method.procedure(setting())
    for step in range(1, 11):
        assert not procedure.updates_at(step)
        assert procedure.before_step(step) is None
        assert procedure.after_backward(step) is None
        assert procedure.after_step(step) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": "last"}, "method.batch=last is not known: choose current, fresh"),
        ({"rounding": "cel"}, "method.rounding=cel is not known: choose ceil, floor (did you mean ceil?)"),
        ({"samples_per_class": 0}, "method.samples_per_class=0 must be at least 1"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ConfigError) as error:
        DST(**wrong)
    assert str(error.value) == message

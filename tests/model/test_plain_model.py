import pytest
from torch import nn

from dstrun.model.plain import Plain
from dstrun.system.trouble import ConfigError


class Net(nn.Module):
    def __init__(self, num_classes, in_chans=1, img_size=0, depth=2):
        super().__init__()
        self.given = (num_classes, in_chans, img_size, depth)


def net(**given):
    return nn.ParameterDict(given)


def nothing():
    return None


def built(name, image=(3, 8, 8), **settings):
    return Plain(part={"_target_": f"{__name__}.{name}", **settings}).build(image, 5)


def test_what_a_network_takes_of_the_data_set_is_filled_in():
    assert built("Net").given == (5, 3, 8, 2)
    assert built("Net", (3, 8, 6)).given == (5, 3, 0, 2)  # of images that are no squares nobody knows the size
    assert built("Net", in_chans=4, depth=7).given == (5, 4, 8, 7)
    assert dict(built("net")) == {"num_classes": 5}
    assert dict(built("net", classes=2)) == {"classes": 2}
    assert built("net", num_classes=9)["num_classes"] == 9


def test_a_network_of_torchvision_is_built():
    made = Plain(part={"_target_": "torchvision.models.squeezenet1_1"}).build((3, 64, 64), 7)
    assert made.num_classes == 7


def test_what_gives_no_network_is_refused():
    with pytest.raises(ConfigError, match=r"nothing returns NoneType: it must return a torch\.nn\.Module"):
        built("nothing")
    with pytest.raises(ConfigError, match=r"Net cannot be built: TypeError: .*unexpected keyword argument 'dep'"):
        built("Net", dep=1)


def test_a_network_of_timm_is_built():
    pytest.importorskip("timm")
    part = {"_target_": "timm.create_model", "model_name": "resnet10t", "in_chans": 3}
    assert Plain(part=part).build((3, 32, 32), 7).num_classes == 7

"""A third backend: values and positions in lists, for linear layers alone."""

from dstrun.layer.backend import Backend


class Listed(Backend):
    remark = "lists of connections"

    def replace(self, model, name, module, start, device=None):
        from dstrun.backend.listed.layer import ListedLinear

        layer = ListedLinear(name, module, start, device)
        model.set_submodule(name, layer)
        return layer

    def lacks(self, name, module, device):
        linear = type(module).__name__ == "Linear"
        return "" if linear else f"backend=listed stores linear layers alone, and {name} is none: set backend=masked"

    def announce(self, say):
        say("nothing is compiled")


BACKEND = Listed()

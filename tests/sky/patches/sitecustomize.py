"""Two changes to SkyPilot that its Slurm cloud needs in tests, made as its modules are loaded.

Put this folder on PYTHONPATH of the API server. The installed package stays as it is.
"""

import importlib.abc
import importlib.util
import os
import sys


def answer_network_probe(module):
    """Recovery first asks 8.8.8.8 whether there is a network; tests run where there is none."""
    module._TEST_IP_LIST = [os.environ["LORRY_TEST_PROBE"]]


def allow_ports_on_slurm(module):
    """A service names the port of its replicas, which Slurm is said not to support: it has nothing
    to open, since a node's ports are open to who can reach the node."""
    module.Slurm._CLOUD_UNSUPPORTED_FEATURES.pop(
        module.clouds.CloudImplementationFeatures.OPEN_PORTS, None
    )


PATCHES = {
    "sky.backends.backend_utils": answer_network_probe,
    "sky.clouds.slurm": allow_ports_on_slurm,
}


class Finder(importlib.abc.MetaPathFinder):
    """Finds the two modules as usual and runs their patch after they were executed."""

    def find_spec(self, name, path, target=None):
        if name not in PATCHES or "LORRY_TEST_PROBE" not in os.environ:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            PATCHES[name](module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())

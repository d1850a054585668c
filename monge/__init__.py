"""monge learns a flow that carries one set of vectors onto another, and uses it."""

import lazy_loader

# names are imported when first used: `import monge` and the command line stay light
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"

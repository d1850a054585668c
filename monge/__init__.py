"""Flow matching with optimal transport in PyTorch: learn a vector field between two distributions, then use it."""

import lazy_loader

# names are imported when first used: `import monge` and the command line stay light
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"

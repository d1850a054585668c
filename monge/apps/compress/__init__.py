"""Replace a block of a language model's layers by a learned flow (Latent Flow Transformer)."""

"""Pretrained language models: loading, hidden states, replacing blocks, and stores of their vectors."""

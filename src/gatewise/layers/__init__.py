"""Layers that stand in for those of torch.nn."""

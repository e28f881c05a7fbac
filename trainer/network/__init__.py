"""DeepLabV3+, its families of backbones, and its first weights."""

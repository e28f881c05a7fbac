"""DeepLabV3+ on a deep-stem ResNet, and its first weights."""

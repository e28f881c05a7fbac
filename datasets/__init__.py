"""What an image is: trees of images and masks, split lists, augmentation, keyed randomness."""

"""Everything about the data: images and masks on disk, split lists, augmentation, batches."""

"""From the files that people have to batches: readers, splits, vocabularies, scalers, batches."""

"""What all recipes share: the config file, loading and saving of models, the Trainer, the log."""

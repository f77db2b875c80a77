"""What a result can be written as beside its own folder, for the programs that run models."""

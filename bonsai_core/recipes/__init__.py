"""The recipes that come with the project, one file each, and how others are found."""

"""Reading and writing weight files of other frameworks, without those frameworks."""

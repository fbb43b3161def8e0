"""File formats: tables, embedding files, predictions, HTML pages, columns of text."""

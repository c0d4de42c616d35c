"""The templates of the HTML pages."""

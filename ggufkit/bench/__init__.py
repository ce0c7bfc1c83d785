"""The five questions: asked, timed, checked, and kept in one file."""

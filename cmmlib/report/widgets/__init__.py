"""Parts of a page that a reader can move: a script and its data, in one piece of HTML that needs no server."""

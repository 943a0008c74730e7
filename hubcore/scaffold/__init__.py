"""Files of `hubcore plugin new`: the templates in `files/`, and `new.new_plugin`, which fills them in."""

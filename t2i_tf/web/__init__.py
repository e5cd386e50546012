"""Pages for people's browsers: `demo` shows a trained run. Gradio, of the extra `[web]`, is imported only here."""

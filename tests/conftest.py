"""Settings every test runs under."""

import hypothesis

# These machines are shared: a slow example says nothing about the code.
hypothesis.settings.register_profile("shared", deadline=None, max_examples=40)
hypothesis.settings.load_profile("shared")

"""What every test shares."""

from hypothesis import settings

# The machine decides how long an example takes; a test says what must hold, not how fast.
settings.register_profile("loopscope", deadline=None, print_blob=True)
settings.load_profile("loopscope")

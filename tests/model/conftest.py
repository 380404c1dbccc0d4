"""Let the asserts outside the test files say what differs, too."""

import pytest

pytest.register_assert_rewrite("tests.model.machine", "tests.model.interleavings", "tests.model.clock")

"""What takes too long for the tests: each module is a command that says what it saw and fails when it is not good."""

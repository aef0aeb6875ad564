"""What a user installs: the wheel and the sdist, away from the repository (`make package-test`)."""

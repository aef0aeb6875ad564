"""The configs moved to quorate_quorum.configs; this name goes once all imports have followed."""

from quorate_quorum.configs import *  # noqa: F403

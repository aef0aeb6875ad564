"""The image and compose.yaml, with a container engine (`make container-test`)."""

#!/bin/sh
# Generate the Python stubs from the .proto files into the package of each name.
# Usage: proto/generate.sh [ROOT]   (ROOT: where clients/, quorum/, broker/ lie; default: here)
set -eu
cd "$(dirname "$0")/.."
root="${1:-.}"
# The tools of the virtual environment, or of the one whose python is named in PYTHON.
PATH="$(dirname "${PYTHON:-$(pwd)/.venv/bin/python}"):$PATH"
for pair in quorate:clients quorate_quorum:quorum quorate_broker:broker; do
    package="${pair%%:*}"
    folder="$root/${pair##*:}"
    mkdir -p "$folder/$package/v1"
    python -m grpc_tools.protoc -I proto --python_out="$folder" --mypy_out="quiet:$folder" proto/"$package"/v1/*.proto
done

#!/usr/bin/env bash
# Install the lab's npm servers (Azurite) when npm is there; say so in one line when it is not.
set -euo pipefail
folder="$(dirname "$0")/../src/crossload/lab/node"
if [ -d "$folder/node_modules/azurite" ]; then exit 0; fi
if ! command -v npm >/dev/null; then
  echo "optional: npm is not installed, the lab goes on without Azurite (install Node 20 or newer, then make lab-node)"
  exit 0
fi
npm ci --prefix "$folder" --no-audit --no-fund --loglevel=error >/dev/null \
  || echo "optional: npm could not install Azurite, the lab goes on without it (try again: make lab-node)"
